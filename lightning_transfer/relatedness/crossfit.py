"""Held-out answers: transforms learned on one half of both sides, the bound evaluated on the other, both ways."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.result import TaskRelatednessResult
from lightning_transfer.relatedness.sample import prepare

Data = tuple[Tensor, Tensor, Tensor, "Tensor | None"]
HALVES = "held-out halves"


def halves(features: Tensor, labels: Tensor | None, side: str, seed: int) -> tuple[list[Tensor], list[Tensor], int]:
    """Cut one side in two at random within each class, the same way whatever the order of the samples.

    Args:
        features: Shape ``(n, d)``.
        labels: Shape ``(n,)``, or None.
        side: ``"reference"`` or ``"target"``, for messages.
        seed: Seed of the cut.

    Returns:
        Rows to learn on and rows to evaluate on, for either half, and the number of classes with a single sample: such
        a sample is learned from both times and evaluated once.

    Raises:
        ValueError: If an input is malformed.
    """
    classes = torch.zeros(len(features), dtype=torch.long) if labels is None else labels
    order = prepare(features, classes, side, seed)[3]
    classes = classes.to(order.device)[order]
    generator = torch.Generator().manual_seed(seed + 1)
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
    return learn, evaluate, int(single.sum())


def folds(data: Data, seed: int) -> Iterator[tuple[Data, Data, int]]:
    """What to learn on and what to evaluate on, twice, and how many samples are of a class with no other sample.

    A reference class with a single sample is in both parts both times: the bound needs it there.

    Args:
        data: Reference features and labels, target features and labels, one sample a row.
        seed: Seed of the cut.

    Raises:
        ValueError: If an input is malformed.
    """
    z, y, x, t = data
    of_reference, others, single = halves(z, y, "reference", seed)
    alone = torch.isin(y, y.unique(return_counts=True)[0][y.unique(return_counts=True)[1] == 1]).nonzero()[:, 0].cpu()
    of_target, rest, few = halves(x, t, "target", seed)

    def take(reference: Tensor, target: Tensor) -> Data:
        rows, columns = reference.to(y.device), target.to(x.device)
        return z[rows], y[rows], x[columns], None if t is None else t[columns.to(t.device)]

    for fold in range(2):
        reference = torch.cat([others[fold], alone]).unique() if len(alone) else others[fold]
        yield take(of_reference[fold], of_target[fold]), take(reference, rest[fold]), single + few


def combine(parts: Sequence[TaskRelatednessResult], single: int) -> TaskRelatednessResult:
    """One result of both halves: figures are means over the target samples, transforms those of the first half.

    Args:
        parts: Results of the halves.
        single: Samples that are in both halves.

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
        messages.append(f"{single} samples are the only ones of their class: they are learned from in both halves")
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
