"""Batches on a GPU that are not waited for: what is wrong with their values is counted there and told later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import LARGEST, SMALLEST

#: What can be wrong, in the order of the counts.
FAULTS = (
    "`{first}` to be finite and, unless all zero, between 1e-75 and 1e75 in size",
    "`{second}` to hold class ids from 0",
    "`{second}` to hold ids below num_classes={num_classes}",
    "`{second}` to hold zeros and ones",
    "`{second}` to be finite and, unless all zero, between 1e-75 and 1e75 in size",
)


def count_faults(values: Tensor, truth: Tensor, kind: str, num_classes: int | None) -> Tensor:
    """Which faults a batch has, without waiting for its device.

    Args:
        values: The first input of a score, shape ``(n, d)``.
        truth: Labels or targets of the same samples.
        kind: ``"classification"``, ``"multilabel"`` or ``"regression"``.
        num_classes: Class ids lie below it, where given.

    Returns:
        Zeros and ones, one for each of :data:`FAULTS`, int64.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.deferral import count_faults
        >>> count_faults(torch.tensor([[torch.nan]]), torch.tensor([7]), "classification", 5)
        tensor([1, 0, 1, 0, 0])
    """
    low = above = mixed = size = torch.zeros((), dtype=torch.bool, device=values.device)
    if kind == "classification":
        smallest, largest = truth.aminmax()
        low = smallest < 0
        above = largest >= num_classes if num_classes is not None else above
    elif kind == "multilabel":
        mixed = ~((truth == 0) | (truth == 1)).all()
    else:
        size = _is_unsound(truth)
    return torch.stack([_is_unsound(values), low, above, mixed, size]).long()


def describe_faults(counts: Sequence[int], first: str, second: str, num_classes: int | None) -> str | None:
    """What the counts of :data:`FAULTS` say, in words; None if there are none."""
    texts = [
        f"{text.format(first=first, second=second, num_classes=num_classes)}, but {count} batches had other values"
        for text, count in zip(FAULTS, counts, strict=True)
        if count
    ]
    return f"Expected argument {'; '.join(texts)}." if texts else None


def _is_unsound(values: Tensor) -> Tensor:
    if not values.is_floating_point():
        return torch.zeros((), dtype=torch.bool, device=values.device)
    if values.dtype != torch.float64:
        return ~values.sum(dtype=torch.float64).isfinite()
    low, high = values.aminmax()
    largest = torch.maximum(-low, high)
    return ~((largest == 0) | ((largest >= SMALLEST) & (largest <= LARGEST)))
