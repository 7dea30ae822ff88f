"""Held-out answers: transforms learned on one half of both sides, the bound evaluated on the other, both ways."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.problem import Groups
from lightning_transfer.relatedness.result import TaskRelatednessResult
from lightning_transfer.relatedness.sample import number_by_place, prepare

Data = tuple[Tensor, Tensor, Tensor, "Tensor | None"]
HALVES = "held-out halves"


class Part(NamedTuple):
    """Some of the samples of both sides, with their groups."""

    data: Data
    groups: Groups


def halves(
    features: Tensor, labels: Tensor | None, side: str, seed: int, groups: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Cut one side in two at random within each class, the same way whatever the order of the samples.

    Args:
        features: Shape ``(n, d)``.
        labels: Shape ``(n,)``, or None.
        side: ``"reference"`` or ``"target"``, for messages.
        seed: Seed of the cut.
        groups: Ids of groups, shape ``(n,)``, none of which is cut; None where all samples are independent.

    Returns:
        Rows to learn on and rows to evaluate on, for either half, and the rows of classes that one half alone has: of a
        single sample, or of a single group. They are learned from both times and evaluated once.

    Raises:
        ValueError: If an input is malformed, or groups leave a half without samples of its own.
    """
    classes = torch.zeros(len(features), dtype=torch.long) if labels is None else labels
    order = prepare(features, classes, side, seed, groups)[3]
    classes = classes.to(order.device)[order]
    generator = torch.Generator().manual_seed(seed + 1)
    if groups is not None:
        return _halves_of_groups(classes.cpu(), groups.to(order.device)[order].cpu(), order.cpu(), side, generator)
    first = torch.zeros(len(classes), dtype=torch.bool)
    single = torch.zeros(len(classes), dtype=torch.bool)
    parity = 0
    of_class = torch.argsort(classes, stable=True).cpu().split(classes.unique(return_counts=True)[1].tolist())
    for rows in sorted(of_class, key=lambda rows: int(rows[0])):
        single[rows] = len(rows) == 1
        half = (len(rows) + parity) // 2
        parity = (parity + len(rows)) % 2 if len(rows) > 1 else parity
        first[rows[torch.randperm(len(rows), generator=generator)[:half]]] = True
    order = order.cpu()
    learn = [order[first | single], order[~first | single]]
    evaluate = [order[~first | single], order[first & ~single]]
    return learn, evaluate, order[single]


def _halves_of_groups(
    classes: Tensor, groups: Tensor, order: Tensor, side: str, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Deal whole groups out to two halves, class by class from the one with the fewest groups on.

    A group goes to the half that has fewer groups of the class, or fewer samples of it, or fewer samples.
    """
    classes = classes.unique(return_inverse=True)[1]
    numbers = number_by_place(groups)
    table = torch.zeros(int(numbers.max()) + 1, int(classes.max()) + 1, dtype=torch.long)
    table.index_put_((numbers, classes), torch.ones_like(numbers), accumulate=True)
    half = torch.full((len(table),), -1)
    samples = torch.zeros(2, table.shape[1], dtype=torch.long)  # of each class in each half
    counts = torch.zeros(2, table.shape[1], dtype=torch.long)  # of groups that have it
    for of_class in (table > 0).sum(0).argsort(stable=True).tolist():
        members = (table[:, of_class] > 0).nonzero()[:, 0]
        for group in members[torch.randperm(len(members), generator=generator)].tolist():
            if half[group] < 0:
                loads = [
                    (int(counts[one, of_class]), int(samples[one, of_class]), int(samples[one].sum())) for one in (0, 1)
                ]
                half[group] = one = int(loads[1] < loads[0])
                samples[one] += table[group]
                counts[one] += table[group] > 0
    single = ~(counts > 0).all(0)[classes]
    first = half[numbers] == 0
    evaluate = [order[~first | single], order[first & ~single]]
    if not len(evaluate[1]) or not bool((~first & ~single).any()):
        raise ValueError(
            f"Expected argument `{side}_groups` to hold at least two groups of a class, one to learn from and one to "
            "evaluate on, but every class is in one half only; `folds=1` evaluates on what is learned from."
        )
    return [order[first | single], order[~first | single]], evaluate, order[single]


def folds(data: Data, seed: int, groups: Groups = (None, None)) -> Iterator[tuple[Part, Part, tuple[int, int]]]:
    """What to learn on and what to evaluate on, twice, and how many samples of either side are in both.

    A reference class that one half alone has is in both parts both times: the bound needs it there.

    Args:
        data: Reference features and labels, target features and labels, one sample a row.
        seed: Seed of the cut.
        groups: Ids of groups of both sides, none of which is cut, or None.

    Raises:
        ValueError: If an input is malformed, or groups leave a half without samples of its own.
    """
    z, y, x, t = data
    of_reference, others, alone = halves(z, y, "reference", seed, groups[0])
    of_target, rest, few = halves(x, t, "target", seed, groups[1])

    def take(reference: Tensor, target: Tensor) -> Part:
        rows, columns = reference.to(y.device), target.to(x.device)
        part = z[rows], y[rows], x[columns], None if t is None else t[columns.to(t.device)]
        chosen = (reference, target)
        ids = [None if of is None else of[some.to(of.device)] for of, some in zip(groups, chosen, strict=True)]
        return Part(part, (ids[0], ids[1]))

    for fold in range(2):
        reference = torch.cat([others[fold], alone]).unique() if len(alone) else others[fold]
        yield take(of_reference[fold], of_target[fold]), take(reference, rest[fold]), (len(alone), len(few))


def combine(parts: Sequence[TaskRelatednessResult], single: int, grouped: bool = False) -> TaskRelatednessResult:
    """One result of both halves: figures are means over the target samples, transforms those of the first half.

    Args:
        parts: Results of the halves.
        single: Samples that are in both halves.
        grouped: Whether samples came in groups.

    Returns:
        The result; ``folds`` holds the parts.
    """
    first = parts[0]
    counts = [part.certificate.num_target for part in parts]
    shares = [count / sum(counts) for count in counts]
    certificate = Certificate.mean([part.certificate for part in parts])
    error = interval = population = None
    if first.standard_error is not None and first.interval is not None:
        errors = [part.standard_error or 0.0 for part in parts]
        error = math.sqrt(sum((share * each) ** 2 for share, each in zip(shares, errors, strict=True)))
        half = (first.interval[1] - first.bound) / (first.standard_error or 1.0) * error
        interval = (certificate.bound - half, certificate.bound + half)
    if first.population_bound is not None:
        population = sum(share * (part.population_bound or 0.0) for share, part in zip(shares, parts, strict=True))
    margin = None
    if first.margin_mismatch is not None:
        margin = sum(share * (part.margin_mismatch or 0.0) for share, part in zip(shares, parts, strict=True))
    free = None
    if all(part.reference_loss is not None for part in parts):
        free = sum(share * (part.reference_loss or 0.0) for share, part in zip(shares, parts, strict=True))
    messages = list(dict.fromkeys(message for part in parts for message in part.messages))
    if single:
        only = "are of a class that one half alone has" if grouped else "are the only ones of their class"
        messages.append(f"{single} samples {only}: they are learned from in both halves")
    prior = torch.stack([share * part.target_prior for share, part in zip(shares, parts, strict=True)]).sum(0)
    return replace(
        first,
        certificate=certificate,
        fit=Certificate.mean([part.fit for part in parts]),
        evaluated_on=HALVES,
        target_prior=prior,
        probe_loss=sum(share * part.probe_loss for share, part in zip(shares, parts, strict=True)),
        probe_accuracy=sum(share * part.probe_accuracy for share, part in zip(shares, parts, strict=True)),
        converged=all(part.converged for part in parts),
        seconds=sum(part.seconds for part in parts),
        messages=tuple(messages),
        standard_error=error,
        interval=interval,
        population_bound=population,
        margin_mismatch=margin,
        reference_loss=free,
        folds=tuple(parts),
    )
