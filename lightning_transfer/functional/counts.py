"""Joint counts of class ids and the conditional entropy that follows from them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_labels

#: Tables with more cells than this are refused: the ids are then hardly class ids.
MAX_CELLS = 2**26


def check_label_columns(labels: Tensor, name: str = "labels") -> Tensor:
    """Check class ids of one task or, one column each, of many.

    Args:
        labels: Shape ``(n,)`` or ``(n, m)``, any integer dtype, ids from 0 with or without gaps; columns of zeros and
            ones may be of any dtype.
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
        if labels.is_floating_point() and bool(((labels == 0) | (labels == 1)).all()):
            labels = labels.long()
        columns = check_labels(labels.flatten(), labels.numel(), name=name).reshape(labels.shape)
    else:
        columns = check_labels(labels, len(labels) if isinstance(labels, Tensor) and labels.ndim else 0, name=name)
        columns = columns[:, None]
    if not len(columns):
        raise ValueError(f"Expected argument `{name}` to hold samples, but got shape {tuple(labels.shape)}.")
    return columns


def check_sample_columns(labels: Tensor, n: int) -> Tensor:
    """Check class ids of shape ``(n,)`` or ``(n, m)`` for ``n`` samples, see :func:`check_label_columns`.

    Raises:
        ValueError: If dtype, shape, length or range is wrong.
    """
    columns = check_label_columns(labels)
    if len(columns) != n:
        raise ValueError(f"Expected argument `labels` to have {n} rows like the other inputs, but got {len(columns)}.")
    return columns


def check_attributes(labels: Tensor, n: int, minimum: int = 1, *, read: bool = True) -> Tensor:
    """Check the labels of a multi-label task.

    Args:
        labels: Zeros and ones of shape ``(n, l)``, any dtype.
        n: Number of samples that the other arguments have.
        minimum: Number of columns that there have to be.
        read: Whether the values are looked at, for which a GPU has to be waited for.

    Returns:
        The attributes as int64.

    Raises:
        ValueError: If shape, length or a value is wrong.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import check_attributes
        >>> check_attributes(torch.tensor([[True, False], [True, True]]), 2)
        tensor([[1, 0],
                [1, 1]])
    """
    is_multi_hot = (
        isinstance(labels, Tensor)
        and labels.ndim == 2
        and labels.shape[1] >= minimum
        and (not read or bool(((labels == 0) | (labels == 1)).all()))
    )
    if not is_multi_hot:
        got = f"shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        columns = f"{minimum} or more columns of" if minimum > 1 else "a 2D tensor of"
        raise ValueError(f"Expected argument `labels` to be {columns} zeros and ones, but got {got}.")
    if len(labels) != n:
        raise ValueError(f"Expected argument `labels` to have {n} rows like the other inputs, but got {len(labels)}.")
    return labels.detach().long()


def is_multilabel(features: Tensor, labels: Tensor) -> bool:
    """Whether samples have several labels each: two-dimensional labels beside features of tokens are one a token."""
    return isinstance(features, Tensor) and isinstance(labels, Tensor) and features.ndim == labels.ndim == 2


def refuse_ignored_columns(labels: Tensor, ignore_index: int | None) -> None:
    """Refuse several labels a sample beside ``ignore_index``, which says what single label is to be left out.

    Raises:
        ValueError: If there are both.
    """
    if ignore_index is not None and isinstance(labels, Tensor) and labels.ndim == 2:
        raise ValueError(
            f"Expected argument `labels` to hold one label a position beside `ignore_index`, but got shape "
            f"{tuple(labels.shape)}."
        )


def all_ignored(labels: Tensor, ignore_index: int | None) -> bool:
    """Whether a batch has labels but every one of them is ``ignore_index``."""
    if ignore_index is None or not isinstance(labels, Tensor) or not labels.numel():
        return False
    return bool((labels == ignore_index).all())


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


def check_cells(columns: int, source_classes: int, classes: int) -> int:
    """Check that a table of joint counts fits in memory and return its size.

    Raises:
        ValueError: If it has more than ``2**26`` cells.
    """
    cells = columns * source_classes * classes
    if cells > MAX_CELLS:
        raise ValueError(
            f"Expected argument `labels` to hold class ids whose counts fit in memory, but got ids up to {classes - 1} "
            f"in {columns} columns beside {source_classes} source classes."
        )
    return cells


def count_joint(source_labels: Tensor, columns: Tensor, source_classes: int, classes: int) -> Tensor:
    """Count how often each source class meets each class, for each column of labels.

    Args:
        source_labels: Source class ids, shape ``(n,)``, int64.
        columns: Class ids, shape ``(n, m)``, int64.
        source_classes: More than the largest source class id.
        classes: More than the largest class id.

    Returns:
        Counts of shape ``(m, source_classes, classes)``, int64.

    Raises:
        ValueError: If that is a table of more than ``2**26`` cells.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.counts import count_joint
        >>> count_joint(torch.tensor([0, 1, 1]), torch.tensor([[0], [0], [1]]), 2, 2)
        tensor([[[1, 0],
                 [1, 1]]])
    """
    check_cells(columns.shape[1], source_classes, classes)
    counts = torch.zeros(columns.shape[1], source_classes, classes, dtype=torch.long, device=columns.device)
    return add_joint_(counts, source_labels, columns)


def add_joint_(counts: Tensor, source_labels: Tensor, columns: Tensor, parts: Tensor | None = None) -> Tensor:
    """Add samples to joint counts of :func:`count_joint` in place, at a cost that does not depend on their size.

    With ``parts`` of shape ``(n,)`` the counts have one more dimension in front, and each sample is added to its part.
    """
    m, source_classes, classes = counts.shape[-3:]
    column = torch.arange(m, device=columns.device)
    if parts is not None:
        column = column + parts[:, None] * m
    cell = ((column * source_classes + source_labels[:, None]) * classes + columns).flatten()
    counts.view(-1).index_add_(0, cell, torch.ones_like(cell))
    return counts


def conditional_entropy(counts: Tensor, miller_madow: bool = False) -> Tensor:
    """Entropy of the class given the source class, ``H(Y | Z)`` (Tran et al., ICCV 2019, eq. 7).

    Args:
        counts: Joint counts, shape ``(..., source classes, classes)``; with one source class the result is ``H(Y)``.
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
    # source class by source class: one that has a single class counts exactly nothing
    value = (torch.xlogy(source, source) - torch.xlogy(counts, counts).sum(-1)).clamp(min=0).sum(-1) / n
    if miller_madow:
        value = value + ((counts > 0).sum((-2, -1)) - (source > 0).sum(-1)) / (2 * n)
    return value
