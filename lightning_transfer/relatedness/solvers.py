"""The alternating solver: exact couplings, convex steps for head and feature map, descent on the certified bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.bound import Look, Transforms, certify, class_losses, look, look_at_losses
from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.head import SoftmaxHead, lbfgs, train_head
from lightning_transfer.relatedness.probe import Validated, scaled, scaled_losses, validated
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import (
    FeatureMap,
    assign_classes,
    conditional_of,
    fit_feature_map,
    label_map_of,
    match_marginals,
)
from lightning_transfer.relatedness.transport import Coupling, couple, couple_losses

RIDGES = (3e-2, 3e-3, 3e-4)
_IRLS_ROUNDS = 4
_SHARES = (1.0, 0.85, 0.7, 0.5, 0.3)
_SMALL_SHARES = (0.15, 0.07, 0.03, 0.0)
_CLASS_RIDGE = 0.1  # where the goals are means of classes


@dataclass(frozen=True)
class Solution:
    """What the solver found.

    Attributes:
        transforms: The best transforms.
        certificate: Their bound on the data they were learned on.
        kind: ``"learned"``, ``"identity map"`` or ``"constant head"``: which candidate won.
        ridge: Ridge of the feature map.
        rounds: Alternations made.
        converged: Whether the choice of classes, every head fit and every transport problem of the answer met its
            tolerance before its cap.
        history: Bound after each alternation, on the samples that the solver looks at.
    """

    transforms: Transforms
    certificate: Certificate
    kind: str
    ridge: float
    rounds: int
    converged: bool
    history: tuple[float, ...]


def class_costs(reference: Sample, target: Sample, tau: float, losses: Tensor) -> Tensor:
    """Rough cost of letting a reference class stand for a target class, from class means and spreads.

    The distance is that of two round Gaussians, so a class costs nothing beside its loss to stand for itself.

    Args:
        reference: Reference sample.
        target: Target sample in the same space.
        tau: Nats per unit of distance.
        losses: Loss of each reference class, shape ``(K_R,)``.

    Returns:
        Shape ``(K_T, K_R)``, in nats.
    """

    def moments(sample: Sample) -> tuple[Tensor, Tensor]:
        means = sample.class_means
        distance = (sample.features - means[sample.labels]).square().sum(1)
        squares = means.new_zeros(sample.num_classes).index_add_(0, sample.labels, distance)
        return means, (squares / sample.counts.clamp_min(1)).sqrt()

    (means, spreads), (others, widths) = moments(reference), moments(target)
    apart = torch.cdist(others, means, compute_mode="donot_use_mm_for_euclid_dist")
    return losses + tau * torch.hypot(apart, widths[:, None] - spreads)


def guessing(transforms: Transforms, target_prior: Tensor, free_labels: bool) -> Transforms:
    """A classifier that guesses by the class prior.

    With free labels its bound is the entropy of the joint mass: that of the target prior where every target class uses
    a single reference class.

    Args:
        transforms: Where to take the classes from.
        target_prior: Shape ``(K_T,)``.
        free_labels: Whether the label map may change.

    Returns:
        The transforms.
    """
    joint = transforms.joint(target_prior)
    prior = joint.sum(0)
    head = SoftmaxHead.constant(prior, transforms.head.weight.shape[1])
    best = torch.where(prior > 0, joint / prior.clamp_min(torch.finfo(prior.dtype).tiny), transforms.label_map)
    return replace(transforms, head=head, label_map=best if free_labels else transforms.label_map)


def typical_tau(sample: Sample) -> float:
    """A constant at which the features of a sample make a difference of about two nats."""
    return 2 / max(float(sample.features.square().sum(1).mean().sqrt()), 1e-12)


class AlternatingSolver:
    """Descent on the bound for one reference and one target sample.

    Args:
        reference: Reference sample; all its classes may be used.
        target: Target sample; every class has samples.
        config: What is asked for.
        head: A head of the user's own, which stays as it is; None to train one.
        label_map: A fixed label map, needed when the label map is not learned.
        start: Transforms to start from.
    """

    def __init__(
        self,
        reference: Sample,
        target: Sample,
        config: BoundConfig,
        head: SoftmaxHead | None = None,
        label_map: Tensor | None = None,
        start: Transforms | None = None,
    ) -> None:
        self.reference, self.target, self.config = reference, target, config
        self.reference_fit = reference.thinned(config.fit_samples)
        self.reference_look = self.reference_fit  # fewer while the ridge is chosen: transport is what takes time
        self.own_head, self.fixed_label_map, self.start = head, label_map, start
        self.validated: Validated | None = None  # the head, where it was chosen on held-out samples
        self.all_converged = True
        self.history: list[float] = []
        # softmax and ranges of logits do not change when a constant is added to all logits
        self.free_logits = config.feature_map == "affine" and reference.features.shape[1] >= reference.num_classes - 1

    def solve(self) -> Solution:
        """Learn the transforms and keep the best candidate."""
        config = self.config
        target = self.target.thinned(config.fit_target_samples)
        first = self._initial(target)
        ridge = config.ridge if config.ridge is not None else RIDGES[1]
        if config.ground_cost == "loss":
            candidates = {"identity map": self._calibrated(first, target)}
            if config.learns_map:
                candidates["learned"] = self._by_classes(first, target, ridge)
            if self.start is not None:
                candidates["warm start"] = self._own_start(self.start)
            if config.folds == 1 and config.learns_map:
                candidates["logit_margin"] = self._by_margin()
        else:
            candidates = {"identity map": self._finish_head(first, target)}
        if config.learns_map and config.ground_cost != "loss":
            start = self._first_iterate(first, candidates["identity map"], target)
            if config.ridge is None and self.start is None:
                ridge, start = self._choose_ridge(start, target)
            learned = self._descend(start, target, ridge, config.rounds)
            candidates["learned"] = self._finish_head(learned, target) if config.ground_cost == "feature" else learned
        elif self.start is not None and config.ground_cost != "loss":
            candidates["learned"] = self._finish_head(self.start, target)
        if config.tau == "auto" and self.own_head is None:
            candidates["constant head"] = guessing(first, target.prior, "labels" in config.learn)
        certificates = {name: self._certify(each) for name, each in candidates.items()}
        kind = min(certificates, key=lambda name: certificates[name].bound)
        return Solution(
            transforms=candidates[kind],
            certificate=certificates[kind],
            kind=kind if kind in ("identity map", "constant head") else "learned",
            ridge=ridge,
            rounds=max(len(self.history) - 1, 0),
            converged=self.all_converged and certificates[kind].optimal,
            history=tuple(self.history),
        )

    def _by_margin(self) -> Transforms:
        """The answer for the next larger cost, which bounds that of this one on the same samples.

        Its maps fit the samples so closely that on others they say less than guessing, so it is no candidate there.
        """
        config = replace(self.config, ground_cost="logit_margin")
        solver = AlternatingSolver(self.reference, self.target, config, self.own_head, self.fixed_label_map, self.start)
        solution = solver.solve()
        self.all_converged = self.all_converged and solver.all_converged
        self.history = solver.history
        return solution.transforms

    def _own_start(self, start: Transforms) -> Transforms:
        """The transforms of an earlier result, with a head that meets what is asked for now."""
        if self.own_head is not None or self.config.tau == "auto":
            return start
        return replace(start, head=start.head.limited(self.config.tau))

    def _by_classes(self, first: Transforms, target: Sample, ridge: float) -> Transforms:
        """Transforms under which the head tells the classes of the target apart, on other samples too.

        Affine: a map behind which the head gives the logits of a validated classifier of the target, as far as the rows
        of the head reach. Of another family: that with the means of the reference classes as its goals.
        """
        labels = first.conditional.argmax(1)[target.labels]
        prior = first.joint(target.prior).sum(0)
        matched = replace(target, labels=labels, num_classes=self.reference.num_classes, shares=None)
        if self.config.feature_map != "affine" or not self.free_logits or not _is_full(first.head.weight):
            means = self.reference_fit.class_means[labels]
            weights = (prior / matched.counts.clamp_min(1))[labels]
            family, ridge = self.config.feature_map, max(ridge, _CLASS_RIDGE)
            feature_map = fit_feature_map(family, target.features, means, weights, ridge, self.config.rank)
            return self._calibrated(replace(first, feature_map=feature_map), target)
        goal = validated(matched, prior)
        head, aim = first.head, goal.head
        if self.validated is not None:
            share, other = self._shares(first, goal, target)
            head, aim = scaled(head, share, prior), scaled(aim, other, prior)
        weight = head.weight - head.weight.mean(0)
        if not _is_full(weight):
            return replace(first, head=head)
        matrix, offset = _lift(weight, aim.weight, aim.bias - head.bias, FeatureMap.identity(target.features))
        return replace(first, head=head, feature_map=FeatureMap(matrix, offset))

    def _calibrated(self, transforms: Transforms, target: Sample) -> Transforms:
        """Keep as much of the head as gives the least bound, with reference samples that it was not fitted on."""
        if self.validated is None:
            return transforms
        prior = transforms.joint(target.prior).sum(0)
        held_out = bool((self.validated.rest.counts[prior > 0] > 0).all())
        head = self.validated.part if held_out else transforms.head
        sample = self.validated.rest if held_out else self.reference_fit
        shares, moved = (*_SHARES, *_SMALL_SHARES), target.with_features(transforms.feature_map(target.features))
        before = scaled_losses(head, shares, prior, sample)
        after = scaled_losses(head, shares, prior, moved, transforms.label_map)

        def bound(share: float) -> float:
            return look_at_losses(transforms, sample, target, before[share], after[share]).bound

        share = min(shares, key=bound)
        return replace(transforms, head=scaled(transforms.head, share, prior))

    def _shares(self, first: Transforms, goal: Validated, target: Sample) -> tuple[float, float]:
        """How much to keep of head and map: the least bound on samples that neither was fitted on.

        A bound pays for being sure more than a loss does, since reference and target are sure of different samples.
        """
        assert self.validated is not None
        prior = first.joint(target.prior).sum(0)
        reference = self.validated.rest
        rest = goal.rest  # its labels are reference classes: those of the target are not needed
        there = torch.isin(rest.labels, reference.labels)
        if not bool(there.any()):
            return 1.0, 1.0
        rest = rest.rows(there.nonzero()[:, 0])
        identity = torch.eye(self.reference.num_classes, dtype=prior.dtype, device=prior.device)

        before = scaled_losses(self.validated.part, _SHARES, prior, reference)
        after = scaled_losses(goal.part, _SHARES, prior, rest)
        weights = rest.counts / reference.counts.clamp_min(1) / len(rest.labels)

        def bound(one: float, other: float) -> float:
            cost = couple_losses(reference, rest, before[one], after[other], identity, identity).cost
            return float(before[one] @ weights[reference.labels]) + cost

        one = other = 1.0
        for _ in range(2):
            one = min(_SHARES, key=lambda share: bound(share, other))
            other = min(_SHARES, key=lambda share: bound(one, share))
        return one, other

    def _first_iterate(self, first: Transforms, finished: Transforms, target: Sample) -> Transforms:
        """Where the descent starts. A head near the constant one would leave the first coupling to chance."""

        def telling(head: SoftmaxHead) -> bool:
            return head.lipschitz_constant > 0.1 * first.head.lipschitz_constant

        if self.start is None:
            return finished if telling(finished.head) and self.config.ground_cost != "feature" else first
        if self.own_head is not None:
            return self.start
        if self.config.tau == "auto":
            return self.start if telling(self.start.head) else replace(self.start, head=first.head)
        prior = self.start.joint(target.prior).sum(0)  # features may have moved since
        return replace(self.start, head=self._train(prior, self.config.tau, self.start.head))

    def _certify(self, transforms: Transforms) -> Certificate:
        config = self.config
        return certify(transforms, self.reference, self.target, config.ground_cost, config.block_size)

    def _look(self, transforms: Transforms, target: Sample) -> Look:
        """The bound on the samples that the solver looks at."""
        config = self.config
        return look(transforms, self.reference_look, target, config.ground_cost, config.block_size)

    def _train(self, prior: Tensor, tau: float, start: SoftmaxHead | None, max_iter: int = 100) -> SoftmaxHead:
        head, converged = train_head(self.reference_fit, prior, tau, start, max_iter)
        self.all_converged = self.all_converged and (converged or self.config.tau == "auto")
        return head

    def _initial(self, target: Sample) -> Transforms:
        """Identity map, and the class prior and label map that suit it."""
        config, reference = self.config, self.reference_fit
        tau = typical_tau(reference) if config.tau == "auto" else config.tau
        losses = reference.features.new_zeros(reference.num_classes)
        if self.own_head is not None:
            tau, losses = self.own_head.lipschitz_constant, class_losses(self.own_head, reference)
        costs = class_costs(reference, target, tau, losses)
        conditional = self._choose_classes(costs, target.prior)
        joint = target.prior[:, None] * conditional
        label_map = self.fixed_label_map if self.fixed_label_map is not None else label_map_of(joint, costs)
        if self.own_head is not None:
            head = self.own_head
        elif config.ground_cost == "loss" and config.tau == "auto":
            self.validated = validated(reference, joint.sum(0))
            head = self.validated.head
        else:
            head = self._train(joint.sum(0), tau, None)
        return Transforms(head, FeatureMap.identity(target.features), label_map, conditional)

    def _choose_classes(self, costs: Tensor, prior: Tensor) -> Tensor:
        learn = self.config.learn
        if "labels" in learn:
            conditional, settled = (
                assign_classes(costs, prior)
                if "prior" in learn
                else match_marginals(costs, prior, self.reference.prior)
            )
            self.all_converged = self.all_converged and settled
            return conditional
        assert self.fixed_label_map is not None
        if "prior" not in learn:
            return conditional_of(self.fixed_label_map, self.reference.prior)
        allowed = torch.where(self.fixed_label_map > 0, costs - self.fixed_label_map.log(), torch.inf)
        return torch.nn.functional.one_hot(allowed.argmin(1), costs.shape[1]).to(costs)

    def _finish_head(self, transforms: Transforms, target: Sample) -> Transforms:
        """Adapt a trained head to the feature map where tau is free."""
        if self.config.tau != "auto" or self.own_head is not None:
            return transforms
        if self.config.ground_cost == "feature":
            return replace(transforms, head=self._search_tau(transforms, target))
        best, value = transforms, self._look(transforms, target)
        for sharpness in (0.2, 0.05):
            trial = self._logit_step(best, target, value.coupling, 0.0, sharpness, 40, move_map=False)
            seen = self._look(trial, target)
            if seen.bound < value.bound:
                best, value = trial, seen
        return best

    def _search_tau(self, transforms: Transforms, target: Sample) -> SoftmaxHead:
        """Head with the smallest bound over tau for the feature cost, whose couplings do not depend on tau.

        The bound is convex in tau: double it as long as the bound falls, then look on both sides of the best.
        """
        basis = transforms.head.directions
        reference, looked = (
            sample.with_features(sample.features @ basis.T) for sample in (self.reference_fit, self.reference_look)
        )
        prior = transforms.joint(target.prior).sum(0)
        mapped = target.with_features(transforms.feature_map(target.features) @ basis.T)
        support = transforms.label_map > 0
        distance = couple(
            looked, mapped, transforms.conditional, support, "feature", self.config.block_size
        ).cost  # fmt: skip
        best = SoftmaxHead.constant(prior, len(basis))
        lowest = float(prior @ class_losses(best, reference))
        start = SoftmaxHead(transforms.head.weight @ basis.T, transforms.head.bias)

        def try_tau(tau: float) -> bool:
            nonlocal best, lowest, start
            start, _ = train_head(reference, prior, tau, start.limited(tau), 40)
            value = float(prior @ class_losses(start, reference)) + start.lipschitz_constant * distance
            better = value < lowest
            if better:
                best, lowest = start, value
            return better

        tau = typical_tau(reference) / 16
        while tau < 100 * typical_tau(reference) and try_tau(tau):
            tau *= 2
        for factor in (0.7, 1.4, 0.85, 1.2):
            try_tau(max(best.lipschitz_constant, typical_tau(reference) / 64) * factor)
        return SoftmaxHead(best.weight @ basis, best.bias)

    def _choose_ridge(self, start: Transforms, target: Sample) -> tuple[float, Transforms]:
        """Fit with each ridge on a part of the target, from strong to weak, and compare on the rest."""
        config, whole = self.config, self.reference_look
        few = max(config.fit_samples // 4, 1)
        fit, rest = target.thinned(2 * few).split(4)
        if len(rest.labels) < target.num_classes:
            return RIDGES[1], start
        self.reference_look = whole.thinned(few)
        ridge, lowest = RIDGES[1], math.inf
        current = best = start
        for trial in RIDGES:
            for round_ in range(2):
                current = self._step(current, fit, self._look(current, fit).coupling, trial, round_)
            bound = self._look(current, rest).bound
            if bound > lowest:
                break
            ridge, lowest, best = trial, bound, current
        self.reference_look = whole
        return ridge, best

    def _descend(self, start: Transforms, target: Sample, ridge: float, rounds: int) -> Transforms:
        """Alternate couplings with steps of the transforms; the best iterate is the answer."""
        best, lowest = start, math.inf
        current = start
        for round_ in range(rounds + 1):
            seen = self._look(current, target)
            self.history.append(seen.bound)
            if seen.bound < lowest:
                best, lowest = current, seen.bound
            if round_ < rounds:
                current = self._step(current, target, seen.coupling, ridge, round_)
        return best

    def _step(self, current: Transforms, target: Sample, coupling: Coupling, ridge: float, round_: int) -> Transforms:
        config = self.config
        if config.ground_cost == "feature":
            return self._map_step(current, target, coupling, ridge)
        if config.feature_map != "affine" or not self._is_moved(current):
            current = self._map_step(current, target, coupling, ridge)
            if config.feature_map != "affine":
                return self._finish_head(current, target)
            coupling = self._look(current, target).coupling
        return self._logit_step(current, target, coupling, ridge, 0.3 * 0.5**round_, 40, move_map=True)

    @staticmethod
    def _is_moved(current: Transforms) -> bool:
        identity = FeatureMap.identity(current.feature_map.matrix)
        return not torch.equal(current.feature_map.matrix, identity.matrix)

    def _map_step(self, current: Transforms, target: Sample, coupling: Coupling, ridge: float) -> Transforms:
        """Minimise the expected distance for a fixed coupling: iteratively re-weighted least squares."""
        config = self.config
        z, basis, feature_map = self.reference_look.features, current.head.directions, current.feature_map
        for _ in range(_IRLS_ROUNDS):
            seen, mapped = z @ basis.T, feature_map(target.features) @ basis.T
            distance = (seen[coupling.source] - mapped[coupling.target]).norm(dim=1)
            pull = coupling.mass / distance.clamp_min(1e-3 * float(distance.mean()) + 1e-12)
            weights = pull.new_zeros(len(target.labels)).index_add_(0, coupling.target, pull)
            goals = z.new_zeros(len(target.labels), z.shape[1])
            goals.index_add_(0, coupling.target, pull[:, None] * z[coupling.source])
            feature_map = fit_feature_map(
                config.feature_map, target.features, goals / weights[:, None], weights, ridge, config.rank
            )
        return replace(current, feature_map=feature_map)

    def _logit_step(
        self,
        current: Transforms,
        target: Sample,
        coupling: Coupling,
        ridge: float,
        sharpness: float,
        max_iter: int,
        *,
        move_map: bool,
    ) -> Transforms:
        """Minimise the bound over head and feature map for a fixed coupling.

        With the logits of reference and target as unknowns both the cross-entropy and the cost are convex. The extrema
        of the cost are smoothed from above by log-sum-exp, with a temperature of ``sharpness`` times the present cost.
        """
        reference = self.reference_fit
        prior = current.joint(target.prior).sum(0)
        weights = (prior / reference.counts.clamp_min(1))[reference.labels]
        support = (current.label_map > 0)[target.labels[coupling.target]]
        move_head = self.config.tau == "auto" and self.own_head is None
        free = move_map and self.free_logits
        weight = current.head.weight - current.head.weight.mean(0)
        bias = current.head.bias.clone()
        matrix, offset = current.feature_map.matrix, current.feature_map.offset
        if free:
            matrix, offset = weight @ matrix, weight @ offset
        temperature = max(sharpness * coupling.cost, 1e-3)
        moving = [*([weight, bias] if move_head else []), *([matrix, offset] if move_map else [])]
        moving = [part.clone() for part in moving]
        if move_head:
            weight, bias = moving[0], moving[1]
        if move_map:
            matrix, offset = moving[-2], moving[-1]
        for part in moving:
            part.requires_grad_()
        solver = lbfgs(moving, max_iter)

        def closure() -> Tensor:
            solver.zero_grad()
            logits = reference.features @ weight.T
            looked = self.reference_look.features @ weight.T
            mapped = target.features @ matrix.T + offset
            change = (mapped if free else mapped @ weight.T)[coupling.target] - looked[coupling.source]
            high = torch.logsumexp(change / temperature, dim=1)
            lowered = -change / temperature
            if self.config.ground_cost == "logit_margin":
                lowered = lowered.masked_fill(~support, -torch.inf)
            cost = coupling.mass @ (high + torch.logsumexp(lowered, dim=1)) * temperature
            loss = cross_entropy(logits + bias, reference.labels, reduction="none") @ weights
            loss = loss + cost + 0.1 * ridge * (weight.square().sum() + matrix.square().sum())
            loss.backward()
            return loss

        with torch.enable_grad():
            solver.step(closure)
        head = SoftmaxHead(weight.detach(), bias.detach()) if move_head else current.head
        matrix, offset = matrix.detach(), offset.detach()
        if free:
            matrix, offset = _lift(head.weight, matrix, offset, current.feature_map)
        return replace(current, head=head, feature_map=FeatureMap(matrix, offset))


def _is_full(weight: Tensor) -> bool:
    """Whether the centred rows of a head reach every direction of centred logits."""
    if len(weight) < 2:
        return True
    values = torch.linalg.svdvals(weight)
    return bool(values[len(weight) - 2] > 1e-6 * values[0]) and bool(values[0] > 0)


def _lift(weight: Tensor, matrix: Tensor, offset: Tensor, near: FeatureMap) -> tuple[Tensor, Tensor]:
    """The feature map nearest to another one that gives these logits, up to a constant added to all of them."""
    centred = weight - weight.mean(0)
    inverse = torch.linalg.pinv(centred)
    lifted = near.matrix + inverse @ (matrix - matrix.mean(0) - centred @ near.matrix)
    return lifted, near.offset + inverse @ (offset - offset.mean() - centred @ near.offset)
