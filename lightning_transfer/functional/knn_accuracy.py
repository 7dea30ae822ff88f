"""Leave-one-out accuracy of nearest neighbours."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_transfer.functional.counts import (
    check_attributes,
    check_sample_columns,
    compact_ids,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.utilities.checks import check_features, check_one_of, check_positive_int, flatten_positions
from lightning_transfer.utilities.groups import groups_of_positions, number_groups

Distance = Literal["euclidean", "cosine"]
_CHUNK_ENTRIES = 2**23  # distances held at a time


def knn_accuracy(
    features: Tensor,
    labels: Tensor,
    *,
    k: int = 1,
    distance: Distance = "euclidean",
    ignore_index: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Leave-one-out accuracy of k nearest neighbours; higher is better.

    Every sample is classified by the majority of its ``k`` nearest other samples, a tie going to the smallest class id.
    The accuracy lies in ``[0, 1]``. Among neighbours at the same distance, to rounding, those with smaller class ids
    come first, so that the order of the samples does not matter. Distances are computed block by block, never all ``n *
    n`` at once; for features narrower than float64 in float32, and again in float64 where rounding could decide.

    Args:
        features: Shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too).
        labels: Class ids, shape ``(n,)``, any integer dtype, ids with or without gaps; or zeros and ones of shape ``(n,
            m)`` (attributes): the mean accuracy over the columns, each with a majority of its own.
        k: Number of neighbours, less than the number of samples.
        distance: ``"euclidean"``, or ``"cosine"`` for one minus the cosine of the angle (zero vectors have cosine 0).
        ignore_index: Samples with this label are left out.
        groups: Ids of samples that belong together (copies of a picture, pictures of a patient), shape ``(n,)``, any
            integer dtype: no sample has neighbours in its own group.

    Returns:
        0-d float64, a fraction.

    Raises:
        ValueError: If an input is malformed or not finite, ``labels`` hold fewer than two classes, there are at most
            ``k`` samples (outside a group), or there is one group only.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import knn_accuracy
        >>> features = torch.tensor([[0.0], [0.1], [0.9], [1.0], [0.3]])
        >>> knn_accuracy(features, torch.tensor([0, 0, 1, 1, 1]))
        tensor(0.8000, dtype=torch.float64)
        >>> knn_accuracy(features, torch.tensor([0, 0, 1, 1, 1]), groups=torch.tensor([0, 0, 1, 1, 2]))
        tensor(0.4000, dtype=torch.float64)
    """
    return knn_outcomes(features, labels, k=k, distance=distance, ignore_index=ignore_index, groups=groups).mean()


def knn_outcomes(
    features: Tensor,
    labels: Tensor,
    *,
    k: int = 1,
    distance: Distance = "euclidean",
    ignore_index: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Fraction of its labels that the neighbours of each sample predict, in order of class; with groups in their own.

    Args and errors are those of :func:`knn_accuracy`.

    Returns:
        Shape ``(n,)``, float64.
    """
    check_knn_options(k, distance)
    ids_of_groups = groups_of_positions(groups, features, labels, ignore_index)
    features, labels = flatten_positions(features, labels, ignore_index)
    refuse_ignored_columns(labels, ignore_index)
    features = check_features(features)
    columns = check_ids_or_attributes(labels, len(features))
    n = len(features)
    if k >= n:
        raise ValueError(f"Expected argument `k` to be less than the number of samples {n}, but got {k}.")
    require_two_classes(len(torch.unique(columns)))
    order = torch.unique(columns, dim=0, return_inverse=True)[1].argsort(stable=True)
    numbers = None
    if ids_of_groups is not None:
        numbers = number_groups(ids_of_groups)[0][order]
        if k > (rest := n - int(torch.bincount(numbers).max())):
            raise ValueError(f"Expected argument `k` to be at most the {rest} samples outside a group, but got {k}.")
    columns = columns[order]
    rows, square = _embed(features[order], distance)
    points = [(rows, square)] if features.dtype == torch.float64 else [(rows.float(), square.float()), (rows, square)]
    ids, num_classes = compact_ids(columns)
    step = max(1, _CHUNK_ENTRIES // n)
    outcomes = []
    for block in torch.arange(n, device=ids.device).split(step):
        neighbours = ids[_nearest(points, block, k, numbers)]  # (block, k, m)
        votes = torch.zeros(len(neighbours), num_classes, ids.shape[1], device=ids.device)
        votes.scatter_add_(1, neighbours, torch.ones_like(neighbours, dtype=votes.dtype))
        outcomes.append((votes.argmax(1) == ids[block]).double().mean(1))  # the first maximum: the smallest id
    return torch.cat(outcomes) if numbers is None else torch.cat(outcomes)[order.argsort()]


def check_knn_options(k: int, distance: str) -> None:
    """Check the options of :func:`knn_accuracy`.

    Raises:
        ValueError: If ``k`` is no positive integer or the distance is unknown.
    """
    check_positive_int(k, "k")
    check_one_of(distance, ("euclidean", "cosine"), "distance")


def check_ids_or_attributes(labels: Tensor, n: int) -> Tensor:
    """Check class ids of shape ``(n,)`` or zeros and ones of shape ``(n, m)``, returned with shape ``(n, m)``.

    Raises:
        ValueError: If dtype, shape, length or a value is wrong.
    """
    columns = check_sample_columns(labels, n)
    return check_attributes(columns, n) if columns.shape[1] > 1 else columns


def _embed(features: Tensor, distance: str) -> tuple[Tensor, Tensor]:
    """Points whose squared Euclidean distances order neighbours as asked, centred and of moderate size, in float64.

    Args:
        features: Shape ``(n, d)``; overwritten.
        distance: Which distance is meant.

    Returns:
        Points, shape ``(n, d)``, and their squared norms, shape ``(n,)``.
    """
    rows = features.double()
    if distance == "cosine":
        largest = rows.abs().amax(1, keepdim=True)
        zero = (largest == 0).double()
        rows = torch.nn.functional.normalize(rows / (largest + zero), dim=1)
        rows -= rows.mean(0)
        return rows, rows.square().sum(1) + zero[:, 0]  # as far from the others as from a right angle
    rows -= rows.mean(0)
    low, high = rows.aminmax()
    rows /= torch.maximum(-low, high).clamp(min=torch.finfo(rows.dtype).tiny)
    return rows, torch.linalg.vector_norm(rows, dim=1).square()


def _nearest(points: list[tuple[Tensor, Tensor]], some: Tensor, k: int, groups: Tensor | None) -> Tensor:
    """Columns of the ``k`` nearest other points of some points, shape ``(b, k)``; of those equal to the last the first.

    Args:
        points: The points and their squared norms in rising precision: where rounding could decide, the next is asked.
        some: Numbers of some points.
        k: Number of neighbours.
        groups: The group of each point, in which it has no neighbours; None for none.
    """
    rows, square = points[0]
    distances = torch.addmm(square, rows[some], rows.T, alpha=-2)  # less the squared norm of each point
    if groups is None:
        distances[torch.arange(len(some)), some] = torch.inf
    else:
        distances.masked_fill_(groups[some, None] == groups, torch.inf)
    values, columns = distances.topk(k + 1, largest=False)
    last = values[:, k - 1, None]
    noise = 16 * torch.finfo(rows.dtype).eps * (2 * square[some, None] + last).clamp(min=0)
    tied = (values[:, k, None] - last <= noise).any(1).nonzero().flatten()
    if len(tied) and len(points) > 1:
        columns[tied, :k] = _nearest(points[1:], some[tied], k, groups)
    elif len(tied):
        distances, last, noise = distances[tied], last[tied], noise[tied]
        nearer = distances < last - noise
        equal = (distances <= last + noise) & ~nearer
        chosen = nearer | (equal & (equal.cumsum(1) <= k - nearer.sum(1, keepdim=True)))
        columns[tied, :k] = chosen.nonzero()[:, 1].reshape(-1, k)
    return columns[:, :k]
