"""Which reference for a backbone, and which backbone for a target: both by the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from lightning_transfer.functional.task_relatedness import task_relatedness
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
        lines += [f"{name:<{width}}  {r.baseline}" for name, r in self.results.items() if r.baseline is not None]
        lines += [f"not decided: {name} or {other}" for name, other in self.undecided()]
        return "\n".join(lines)


def rank_references(
    references: Mapping[str, tuple[Tensor, Tensor]],
    target_features: Tensor,
    target_labels: Tensor | None = None,
    **options: Any,
) -> BoundRanking:
    """Rank reference tasks for one backbone and one target by how related they are.

    An easy reference has a small bound, related or not. So what counts is how far the bound under maps that can only
    turn the target lies below that of random copies of the reference (``baselines``, by default five of them), which
    are as easy; see :class:`~lightning_transfer.relatedness.baseline.Baseline`. With ``baselines=0`` the bound counts.

    Args:
        references: Features and labels of each reference, all by the same backbone.
        target_features: Shape ``(n, d)``, by that backbone.
        target_labels: Shape ``(n,)``, or None.
        options: Arguments of :func:`lightning_transfer.functional.task_relatedness`.

    Returns:
        The ranking.

    Raises:
        ValueError: If there is no reference, or an input is malformed.

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
    options.setdefault("baselines", NUM_BASELINES)
    candidates = {name: (*reference, target_features, target_labels) for name, reference in references.items()}
    return BoundRanking.of(_bounds(candidates, options))


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
        options: Arguments of :func:`lightning_transfer.functional.task_relatedness`.

    Returns:
        The ranking.

    Raises:
        ValueError: If there is no candidate, or an input is malformed.
    """
    by_reference_loss = not options.get("baselines") and all(sides[3] is None for sides in candidates.values())
    return BoundRanking.of(_bounds(candidates, options), by_reference_loss)


def _bounds(
    candidates: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor | None]], options: dict[str, Any]
) -> dict[str, TaskRelatednessResult]:
    if not candidates:
        raise ValueError("Expected at least one candidate to rank, but got none.")
    if options.get("confidence") is not None:
        options["confidence"] = 1 - (1 - options["confidence"]) / len(candidates)
    return {name: task_relatedness(*sides, **options) for name, sides in candidates.items()}
