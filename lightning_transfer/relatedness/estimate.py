"""The steps from a checked problem to a certified answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.bound import Transforms, look, sample_losses
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.probe import validated
from lightning_transfer.relatedness.problem import Problem
from lightning_transfer.relatedness.pseudo_labels import cluster, first_guess
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.solvers import (
    AlternatingSolver,
    Solution,
    class_costs,
    typical_tau,
)
from lightning_transfer.relatedness.transforms import assign_classes, fixed_label_map
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.groups import rows_of_groups

LabelMap = Tensor | Literal["matched", "random"] | None
_REFRESHES = 4  # of pseudo-labels


def solve(problem: Problem, config: BoundConfig, label_map: LabelMap, start: Transforms | None) -> Solution:
    """Choose reference classes, fix what is not learned, and descend.

    Args:
        problem: Checked samples.
        config: What is asked for.
        label_map: Label map where it is not learned.
        start: Transforms to start from.

    Returns:
        The best transforms with their certificate.

    Raises:
        ValueError: If a fixed label map is impossible, malformed, or given where the label map is learned.
    """
    fixed, settled = None, True
    if start is None and problem.head is None and {"prior", "labels"} <= config.learn:
        chosen, settled = assign_classes(rough_costs(problem, config), problem.target.prior)
        problem.keep_reference_classes(chosen.sum(0).nonzero()[:, 0])
    elif "labels" not in config.learn:
        fixed = initial_label_map(problem, config, "matched" if label_map is None else label_map)
    solution = AlternatingSolver(problem.reference, problem.target, config, problem.head, fixed, start).solve()
    return solution if settled else replace(solution, converged=False)


def check_label_map(config: BoundConfig, label_map: LabelMap) -> None:
    """A label map that would be ignored is an error, and so is a word that means none."""
    if isinstance(label_map, str):
        check_one_of(label_map, ("matched", "random"), "label_map")
    elif label_map is not None and not isinstance(label_map, Tensor):
        raise ValueError(
            f"Expected argument `label_map` to be 'matched', 'random' or a tensor, but got {type(label_map).__name__}."
        )
    if label_map is not None and "labels" in config.learn:
        raise ValueError(
            "Expected argument `label_map` to be None where the label map is learned, but got "
            f"{label_map if isinstance(label_map, str) else 'a tensor'}; leave 'labels' out of `transforms`."
        )


def rough_costs(problem: Problem, config: BoundConfig) -> Tensor:
    """Costs of class pairs before there is a head, shape ``(K_T, K_R)``."""
    reference = problem.reference.thinned(config.fit_samples)
    tau = typical_tau(reference) if config.tau == "auto" else config.tau
    losses = reference.features.new_zeros(reference.num_classes)
    return class_costs(reference, problem.target, tau, losses)


def initial_label_map(
    problem: Problem, config: BoundConfig, label_map: Tensor | Literal["matched", "random"]
) -> Tensor:
    """The label map where it is not learned, or where the published method starts."""
    if isinstance(label_map, Tensor):
        return problem.in_working_order(label_map)
    return fixed_label_map(label_map, rough_costs(problem, config), problem.seed)


def solve_unlabelled(
    problem: Problem,
    config: BoundConfig,
    label_map: LabelMap,
    start: Transforms | None,
) -> Solution:
    """Solve with labels that are found on the way.

    Args:
        problem: Checked samples; its target is labelled in place.
        config: What is asked for.
        label_map: Label map where it is not learned.
        start: Transforms to start from; they give the first pseudo-labels.

    Returns:
        The best transforms with their certificate for the last labels.
    """
    features = problem.target.features
    count = config.num_target_classes or len(problem.target_ids) or problem.reference.num_classes
    if config.pseudo_labels == "kmeans":
        labels, problem.centres = cluster(features, count, problem.seed)
        problem.label_target(labels)
        if start is not None and len(start.conditional) != len(problem.target_ids):
            start = None
        return solve(problem, config, label_map, start)
    labels = features.new_zeros(0, dtype=torch.long) if start is None else start.predict(features)
    if len(torch.unique(labels)) < count:
        labels, start = first_guess(problem.reference, features, count, problem.seed), None
    problem.label_target(labels)
    solution = solve(problem, config, label_map, start)
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
            replace(config, ridge=solution.ridge),
            problem.head,
            solution.transforms.label_map,
            solution.transforms,
        ).solve()
    problem.messages.append(f"pseudo-labels still changed after {_REFRESHES} refreshes")
    return solution


def probe(train: Sample, test: Sample) -> tuple[float, float]:
    """Loss and accuracy of a linear classifier of target features.

    Args:
        train: Sample to fit it on.
        test: Sample to evaluate it on.

    Returns:
        Mean cross-entropy in nats, and accuracy.
    """
    logits = validated(train, train.prior).head.logits(test.features)
    return float(cross_entropy(logits, test.labels)), float((logits.argmax(1) == test.labels).double().mean())


def reference_loss(reference: Sample) -> float | None:
    """Loss of a linear classifier of the reference on a held-out quarter of it, at the reference's own class shares.

    No map to a target enters. Among backbones it says more of a target without labels than any bound on labels that
    were found there; see the guide to the scores.

    Args:
        reference: All classes, in the working space.

    Returns:
        The loss in nats, or None if no class has two samples.
    """
    found = validated(reference, reference.prior)
    return float(sample_losses(found.part, found.rest).mean()) if len(found.rest.labels) else None


def bootstrap_error(transforms: Transforms, reference: Sample, target: Sample, config: BoundConfig) -> float | None:
    """Standard deviation of the bound over resamples of both sides, of samples or groups, for fixed transforms.

    Args:
        transforms: What was chosen.
        reference: Reference sample, resampled within classes.
        target: Target sample.
        config: Ground cost and size of the transport problems; number of resamples and their seed.

    Returns:
        The standard error, or None without resamples.
    """
    if not config.num_resamples:
        return None
    generator = torch.Generator().manual_seed(config.seed)

    def draw(rows: Tensor, groups: Tensor | None) -> Tensor:
        if groups is None:
            return rows[torch.randint(len(rows), (len(rows),), generator=generator).to(rows.device)]
        members = rows_of_groups(groups[rows].unique(return_inverse=True)[1])
        drawn = torch.randint(len(members), (len(members),), generator=generator).tolist()
        return rows[torch.cat([members[group] for group in drawn])]

    everything = torch.arange(len(target.labels), device=target.labels.device)
    bounds = []
    for _ in range(config.num_resamples):
        again = reference.rows(torch.cat([draw(rows, reference.groups) for rows in reference.members() if len(rows)]))
        resampled = target.rows(draw(everything, target.groups))
        bounds.append(look(transforms, again, resampled, config.ground_cost, config.block_size).bound)
    return float(torch.tensor(bounds).std())
