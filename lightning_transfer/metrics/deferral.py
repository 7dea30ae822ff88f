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
        values: The first input of a score, shape ``(n, d)``. Only float64 is read: whether values of other dtypes are
            finite is seen from sums in float64, which they cannot leave.
        truth: Labels or targets of the same samples.
        kind: ``"classification"``, ``"multilabel"`` or ``"regression"``.
        num_classes: Class ids lie below it, where given.

    Returns:
        One for each of :data:`FAULTS`, bool.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.deferral import count_faults
        >>> count_faults(torch.tensor([[torch.nan]]).double(), torch.tensor([7]), "classification", 5)
        tensor([ True, False,  True, False, False])
    """
    none = torch.zeros((), dtype=torch.bool, device=values.device)
    unsound = _is_unsound(values) if values.dtype == torch.float64 else none
    if kind == "classification":
        smallest, largest = truth.aminmax()
        found = [unsound, smallest < 0, none if num_classes is None else largest >= num_classes, none, none]
    elif kind == "multilabel":
        found = [unsound, none, none, ~((truth == 0) | (truth == 1)).all(), none]
    else:
        found = [unsound, none, none, none, _is_unsound(truth)]
    return torch.stack(found)


def describe_faults(counts: Sequence[int | str], first: str, second: str, num_classes: int | None) -> str | None:
    """What the counts of :data:`FAULTS` (or ``"some"``) say, in words; None if there are none."""
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
