"""Counts of class ids and the entropies that follow from them, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_labels

#: Tables of counts larger than this are refused: the ids are then hardly class ids.
MAX_CELLS = 2**26


def check_label_columns(labels: Tensor, name: str = "labels") -> Tensor:
    """Check class ids of one task or, one column each, of many.

    Args:
        labels: Shape ``(n,)`` or ``(n, m)``, any integer dtype, ids from 0 with or without gaps.
        name: Name of the argument for the message.

    Returns:
        Shape ``(n, m)``, int64.

    Raises:
        ValueError: If dtype, shape or range is wrong, or there are no samples.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import check_label_columns
        >>> check_label_columns(torch.tensor([0, 2, 1])).shape
        torch.Size([3, 1])
    """
    if isinstance(labels, Tensor) and labels.ndim == 2 and labels.shape[1]:
        columns = check_labels(labels.flatten(), labels.numel(), name=name).reshape(labels.shape)
    else:
        columns = check_labels(labels, len(labels) if hasattr(labels, "__len__") else 0, name=name)[:, None]
    if not len(columns):
        raise ValueError(f"Expected argument `{name}` to hold samples, but got shape {tuple(labels.shape)}.")
    return columns


def compact_ids(labels: Tensor) -> tuple[Tensor, int]:
    """Renumber the class ids that occur as 0, 1, ... in their order.

    Args:
        labels: Class ids of any shape.

    Returns:
        The new ids, same shape, and how many there are.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import compact_ids
        >>> compact_ids(torch.tensor([7, 3, 7]))
        (tensor([1, 0, 1]), 2)
    """
    ids, inverse = torch.unique(labels, return_inverse=True)
    return inverse, len(ids)


def require_two_classes(num_classes: int) -> None:
    """Refuse a task that has nothing to tell apart.

    Raises:
        ValueError: If there are fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"Expected argument `labels` to hold at least 2 classes, but got {num_classes}.")


def count_joint(source_labels: Tensor, labels: Tensor) -> Tensor:
    """Count how often each source class meets each class, for each column of labels.

    Args:
        source_labels: Source class ids, shape ``(n,)``, int64.
        labels: Class ids, shape ``(n, m)``, int64.

    Returns:
        Counts of shape ``(m, source classes, classes)``, int64; sizes are the largest ids plus one.

    Raises:
        ValueError: If the largest ids ask for a table of more than ``2**26`` cells.
    """
    rows, columns = int(source_labels.max()) + 1, int(labels.max()) + 1
    m = labels.shape[1]
    if m * rows * columns > MAX_CELLS:
        raise ValueError(
            f"Expected argument `source_labels` to hold class ids whose counts fit in memory, but got ids up to "
            f"{rows - 1} beside `labels` up to {columns - 1}."
        )
    cell = (torch.arange(m, device=labels.device) * rows + source_labels[:, None]) * columns + labels
    return torch.bincount(cell.flatten(), minlength=m * rows * columns).reshape(m, rows, columns)


def entropy(counts: Tensor, miller_madow: bool = False) -> Tensor:
    """Entropy of the distribution behind counts.

    Args:
        counts: Shape ``(..., k)``, non-negative.
        miller_madow: Add ``(occupied cells - 1) / (2 n)``, the leading term of the bias of the plug-in estimate.

    Returns:
        Shape ``(...)``, float64, nats, at least 0.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import entropy
        >>> entropy(torch.tensor([2, 2]))
        tensor(0.6931, dtype=torch.float64)
    """
    counts = counts.double()
    n = counts.sum(-1)
    value = (torch.xlogy(n, n) - torch.xlogy(counts, counts).sum(-1)).clamp(min=0) / n
    if miller_madow:
        value = value + ((counts > 0).sum(-1) - 1) / (2 * n)
    return value


def conditional_entropy(counts: Tensor, miller_madow: bool = False) -> Tensor:
    """Entropy of the class given the source class, ``H(Y | Z)`` (Tran et al., ICCV 2019, eq. 7).

    Args:
        counts: Joint counts, shape ``(..., source classes, classes)``.
        miller_madow: Add ``(occupied cells - occupied source classes) / (2 n)``, the leading term of the bias.

    Returns:
        Shape ``(...)``, float64, nats, at least 0.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import conditional_entropy
        >>> conditional_entropy(torch.tensor([[3, 1], [1, 3]]))
        tensor(0.5623, dtype=torch.float64)
    """
    counts = counts.double()
    source = counts.sum(-1)
    n = source.sum(-1)
    value = (torch.xlogy(source, source).sum(-1) - torch.xlogy(counts, counts).sum((-2, -1))).clamp(min=0) / n
    if miller_madow:
        value = value + ((counts > 0).sum((-2, -1)) - (source > 0).sum(-1)) / (2 * n)
    return value
