"""Hardness of a task by its label entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.counts import MAX_CELLS, check_label_columns, compact_ids, entropy


def task_hardness(labels: Tensor, *, miller_madow: bool = False, ignore_index: int | None = None) -> Tensor:
    r"""Hardness of a classification task (Tran, Nguyen and Hassner, ICCV 2019, eq. 14); higher is HARDER.

    .. math:: H(Y) = -\sum_y \hat P(y) \log \hat P(y)

    the upper bound that the paper gives on the training loss of the best model of the task. It lies in
    ``[0, log(classes)]`` and is 0 for a constant label. This is the one score of the package of which less is better.

    Args:
        labels: Class ids, shape ``(n,)``, any integer dtype, ids with or without gaps; shape ``(n, m)`` is read as
            ``m`` labels a sample (attributes), of which the mean hardness is returned; pixels ``(b, h, w)`` are
            flattened.
        miller_madow: Add the Miller-Madow correction ``(classes - 1) / (2 n)`` for the bias of small samples.
        ignore_index: Positions with this label are left out; labels of any shape are then flattened (tokens ``(b,
            t)``).

    Returns:
        0-d float64, nats.

    Raises:
        ValueError: If ``labels`` is malformed or empty.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.task_hardness import task_hardness
        >>> task_hardness(torch.tensor([0, 0, 1, 1]))
        tensor(0.6931, dtype=torch.float64)
    """
    columns = hardness_columns(labels, ignore_index)
    ids, _ = compact_ids(columns)
    return entropy(count_classes(ids), miller_madow).mean()


def hardness_columns(labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """Check labels of any shape and return them as columns, shape ``(n, m)``."""
    if isinstance(labels, Tensor) and ignore_index is not None:
        labels = labels[labels != ignore_index]
    elif isinstance(labels, Tensor) and labels.ndim == 3:
        labels = labels.flatten()
    return check_label_columns(labels)


def count_classes(columns: Tensor) -> Tensor:
    """Count the classes of each column.

    Args:
        columns: Class ids, shape ``(n, m)``, int64.

    Returns:
        Shape ``(m, classes)``, int64.

    Raises:
        ValueError: If the largest id asks for a table of more than ``2**26`` cells.
    """
    m, classes = columns.shape[1], int(columns.max()) + 1
    if m * classes > MAX_CELLS:
        raise ValueError(f"Expected argument `labels` to hold class ids, but got ids up to {classes - 1}.")
    cell = torch.arange(m, device=columns.device) * classes + columns
    return torch.bincount(cell.flatten(), minlength=m * classes).reshape(m, classes)
