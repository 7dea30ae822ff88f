"""Negative conditional entropy of target labels given source labels, for one pair of tasks and for many at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.counts import (
    check_label_columns,
    compact_ids,
    conditional_entropy,
    count_joint,
    require_two_classes,
)
from lightning_transfer.utilities.checks import check_labels

_CHUNK_ENTRIES = 2**24


def negative_conditional_entropy(
    source_labels: Tensor,
    labels: Tensor,
    *,
    miller_madow: bool = False,
    source_log_likelihood: float | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Negative conditional entropy, NCE (Tran, Nguyen and Hassner, ICCV 2019, eq. 7 and 10); higher is better.

    .. math:: -H(Y \mid Z) = \sum_{y,z} \hat P(y, z) \log \frac{\hat P(y, z)}{\hat P(z)}

    for target labels ``Y`` and source labels ``Z`` of the same samples. It lies in ``[-H(Y), 0]``: 0 if the source
    label determines the target label, ``-H(Y)`` (minus the hardness of the task) if the two are independent. The
    estimate is too high by about ``(classes - 1) * source classes / (2 n)``; with a source class for every sample it is
    0 whatever the task.

    Args:
        source_labels: Source class ids, shape ``(n,)``, any integer dtype; where a source model but no source labels
            exist, the arg max of its probabilities.
        labels: Target class ids, shape ``(n,)``, any integer dtype, ids with or without gaps; shape ``(n, m)`` is read
            as ``m`` labels a sample (attributes), over which the score is averaged. Tokens and pixels: any shape, the
            same for both.
        miller_madow: Correct the leading term of the bias, ``(occupied pairs - occupied source classes) / (2 n)``.
        source_log_likelihood: Mean log-likelihood (nats) of the source model on its own labels; added to the score it
            gives the lower bound of eq. 10, which ranks source models. Without it the score ranks targets of one
            source.
        ignore_index: Positions with this target label are left out (not for shape ``(n, m)``).

    Returns:
        0-d float64, nats.

    Raises:
        ValueError: If an input is malformed or ``labels`` hold fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import negative_conditional_entropy
        >>> source, target = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
        >>> negative_conditional_entropy(source, target)
        tensor(-0.5623, dtype=torch.float64)
    """
    source_labels, labels = flatten_pair(source_labels, labels, ignore_index)
    columns, classes = compact_ids(check_label_columns(labels))
    source, source_classes = compact_ids(check_labels(source_labels, len(columns), name="source_labels"))
    return nce_from_counts(count_joint(source, columns, source_classes, classes), miller_madow, source_log_likelihood)


def flatten_pair(source_labels: Tensor, labels: Tensor, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """Flatten the labels of positions and leave out ignored ones; anything else is returned for the checks to judge."""
    if isinstance(source_labels, Tensor) and isinstance(labels, Tensor) and source_labels.shape == labels.shape:
        if labels.ndim in (2, 3):
            source_labels, labels = source_labels.flatten(), labels.flatten()
        if ignore_index is not None and labels.ndim == 1:
            kept = labels != ignore_index
            source_labels, labels = source_labels[kept], labels[kept]
    return source_labels, labels


def nce_from_counts(counts: Tensor, miller_madow: bool = False, source_log_likelihood: float | None = None) -> Tensor:
    """Compute the score from joint counts, shape ``(m, source classes, classes)``, averaged over the ``m`` tasks.

    Raises:
        ValueError: If no task has two classes.
    """
    require_two_classes(int((counts.sum(1) > 0).sum(-1).max()))
    score = 0.0 - conditional_entropy(counts, miller_madow).mean()
    return score if source_log_likelihood is None else score + source_log_likelihood


def conditional_entropy_matrix(
    source_labels: Tensor, labels: Tensor, *, miller_madow: bool = False, ignore_index: int | None = None
) -> Tensor:
    """Conditional entropies ``H(Y_t | Z_s)`` of all pairs of tasks on shared inputs, from one matrix product.

    One-hot codes of all columns are multiplied block by block of rows: the joint counts of every pair come out together
    (40 or 312 attributes, Tran et al. 2019, section 5). Entry ``[s, t]`` is minus the NCE from source ``s`` to target
    ``t``.

    Args:
        source_labels: One column of class ids a source task, shape ``(n, s)``, any integer dtype.
        labels: One column of class ids a target task, shape ``(n, t)``, any integer dtype.
        miller_madow: Correct the leading term of the bias of each entry.
        ignore_index: Marks missing labels: a sample counts for the pairs of tasks of which it has both.

    Returns:
        Shape ``(s, t)``, float64, nats, at least 0. A pair without a common sample is 0.

    Raises:
        ValueError: If an input is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import conditional_entropy_matrix
        >>> attributes = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
        >>> conditional_entropy_matrix(attributes, attributes)
        tensor([[0.0000, 0.6931, 0.3466],
                [0.6931, 0.0000, 0.3466],
                [0.4774, 0.4774, 0.0000]], dtype=torch.float64)
    """
    source, target = (
        _OneHotColumns(source_labels, "source_labels", ignore_index),
        _OneHotColumns(labels, "labels", ignore_index),
    )
    n = len(source.ids)
    if len(target.ids) != n:
        raise ValueError(
            f"Expected argument `labels` to have {n} rows like the other inputs, but got {len(target.ids)}."
        )
    joint = torch.zeros(source.width, target.width, dtype=torch.float64, device=source.ids.device)
    step = max(1, _CHUNK_ENTRIES // (source.width + target.width))  # below 2^24 rows float32 counts exactly
    for start in range(0, n, step):
        joint += source.codes(start, start + step).T @ target.codes(start, start + step)
    per_source = target.sum_blocks(joint.T).T  # (source classes of all tasks, t): samples that have both labels
    cells = target.sum_blocks(torch.xlogy(joint, joint).T).T
    difference = source.sum_blocks(torch.xlogy(per_source, per_source) - cells).clamp(min=0)
    total = source.sum_blocks(per_source).clamp(min=1)
    if miller_madow:
        occupied = target.sum_blocks((joint > 0).double().T).T - (per_source > 0).double()
        difference = difference + source.sum_blocks(occupied) / 2
    return difference / total


class _OneHotColumns:
    """Columns of class ids as blocks of one wide one-hot code."""

    def __init__(self, labels: Tensor, name: str, ignore_index: int | None) -> None:
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
            shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"Expected argument `{name}` to be a 2D integer tensor of class ids, but got {shape}.")
        self.present = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
        self.ids = check_label_columns(torch.where(self.present, labels, 0), name)
        columns = self.ids.shape[1]
        widths = self.ids.amax(0) + 1
        for j in torch.nonzero(widths > len(self.ids)).flatten().tolist():  # ids with wide gaps
            self.ids[:, j], widths[j] = compact_ids(self.ids[:, j])
        self.block = torch.repeat_interleave(torch.arange(columns, device=labels.device), widths)
        self.ids = self.ids + (widths.cumsum(0) - widths)
        self.width = len(self.block)
        self.columns = columns

    def codes(self, start: int, stop: int) -> Tensor:
        """One-hot codes of some rows, float32, zero where a label is missing."""
        ids = self.ids[start:stop]
        codes = torch.zeros(len(ids), self.width, device=ids.device)
        return codes.scatter_(1, ids, self.present[start:stop].float())

    def sum_blocks(self, values: Tensor) -> Tensor:
        """Sum the rows of each column's block, ``(width, ...)`` to ``(columns, ...)``."""
        return values.new_zeros(self.columns, *values.shape[1:]).index_add_(0, self.block, values)
