"""Log expected empirical prediction."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_transfer.functional.counts import (
    check_label_columns,
    compact_ids,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.utilities.checks import check_probabilities, flatten_positions

_CHUNK_ENTRIES = 2**17  # a block stays in the cache of a core


def leep(source_probs: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Log expected empirical prediction, LEEP (Nguyen et al., ICML 2020, eq. 1 and 2); higher is better.

    .. math:: \frac1n \sum_i \log \sum_z \hat P(y_i \mid z)\, \theta_{iz}, \qquad
        \hat P(y, z) = \frac1n \sum_{i : y_i = y} \theta_{iz}

    for source probabilities ``theta``. It lies in ``[-H(Y), 0]``: 0 if the source prediction determines the class,
    ``-H(Y)`` if it says nothing of it; for one-hot probabilities it equals the NCE. Source classes without any
    probability mass are left out (public versions give NaN). Rows are normalised in float64, so that rounded half
    precision rows keep the range.

    Args:
        source_probs: Shape ``(n, k)``, rows on the simplex, any floating dtype (tokens ``(b, t, k)`` and pixels
            ``(b, k, h, w)`` too).
        labels: Class ids, shape ``(n,)``, any integer dtype, ids with or without gaps; shape ``(n, m)`` is read as
            ``m`` labels a sample (attributes), over which the score is averaged.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64, nats.

    Raises:
        ValueError: If an input is malformed, not finite, or ``labels`` hold fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import leep
        >>> source_probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
        >>> leep(source_probs, torch.tensor([0, 0, 1, 1]))
        tensor(-0.3426, dtype=torch.float64)
    """
    source_probs, labels = flatten_positions(source_probs, labels, ignore_index)
    refuse_ignored_columns(labels, ignore_index)
    columns = check_label_columns(labels)
    source_probs = check_probabilities(source_probs, len(columns))
    compact = [compact_ids(column) for column in columns.T]
    require_two_classes(max(num_classes for _, num_classes in compact))
    return torch.stack([_leep_of_column(source_probs, ids, num_classes) for ids, num_classes in compact]).mean()


def _leep_of_column(source_probs: Tensor, ids: Tensor, num_classes: int) -> Tensor:
    n, width = source_probs.shape
    joint = torch.zeros(num_classes, width, dtype=torch.float64, device=source_probs.device)
    weights = joint.new_empty(n)
    for label, some, rows in _blocks_of_a_class(source_probs, ids, num_classes):
        weights[some] = rows.sum(1).reciprocal()
        joint[label] += weights[some] @ rows
    mass = joint.sum(0)
    conditional = torch.where(mass > 0, joint / mass, 0.0)  # P(y | z)
    expected = torch.empty_like(weights)
    for label, some, rows in _blocks_of_a_class(source_probs, ids, num_classes):
        expected[some] = rows @ conditional[label]
    return ((expected * weights).log().sum() / n).clamp(max=0)


def _blocks_of_a_class(source_probs: Tensor, ids: Tensor, num_classes: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Class, numbers and float64 rows of some samples of one class at a time; the rows are overwritten by the next."""
    step = max(1, _CHUNK_ENTRIES // source_probs.shape[1])
    gathered = source_probs.new_empty(step, source_probs.shape[1])
    exact = gathered.double()
    members = ids.argsort(stable=True).split(torch.bincount(ids, minlength=num_classes).tolist())
    for label, all_of_class in enumerate(members):
        for some in all_of_class.split(step):
            rows = gathered[: len(some)]
            torch.index_select(source_probs, 0, some, out=rows)
            yield label, some, exact[: len(some)].copy_(rows)
