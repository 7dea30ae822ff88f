"""Which reference for a backbone, and which backbone for a target: both by the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness.config import DATA, OF_ONE_BACKBONE, BoundConfig
from lightning_transfer.relatedness.result import TaskRelatednessResult

NUM_BASELINES = 5


@dataclass(frozen=True)
class BoundRanking:
    """Candidates from the best to the worst.

    Attributes:
        results: Result of each candidate by name, in that order; where they have baselines, by how far the bound under
            turning maps is below that of random copies, else by the bound. Backbones for a target without labels by
            ``reference_loss``. Equal ones are ordered by the loss that is bounded.
    """

    results: dict[str, TaskRelatednessResult]

    @staticmethod
    def of(results: Mapping[str, TaskRelatednessResult], by_reference_loss: bool = False) -> BoundRanking:
        """Put results in order, by the held-out loss on the reference where that is asked for and known of all."""
        known = by_reference_loss and all(result.reference_loss is not None for result in results.values())

        def key(name: str) -> tuple[float, float, str]:
            result = results[name]
            value = result.bound if result.baseline is None else result.baseline.difference
            if known:
                value = result.reference_loss or 0.0
            return value, result.target_loss, name

        return BoundRanking({name: results[name] for name in sorted(results, key=key)})

    @property
    def best(self) -> str:
        """Name of the best candidate."""
        return next(iter(self.results))

    def undecided(self) -> list[tuple[str, str]]:
        """Neighbours in the order whose differences from their copies are nearer than the margins of both together."""
        pairs = []
        for (name, one), (other, two) in pairwise(self.results.items()):
            if one.baseline is None or two.baseline is None:
                continue
            margin = math.hypot(one.baseline.margin, two.baseline.margin)
            if two.baseline.difference - one.baseline.difference <= margin:
                pairs.append((name, other))
        return pairs

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the results as plain values, ready for JSON."""
        return {name: result.to_dict() for name, result in self.results.items()}

    def __str__(self) -> str:
        width = max(len(name) for name in self.results)
        lines = [f"{'':<{width}}     bound = reference +  labels + distribution | target loss  accuracy"]
        lines += [
            f"{name:<{width}}  {r.bound:8.4f}   {r.reweighted_reference_loss:9.4f}  {r.label_mismatch:8.4f}"
            f"   {r.distribution_mismatch:12.4f} | {r.target_loss:11.4f}  {r.target_accuracy:8.4f}"
            for name, r in self.results.items()
        ]
        if any(r.margin_mismatch is not None for r in self.results.values()):
            lines[0] += "  as a distance"
            for i, r in enumerate(self.results.values(), start=1):
                lines[i] += f"  {r.margin_mismatch:13.4f}" if r.margin_mismatch is not None else ""
        if any(r.reference_loss is not None for r in self.results.values()):
            lines += [
                f"{name:<{width}}  held-out loss of a classifier of the reference: {r.reference_loss:.4f}"
                for name, r in self.results.items()
                if r.reference_loss is not None
            ]
        lines += [f"{name:<{width}}  the bound is vacuous" for name, r in self.results.items() if r.certificate.vacuous]
        lines += [
            f"{name:<{width}}  {r.baseline}{r.baseline.remark(r.certificate.guessing)}"
            for name, r in self.results.items()
            if r.baseline is not None
        ]
        lines += [f"not decided: {name} or {other}" for name, other in self.undecided()]
        if any(r.labels_used != "given" for r in self.results.values()):
            lines.append("bounds, losses and accuracies are those on labels that were found, not on the true ones")
        return "\n".join(lines)


def rank_references(
    references: Mapping[str, tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None]],
    target_features: Tensor,
    target_labels: Tensor | None = None,
    **options: Any,
) -> BoundRanking:
    """Rank reference tasks for one backbone and one target by how related they are.

    An easy reference has a small bound, related or not. So what counts is how far the bound under maps that can only
    turn the target lies below that of random copies of the reference (``baselines``, by default five of them), which
    are as easy; see :class:`~lightning_transfer.relatedness.baseline.Baseline`. With ``baselines=0`` the bound counts.

    Args:
        references: Features and labels of each reference, all by the same backbone, and after them, where its samples
            come in groups, their ids (see ``reference_groups`` of the function below).
        target_features: Shape ``(n, d)``, by that backbone.
        target_labels: Shape ``(n,)``, or None.
        options: Arguments of :func:`lightning_transfer.functional.task_relatedness`, but for those of one reference
            alone (a head, evaluation data, an earlier result, groups or class names of the reference).

    Returns:
        The ranking.

    Raises:
        ValueError: If there is no reference, an input is malformed, or an argument is of one reference alone.

    Example:
        >>> import torch
        >>> from lightning_transfer.screening import rank_references
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(60) % 3
        >>> noise = torch.randn(60, 3, generator=generator)
        >>> target = torch.eye(3)[labels] * 4 + noise
        >>> references = {"noise": (noise.flip(0), labels), "same": (target, labels)}
        >>> list(rank_references(references, target, labels))
        ['same', 'noise']
    """
    config, data = _read(options, NUM_BASELINES)
    for name in ("reference_groups", "reference_class_names"):
        if data.get(name) is not None:
            hint = "; hand groups in with each reference" if name == "reference_groups" else ""
            raise ValueError(f"Expected no argument `{name}` for several references, which each have their own{hint}.")
    groups: dict[str, Tensor | None] = {}
    candidates: dict[str, tuple[Tensor, Tensor, Tensor, Tensor | None]] = {}
    for name, reference in references.items():
        if len(reference) not in (2, 3):
            raise ValueError(
                f"Expected features and labels of reference {name!r}, and perhaps groups, but got {len(reference)} "
                "entries."
            )
        candidates[name] = (*reference[:2], target_features, target_labels)
        groups[name] = reference[2] if len(reference) == 3 else None
    return BoundRanking.of(_bounds(candidates, config, data, groups))


def rank_backbones(
    candidates: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor | None]], **options: Any
) -> BoundRanking:
    """Rank backbones for one target by the bound under the same reference task.

    Widths may differ between backbones. With ``tau="auto"`` the bound does not depend on the scale of the features.
    With ``confidence`` the statements about new samples hold for all candidates together, so for the one chosen too.
    Without target labels (and without baselines) backbones are ordered by ``result.reference_loss``: what the reference
    alone says, since bounds on labels that were found follow the accuracy on the true ones less.

    Args:
        candidates: Reference features, reference labels, target features and target labels of each backbone.
        options: Arguments of :func:`lightning_transfer.functional.task_relatedness`, but for those of one backbone
            alone (a head, evaluation data, an earlier result).

    Returns:
        The ranking.

    Raises:
        ValueError: If there is no candidate, an input is malformed, or an argument is of one backbone alone.
    """
    config, data = _read(options, 0)
    by_reference_loss = not config.baselines and all(sides[3] is None for sides in candidates.values())
    return BoundRanking.of(_bounds(candidates, config, data), by_reference_loss)


def _read(options: Mapping[str, Any], baselines: int) -> tuple[BoundConfig, dict[str, Any]]:
    """The config, with a number of baselines of the ranking's own where none is given, and the other arguments."""
    given = dict(options)
    config, data = given.pop("config", None), {name: given.pop(name) for name in DATA if name in given}
    return BoundConfig.of(config, given if config is not None else {"baselines": baselines, **given}), data


def _bounds(
    candidates: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor | None]],
    config: BoundConfig,
    data: Mapping[str, Any],
    groups: Mapping[str, Tensor | None] | None = None,
) -> dict[str, TaskRelatednessResult]:
    if not candidates:
        raise ValueError("Expected at least one candidate to rank, but got none.")
    for name in OF_ONE_BACKBONE:
        if data.get(name) is not None:
            raise ValueError(f"Expected no argument `{name}` for a ranking: it is of one candidate alone.")
    if config.confidence is not None:
        config = replace(config, confidence=1 - (1 - config.confidence) / len(candidates))
    own: dict[str, dict[str, Any]] = {name: dict(data) for name in candidates}
    for name, ids in (groups or {}).items():
        own[name]["reference_groups"] = ids
    return {name: task_relatedness(*sides, config=config, **own[name]) for name, sides in candidates.items()}
