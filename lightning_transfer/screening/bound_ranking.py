"""Which reference for a backbone, and which backbone for a target: both by the bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness.result import TaskRelatednessResult


@dataclass(frozen=True)
class BoundRanking:
    """Candidates from the smallest bound to the largest.

    Attributes:
        results: Result of each candidate by name, in that order; equal bounds are ordered by the loss that they bound.
    """

    results: dict[str, TaskRelatednessResult]

    @property
    def best(self) -> str:
        """Name of the candidate with the smallest bound."""
        return next(iter(self.results))

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
        return "\n".join(lines)


def rank_references(
    references: Mapping[str, tuple[Tensor, Tensor]],
    target_features: Tensor,
    target_labels: Tensor | None = None,
    **options: Any,
) -> BoundRanking:
    """Rank reference tasks for one backbone and one target.

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
    candidates = {name: (*reference, target_features, target_labels) for name, reference in references.items()}
    return rank_backbones(candidates, **options)


def rank_backbones(
    candidates: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor | None]], **options: Any
) -> BoundRanking:
    """Rank backbones for one target by the bound under the same reference task.

    Widths may differ between backbones. With ``tau="auto"`` the bound does not depend on the scale of the features.

    Args:
        candidates: Reference features, reference labels, target features and target labels of each backbone.
        options: Arguments of :func:`lightning_transfer.functional.task_relatedness`.

    Returns:
        The ranking.

    Raises:
        ValueError: If there is no candidate, or an input is malformed.
    """
    if not candidates:
        raise ValueError("Expected at least one candidate to rank, but got none.")
    results = {name: task_relatedness(*sides, **options) for name, sides in candidates.items()}
    ordered = sorted(results.items(), key=lambda entry: (entry[1].bound, entry[1].target_loss, entry[0]))
    return BoundRanking(dict(ordered))
