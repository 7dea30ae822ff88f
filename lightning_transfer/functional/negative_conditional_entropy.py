"""Negative conditional entropy of target labels given source labels, for one pair of tasks and for many at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional.counts import (
    MAX_CELLS,
    check_label_columns,
    compact_ids,
    conditional_entropy,
    count_joint,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.utilities.checks import check_labels

_CHUNK_ENTRIES = 2**24
_NARROW = 256  # classes up to which a one-hot code is cheaper than sorting


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


nce = negative_conditional_entropy  # the name of the column


def flatten_pair(source_labels: Tensor, labels: Tensor, ignore_index: int | None = None) -> tuple[Tensor, Tensor]:
    """Flatten the labels of positions and leave out ignored ones; anything else is returned for the checks to judge.

    Raises:
        ValueError: If there are several labels a sample beside ``ignore_index``.
    """
    if isinstance(source_labels, Tensor) and isinstance(labels, Tensor) and source_labels.shape == labels.shape:
        if labels.ndim in (2, 3):
            source_labels, labels = source_labels.flatten(), labels.flatten()
        if ignore_index is not None and labels.ndim == 1:
            kept = labels != ignore_index
            source_labels, labels = source_labels[kept], labels[kept]
    refuse_ignored_columns(labels, ignore_index)
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
    source = _TaskColumns.checked(source_labels, "source_labels", ignore_index)
    target = _TaskColumns.checked(labels, "labels", ignore_index)
    n = len(source.ids)
    if len(target.ids) != n:
        raise ValueError(
            f"Expected argument `labels` to have {n} rows like the other inputs, but got {len(target.ids)}."
        )
    narrow_source, narrow_target = source.widths <= _NARROW, target.widths <= _NARROW
    matrix = torch.zeros(len(source.widths), len(target.widths), dtype=torch.float64, device=source.ids.device)
    by_product = narrow_source[:, None] & narrow_target
    if bool(by_product.any()):
        matrix[by_product] = _by_product(
            source.select(narrow_source), target.select(narrow_target), miller_madow
        ).flatten()
    for s, t in (~by_product).nonzero().tolist():
        both = source.present[:, s] & target.present[:, t]
        matrix[s, t] = _of_pair(source.ids[both, s], target.ids[both, t], miller_madow)
    return matrix


class _TaskColumns(NamedTuple):
    """Class ids of many tasks.

    Attributes:
        ids: One column a task, shape ``(n, m)``, int64; 0 where a label is missing.
        present: Where labels are not missing, shape ``(n, m)``.
        widths: More than the largest id of each column, shape ``(m,)``.
    """

    ids: Tensor
    present: Tensor
    widths: Tensor

    @classmethod
    def checked(cls, labels: Tensor, name: str, ignore_index: int | None) -> _TaskColumns:
        """Check columns of class ids; wide gaps between ids are closed."""
        if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
            shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
            raise ValueError(f"Expected argument `{name}` to be a 2D integer tensor of class ids, but got {shape}.")
        present = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
        ids = check_label_columns(torch.where(present, labels, 0), name)
        widths = ids.amax(0) + 1
        for j in (widths > _NARROW).nonzero().flatten().tolist():
            ids[:, j], widths[j] = compact_ids(ids[:, j])
        return cls(ids, present, widths)

    def select(self, chosen: Tensor) -> _TaskColumns:
        """Some of the tasks."""
        return _TaskColumns(self.ids[:, chosen], self.present[:, chosen], self.widths[chosen])

    @property
    def block(self) -> Tensor:
        """Column of each entry of the joined one-hot code of all columns."""
        return torch.repeat_interleave(torch.arange(len(self.widths), device=self.ids.device), self.widths)

    def codes(self, start: int, stop: int) -> Tensor:
        """One-hot codes of some rows, float32, zero where a label is missing."""
        ids = self.ids[start:stop] + (self.widths.cumsum(0) - self.widths)
        codes = torch.zeros(len(ids), int(self.widths.sum()), device=ids.device)
        return codes.scatter_(1, ids, self.present[start:stop].float())


def _by_product(source: _TaskColumns, target: _TaskColumns, miller_madow: bool) -> Tensor:
    """Conditional entropies of all pairs of columns with few classes, from the product of their one-hot codes."""

    def sum_sources(values: Tensor) -> Tensor:
        return values.new_zeros(len(source.widths), values.shape[1]).index_add_(0, source_block, values)

    def sum_targets(values: Tensor) -> Tensor:
        return values.new_zeros(len(values), len(target.widths)).index_add_(1, target_block, values)

    source_block, target_block = source.block, target.block
    joint = torch.zeros(len(source_block), len(target_block), dtype=torch.float64, device=source.ids.device)
    step = max(1, _CHUNK_ENTRIES // sum(joint.shape))  # below 2^24 rows float32 counts exactly
    for start in range(0, len(source.ids), step):
        joint += source.codes(start, start + step).T @ target.codes(start, start + step)
    per_source = sum_targets(joint)  # samples of each source class that have both labels
    cells = sum_targets(torch.xlogy(joint, joint))
    difference = sum_sources(torch.xlogy(per_source, per_source) - cells).clamp(min=0)
    if miller_madow:
        occupied = sum_targets((joint > 0).double()) - (per_source > 0).double()
        difference = difference + sum_sources(occupied) / 2
    return difference / sum_sources(per_source).clamp(min=1)


def _of_pair(source: Tensor, labels: Tensor, miller_madow: bool) -> Tensor:
    """Conditional entropy of one pair of tasks with any number of classes, 0 without samples."""
    if not len(labels):
        return torch.zeros((), dtype=torch.float64, device=labels.device)
    per_source, classes = torch.bincount(source), int(labels.max()) + 1
    code = source * classes + labels
    small = len(per_source) * classes <= MAX_CELLS
    cells = torch.bincount(code) if small else torch.unique(code, return_counts=True)[1]
    per_source, cells = (counts[counts > 0].double() for counts in (per_source, cells))
    total = torch.xlogy(per_source, per_source).sum()
    difference = total - torch.xlogy(cells, cells).sum()
    difference = difference * (difference > 16 * torch.finfo(total.dtype).eps * total)
    if miller_madow:
        difference = difference + (len(cells) - len(per_source)) / 2
    return difference / len(labels)
