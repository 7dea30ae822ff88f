"""Hardness of a task by its label entropy."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional.counts import check_label_columns, compact_ids, conditional_entropy, count_joint


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
        >>> from lightning_transfer.functional import task_hardness
        >>> task_hardness(torch.tensor([0, 0, 1, 1]))
        tensor(0.6931, dtype=torch.float64)
    """
    columns, classes = compact_ids(check_label_columns(flatten_labels(labels, ignore_index)))
    return conditional_entropy(count_joint(columns.new_zeros(len(columns)), columns, 1, classes), miller_madow).mean()


def flatten_labels(labels: Tensor, ignore_index: int | None = None) -> Tensor:
    """Leave out positions with ``ignore_index`` and flatten pixels; see :func:`task_hardness`."""
    if isinstance(labels, Tensor) and ignore_index is not None:
        return labels[labels != ignore_index]
    return labels.flatten() if isinstance(labels, Tensor) and labels.ndim == 3 else labels
