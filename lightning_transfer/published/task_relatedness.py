"""The algorithm as its authors released it, for comparison: Adam, mini-batch transport, penalties for constraints.

Nothing here is certified until the end, where the transforms that were found are handed to
:func:`~lightning_transfer.relatedness.bound.certify`. The figures that the released code prints are reported beside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from lightning_transfer.relatedness.bound import (
    Transforms,
    certify,
    class_losses,
    label_log_probabilities,
    sampled_constant,
)
from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.config import BoundConfig, PublishedSchedule
from lightning_transfer.relatedness.estimate import LabelMap, initial_label_map
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.problem import Problem
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.solvers import Solution
from lightning_transfer.relatedness.transforms import FeatureMap, conditional_of
from lightning_transfer.relatedness.transport import couple, exact_plan


@dataclass
class PublishedParameters:
    """The unknowns of the released code.

    Attributes:
        forward: ``A``, pushes reference features into the target space, shape ``(d, d)``.
        inverse: Its learned inverse, shape ``(d, d)``.
        offset: ``b``, shape ``(d,)``.
        label_logits: Columns whose softmax is ``B``, shape ``(K_T, K_R)``; None for a fixed label map.
        prior_logits: Logits of ``D``, shape ``(K_R,)``; None for a fixed prior.
        fixed_label_map: ``B`` where it is fixed.
        fixed_prior: ``D`` where it is fixed.
    """

    forward: Tensor
    inverse: Tensor
    offset: Tensor
    label_logits: Tensor | None
    prior_logits: Tensor | None
    fixed_label_map: Tensor
    fixed_prior: Tensor

    @property
    def label_map(self) -> Tensor:
        """``B``, shape ``(K_T, K_R)``."""
        return self.fixed_label_map if self.label_logits is None else self.label_logits.softmax(0)

    @property
    def prior(self) -> Tensor:
        """``D``, shape ``(K_R,)``."""
        return self.fixed_prior if self.prior_logits is None else self.prior_logits.softmax(0)

    def push(self, features: Tensor) -> Tensor:
        """``A z + b`` for reference features of shape ``(n, d)``."""
        return features @ self.forward.T + self.offset


def published_objective(
    parameters: PublishedParameters,
    plan: Tensor,
    reference: Sample,
    target: Sample,
    losses: Tensor,
    target_prior: Tensor,
    schedule: PublishedSchedule,
) -> Tensor:
    r"""The objective of one gradient step (Eq. 3 of the paper as released), for a fixed transport plan.

    .. math:: H(Y''|Y') + \sum_j D_j L_j + \lambda_1 \sum_{ij} \pi_{ij} (\|A z_i + b - z'_j\|^2 +
        \nu \|B e_{y_i} - e_{y'_j}\|^2) + \lambda_2 \|P_T - B D\|^2
        + \lambda_3 (\|A \bar A - I\|^2 + \|\bar A A - I\|^2)

    The plan comes from un-squared distances, the step uses squared ones; that is how the code does it.

    Args:
        parameters: The unknowns.
        plan: Shape ``(n, m)``.
        reference: Mini-batch of the reference.
        target: Mini-batch of the target.
        losses: Mean loss of the head on each reference class, shape ``(K_R,)``.
        target_prior: Shape ``(K_T,)``.
        schedule: Holds the weights.

    Returns:
        The objective, 0-d.
    """
    label_map, prior = parameters.label_map, parameters.prior
    pushed, labels = parameters.push(reference.features), label_map.T[reference.labels]
    goals = one_hot(target.labels, target.num_classes).to(labels)
    rows, columns = plan.sum(1), plan.sum(0)

    def transported(x: Tensor, y: Tensor) -> Tensor:
        return rows @ x.square().sum(1) + columns @ y.square().sum(1) - 2 * ((plan @ y) * x).sum()

    distance = transported(pushed, target.features) + schedule.label_cost * transported(labels, goals)
    identity = torch.eye(len(parameters.forward), dtype=plan.dtype, device=plan.device)
    inverse = (parameters.forward @ parameters.inverse - identity).square().sum()
    inverse = inverse + (parameters.inverse @ parameters.forward - identity).square().sum()
    entropy = -(prior * torch.special.xlogy(label_map, label_map).sum(0)).sum()
    objective: Tensor = (
        entropy
        + prior @ losses
        + schedule.distribution_weight * distance
        + schedule.prior_weight * (target_prior - label_map @ prior).square().sum()
        + schedule.inverse_weight * inverse
    )
    return objective


def train_published_head(
    sample: Sample, tau: float, schedule: PublishedSchedule, generator: torch.Generator
) -> SoftmaxHead:
    """Train the head with a penalty on the norm of the gradient of the loss, at true and at random labels.

    Args:
        sample: Reference sample.
        tau: What the norm should not exceed.
        schedule: Steps, rates and penalty.
        generator: Draws batches and labels.

    Returns:
        The head; its certified constant may exceed ``tau``.

    Raises:
        RuntimeError: If the steps diverge.
    """
    width, classes = sample.features.shape[1], sample.num_classes
    bound = width**-0.5
    weight = ((torch.rand(classes, width, generator=generator, dtype=torch.float64) * 2 - 1) * bound).to(
        sample.features
    )
    bias = weight.new_zeros(classes)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimizer: torch.optim.Optimizer
    if schedule.head_optimizer == "adam":
        optimizer = torch.optim.Adam(parameters, schedule.head_rate, betas=(0.5, 0.999))
    else:
        optimizer = torch.optim.SGD(parameters, schedule.head_rate, momentum=0.9, weight_decay=5e-4)
    for _ in range(schedule.num_head_steps(len(sample.labels))):
        rows = torch.randint(len(sample.labels), (schedule.head_batch,), generator=generator)
        features, labels = sample.features[rows.to(bias.device)], sample.labels[rows.to(bias.device)]
        noise = torch.randint(classes, (schedule.head_batch,), generator=generator).to(bias.device)
        optimizer.zero_grad()
        with torch.enable_grad():
            logits = features @ weight.T + bias
            p = logits.softmax(1)
            true, random = ((p - one_hot(y, classes).to(p)) @ weight for y in (labels, noise))
            gradients = [true + random] if schedule.joint_penalty else [true, random]
            penalty = sum((g.norm(dim=1) - tau).relu().square().mean() for g in gradients)
            (cross_entropy(logits, labels) + schedule.head_penalty * penalty).backward()
        optimizer.step()
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise RuntimeError("The head diverged under the penalty of the schedule; lower `head_rate` or `head_penalty`.")
    return SoftmaxHead(weight.detach(), bias.detach())


def _draw(sample: Sample, members: list[Tensor], prior: Tensor, batch: int, generator: torch.Generator) -> Sample:
    """Draw a mini-batch with the number of samples of each class that a prior asks for, capped by what there is."""
    picked = []
    for rows, share in zip(members, prior.tolist(), strict=True):
        count = min(len(rows), int(batch * share))
        picked.append(rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)])
    return sample.rows(torch.cat(picked))


def _plan(parameters: PublishedParameters, reference: Sample, target: Sample, label_cost: float) -> Tensor:
    labels = parameters.label_map.T[reference.labels]
    goals = one_hot(target.labels, target.num_classes).to(labels)
    cost = torch.cdist(parameters.push(reference.features), target.features) + label_cost * torch.cdist(labels, goals)
    plan, _ = exact_plan(
        cost.cpu().numpy(),
        torch.full((len(labels),), 1 / len(labels), dtype=torch.float64).numpy(),
        torch.full((len(goals),), 1 / len(goals), dtype=torch.float64).numpy(),
    )
    return torch.from_numpy(plan).to(cost)


def fit_published(
    parameters: PublishedParameters,
    reference: Sample,
    target: Sample,
    losses: Tensor,
    schedule: PublishedSchedule,
    learn_features: bool,
    generator: torch.Generator,
) -> None:
    """Take the steps of the schedule, in place.

    Args:
        parameters: The unknowns.
        reference: Reference sample.
        target: Target sample.
        losses: Mean loss of the head on each reference class, shape ``(K_R,)``.
        schedule: Steps and rates.
        learn_features: Whether the feature map moves.
        generator: Draws mini-batches.
    """
    maps = [parameters.forward, parameters.inverse, parameters.offset] if learn_features else []
    if parameters.label_logits is not None:
        maps.append(parameters.label_logits)
    groups = [{"params": maps, "lr": schedule.rate}] if maps else []
    if parameters.prior_logits is not None:
        groups.append({"params": [parameters.prior_logits], "lr": schedule.prior_rate})
    if not groups:
        return
    moving = [tensor for group in groups for tensor in group["params"]]  # type: ignore[attr-defined]
    for tensor in moving:
        tensor.requires_grad_()
    optimizer = torch.optim.Adam(groups)
    members, others = reference.members(), target.members()
    for _ in range(schedule.steps):
        with torch.no_grad():
            batch = _draw(reference, members, parameters.prior, schedule.batch, generator)
            other = _draw(target, others, target.prior, schedule.batch, generator)
            plan = _plan(parameters, batch, other, schedule.label_cost)
        optimizer.zero_grad()
        with torch.enable_grad():
            published_objective(parameters, plan, batch, other, losses, target.prior, schedule).backward()
        optimizer.step()
    for tensor in moving:
        tensor.requires_grad_(False)


def solve_published(problem: Problem, config: BoundConfig, label_map: LabelMap) -> tuple[Solution, dict[str, float]]:
    """Run the released algorithm, then certify what it found.

    Two certificates are possible, and the smaller one is taken: pulling the target back with the learned inverse (any
    map of the target will do), or pushing the reference forward, where the composed classifier has the constant of
    ``W`` times the inverse and its loss is measured on the pushed samples, so the two maps need not be inverse at all.

    Args:
        problem: Checked samples; needs as many reference as target classes at least.
        config: What is asked for.
        label_map: Label map where it is not learned; by default random.

    Returns:
        The certified solution, and what the released code would print.

    Raises:
        ValueError: If there are fewer reference than target classes, or the feature map is to be of another family.
    """
    schedule = PublishedSchedule.of(config.schedule)
    if problem.reference.num_classes < problem.target.num_classes:
        raise ValueError(
            "Expected at least as many reference classes as target classes for `method='published'`, but got "
            f"{problem.reference.num_classes} and {problem.target.num_classes}."
        )
    if "features" in config.learn and config.feature_map != "affine":
        raise ValueError(f"Expected `feature_map='affine'` for `method='published'`, but got {config.feature_map!r}.")
    if schedule.batch < max(problem.reference.num_classes, problem.target.num_classes):
        raise ValueError(
            f"Expected a schedule with `batch` of at least {problem.reference.num_classes}, but got {schedule.batch}."
        )
    generator = torch.Generator().manual_seed(problem.seed)
    reference, target = problem.reference, problem.target
    tau = schedule.tau if config.tau == "auto" else config.tau
    head = problem.head
    if head is None:
        head = train_published_head(reference, tau, schedule, generator)
    like, prior = reference.features, reference.prior
    identity = FeatureMap.identity(like)
    fixed = initial_label_map(problem, config, label_map if label_map is not None else "random")
    start = torch.rand(fixed.shape, generator=generator, dtype=torch.float64).to(like)
    parameters = PublishedParameters(
        forward=identity.matrix.clone(),
        inverse=identity.matrix.clone(),
        offset=identity.offset.clone(),
        label_logits=start if "labels" in config.learn else None,
        prior_logits=prior.clone() if "prior" in config.learn else None,
        fixed_label_map=fixed,
        fixed_prior=prior,
    )
    losses = class_losses(head, reference)
    fit_published(parameters, reference, target, losses, schedule, "features" in config.learn, generator)
    printed = _printed(parameters, head, reference, target, config, generator)
    transforms, certificate = _certified(problem, parameters, head, config)
    solution = Solution(
        transforms=transforms,
        certificate=certificate,
        kind="learned",
        ridge=0.0,
        rounds=schedule.steps,
        converged=certificate.optimal,
        history=(),
    )
    return solution, printed


def _certified(
    problem: Problem, parameters: PublishedParameters, head: SoftmaxHead, config: BoundConfig
) -> tuple[Transforms, Certificate]:
    """Certify both forms and go on with the smaller one; the working space becomes that of the form."""
    label_map, inverse, offset = parameters.label_map, parameters.inverse, parameters.offset
    conditional = conditional_of(label_map, parameters.prior)
    reference, target = problem.reference, problem.target
    pulled = Transforms(head, FeatureMap(inverse, -inverse @ offset), label_map, conditional)
    pulled_certificate = certify(pulled, reference, target, config.ground_cost, config.block_size)
    pushed_reference = reference.with_features(parameters.push(reference.features))
    pushed = Transforms(
        SoftmaxHead(head.weight @ inverse, head.bias - head.weight @ inverse @ offset),
        FeatureMap.identity(target.features),
        label_map,
        conditional,
    )
    pushed_certificate = certify(pushed, pushed_reference, target, config.ground_cost, config.block_size)
    if pulled_certificate.bound <= pushed_certificate.bound:
        problem.messages.append("the smaller certificate pulls the target back with the learned inverse")
        return pulled, pulled_certificate
    problem.messages.append("the smaller certificate pushes the reference forward")
    problem.reference = pushed_reference
    problem.frame = replace(problem.frame, push_matrix=parameters.forward, push_offset=parameters.offset)
    return pushed, pushed_certificate


def _printed(
    parameters: PublishedParameters,
    head: SoftmaxHead,
    reference: Sample,
    target: Sample,
    config: BoundConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """The figures of the released evaluation: equal weight for every class, hard labels, sampled constant."""
    label_map, prior = parameters.label_map, parameters.prior
    hard = one_hot(label_map.argmax(0), target.num_classes).T.double()
    equal = torch.full_like(target.prior, 1 / target.num_classes)
    unreached = bool((hard.sum(1) == 0).any())
    distance = 1e10  # what the code reports when a class is not reached
    if not unreached:
        shares = conditional_of(hard, reference.prior)
        pushed = reference.with_features(parameters.push(reference.features))
        coupling = couple(pushed, target, shares, hard > 0, "feature", config.block_size)
        distance = float(equal @ coupling.class_costs)
    back = (target.features - parameters.offset) @ parameters.inverse.T
    there = (parameters.push(reference.features) - parameters.offset) @ parameters.inverse.T
    guesses = [
        torch.randint(target.num_classes, (len(part),), generator=generator).to(part.device) for part in (there, back)
    ]
    pairs = [
        (there, label_map.argmax(0)[reference.labels]),
        (there, guesses[0]),
        (back, target.labels),
        (back, guesses[1]),
    ]
    tau = max(sampled_constant(head, label_map, features, labels) for features, labels in pairs)
    entropy = float(-(prior * torch.special.xlogy(label_map, label_map).sum(0)).sum())
    log_p = label_log_probabilities(head.logits(back), label_map)
    weighted = float(prior @ class_losses(head, reference))
    identity = torch.eye(len(parameters.forward), dtype=prior.dtype, device=prior.device)
    return {
        "re-weighted reference loss": weighted,
        "label mismatch": entropy,
        "distribution mismatch": tau * distance,
        "bound": weighted + entropy + tau * distance,
        "tau (sampled)": tau,
        "tau of the composed classifier (certified)": SoftmaxHead(
            head.weight @ parameters.inverse, head.bias
        ).lipschitz_constant,
        "target loss": float(-log_p.gather(1, target.labels[:, None]).mean()),
        "distance from inverse": float((parameters.forward @ parameters.inverse - identity).abs().max()),
        "distance from target prior": float((target.prior - label_map @ prior).norm()),
    }
