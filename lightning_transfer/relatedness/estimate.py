"""The steps from a checked problem to a certified answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.bound import Transforms, certify, class_losses, three_terms
from lightning_transfer.relatedness.head import SoftmaxHead, train_head
from lightning_transfer.relatedness.problem import Problem
from lightning_transfer.relatedness.pseudo_labels import cluster, first_guess
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.solvers import (
    AlternatingSolver,
    Settings,
    Solution,
    class_costs,
    guessing,
    typical_tau,
)
from lightning_transfer.relatedness.transforms import assign_classes, fixed_label_map

LabelMap = Tensor | Literal["matched", "random"] | None
_REFRESHES = 4  # of pseudo-labels


def solve(problem: Problem, settings: Settings, label_map: LabelMap, start: Transforms | None) -> Solution:
    """Choose reference classes, fix what is not learned, and descend.

    Args:
        problem: Checked samples.
        settings: What is asked for.
        label_map: Label map where it is not learned.
        start: Transforms to start from.

    Returns:
        The best transforms with their certificate.

    Raises:
        ValueError: If a fixed label map is impossible or malformed.
    """
    fixed = None
    if start is None and problem.head is None and {"prior", "labels"} <= settings.learn:
        chosen = assign_classes(rough_costs(problem, settings), problem.target.prior)
        problem.keep_reference_classes(chosen.sum(0).nonzero()[:, 0])
    elif "labels" not in settings.learn:
        fixed = initial_label_map(problem, settings, "matched" if label_map is None else label_map)
    solver = AlternatingSolver(problem.reference, problem.target, settings, problem.head, fixed, start)
    return solver.solve()


def rough_costs(problem: Problem, settings: Settings) -> Tensor:
    """Costs of class pairs before there is a head, shape ``(K_T, K_R)``."""
    reference = problem.reference.thinned(settings.fit_samples)
    tau = typical_tau(reference) if settings.tau == "auto" else settings.tau
    losses = reference.features.new_zeros(reference.num_classes)
    return class_costs(reference, problem.target, tau, losses)


def initial_label_map(problem: Problem, settings: Settings, label_map: Tensor | Literal["matched", "random"]) -> Tensor:
    """The label map where it is not learned, or where the published method starts."""
    if isinstance(label_map, Tensor):
        return problem.in_working_order(label_map)
    if label_map not in ("matched", "random"):
        raise ValueError(
            f"Expected argument `label_map` to be a tensor, 'matched', 'random' or None, but got {label_map!r}."
        )
    return fixed_label_map(label_map, rough_costs(problem, settings), problem.seed)


def solve_unlabelled(
    problem: Problem,
    settings: Settings,
    label_map: LabelMap,
    start: Transforms | None,
    kind: Literal["classifier", "kmeans"],
    num_classes: int | None,
) -> Solution:
    """Solve with labels that are found on the way.

    Args:
        problem: Checked samples; its target is labelled in place.
        settings: What is asked for.
        label_map: Label map where it is not learned.
        start: Transforms to start from; they give the first pseudo-labels.
        kind: ``"classifier"`` or ``"kmeans"``.
        num_classes: Number of target classes; None for that of the reference classes.

    Returns:
        The best transforms with their certificate for the last labels.
    """
    features = problem.target.features
    count = num_classes or len(problem.target_ids) or problem.reference.num_classes
    if kind == "kmeans":
        labels, problem.centres = cluster(features, count, problem.seed)
        problem.label_target(labels)
        if start is not None and len(start.conditional) != len(problem.target_ids):
            start = None
        return solve(problem, settings, label_map, start)
    labels = features.new_zeros(0, dtype=torch.long) if start is None else start.predict(features)
    if len(torch.unique(labels)) < count:
        labels, start = first_guess(problem.reference, features, count, problem.seed), None
    problem.label_target(labels)
    solution = solve(problem, settings, label_map, start)
    for _ in range(_REFRESHES):
        refreshed = solution.transforms.predict(features)
        if torch.equal(refreshed, problem.target.labels):
            return solution
        if len(torch.unique(refreshed)) < problem.target.num_classes:
            problem.messages.append("pseudo-labels were not refreshed further: a class would have lost all samples")
            return solution
        problem.label_target(refreshed)
        solution = AlternatingSolver(
            problem.reference,
            problem.target,
            replace(settings, ridge=solution.ridge),
            problem.head,
            solution.transforms.label_map,
            solution.transforms,
        ).solve()
    problem.messages.append(f"pseudo-labels still changed after {_REFRESHES} refreshes")
    return solution


def shrink(transforms: Transforms, reference: Sample, target: Sample, settings: Settings) -> tuple[Transforms, float]:
    """Take back as much of what the head says as pays on other data than it was learned on.

    Between the head and guessing by the class prior the bound is convex, and the transport cost is in proportion: one
    coupling and a line search.

    Args:
        transforms: What was learned.
        reference: Reference sample to evaluate on.
        target: Target sample to evaluate on.
        settings: What is asked for.

    Returns:
        The transforms, and the share of the head in them: 1 changes nothing, 0 is guessing.
    """
    from scipy.optimize import minimize_scalar

    guess = guessing(transforms, target.prior, "labels" in settings.learn)
    whole = replace(guess, head=transforms.head)
    cost = three_terms(whole, reference, target, settings.ground_cost, settings.max_samples).distribution_mismatch
    prior = guess.joint(target.prior).sum(0)

    def head(share: float) -> SoftmaxHead:
        return SoftmaxHead(share * whole.head.weight, torch.lerp(guess.head.bias, whole.head.bias, share))

    def bound(share: float) -> float:
        return float(prior @ class_losses(head(share), reference)) + share * cost

    between = float(minimize_scalar(bound, bounds=(0, 1), method="bounded", options={"xatol": 1e-3}).x)
    share = min((0.0, between, 1.0), key=bound)
    return replace(guess, head=head(share)), share


def probe(train: Sample, test: Sample, tau: float) -> tuple[float, float]:
    """Loss and accuracy of a linear classifier of target features under the same Lipschitz constraint.

    Args:
        train: Sample to fit it on.
        test: Sample to evaluate it on.
        tau: The constraint.

    Returns:
        Mean cross-entropy in nats, and accuracy.
    """
    head, _ = train_head(train, train.prior, tau, max_iter=40)
    logits = head.logits(test.features)
    return float(cross_entropy(logits, test.labels)), float((logits.argmax(1) == test.labels).double().mean())


def bootstrap_error(
    transforms: Transforms, reference: Sample, target: Sample, settings: Settings, num_resamples: int, seed: int
) -> float | None:
    """Standard deviation of the bound over resamples of both sides, for fixed transforms.

    Args:
        transforms: What was chosen.
        reference: Reference sample, resampled within classes.
        target: Target sample.
        settings: Ground cost and size of the transport problems.
        num_resamples: Number of resamples; 0 for none.
        seed: Seed of the resamples.

    Returns:
        The standard error, or None without resamples.
    """
    if not num_resamples:
        return None
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (len(rows),), generator=generator).to(rows.device)]

    everything = torch.arange(len(target.labels), device=target.labels.device)
    bounds = []
    for _ in range(num_resamples):
        again = reference.rows(torch.cat([draw(rows) for rows in reference.members() if len(rows)]))
        resampled = target.rows(draw(everything))
        bounds.append(certify(transforms, again, resampled, settings.ground_cost, settings.max_samples).bound)
    return float(torch.tensor(bounds).std(correction=min(1, num_resamples - 1)))
