"""OTCE: how far apart two data sets are and how well optimal transport matches their classes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.functional.counts import compact_ids, conditional_entropy, require_two_classes
from lightning_transfer.utilities.checks import check_features, check_in_interval, check_labels, flatten_positions
from lightning_transfer.utilities.renames import renamed

Weights = tuple[float, float, float]


class TransportedReference(NamedTuple):
    """What optimal transport brings to each target sample; rows are target samples.

    Attributes:
        source_probs: Shares of its mass that come from each source class, shape ``(n, source classes)``, rows sum to
            one.
        distance: Mean cost of its mass, shape ``(n,)``.
        labels: Its class, shape ``(n,)``.
    """

    source_probs: Tensor
    distance: Tensor
    labels: Tensor


@renamed(source_features="reference_features", source_labels="reference_labels")
def otce(
    reference_features: Tensor,
    reference_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    *,
    label_weight: float = 0.0,
    weights: Weights | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    r"""Optimal-transport conditional entropy of a reference and a target under one model; higher is better.

    The exact transport plan between the two sets of features (squared Euclidean cost, uniform weights) couples
    reference and target samples; summed over samples it is a joint distribution of reference class and target class.

    - F-OTCE (the default): :math:`-H(Y_t \mid Y_s)` of that distribution, in ``[-H(Y_t), 0]``.
    - JC-NCE (``label_weight=0.5``; Tan et al., 2021): the same with half of the cost replaced by the distance between
      the classes, the exact transport cost between their two clouds of features.
    - OTCE (``weights=(a, b, c)``; Tan, Li and Huang, CVPR 2021, eq. 6): ``a * W + b * H(Y_t | Y_s) + c`` for the
      transport cost ``W``. Weights are fitted to known accuracies of auxiliary tasks; useful ones have ``a, b < 0``.
      The standardisation that the paper applies before is linear: fold it into the weights.

    Args:
        reference_features: Shape ``(m, d)``, any floating dtype.
        reference_labels: Reference class ids, shape ``(m,)``, any integer dtype.
        features: Target features of the same model, shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)``
            too).
        labels: Target class ids, shape ``(n,)``, any integer dtype.
        label_weight: Share of the label distance in the cost, in ``[0, 1]``.
        weights: Weights of transport cost and conditional entropy, and the constant; None for F-OTCE.
        ignore_index: Target samples with this label are left out.

    Returns:
        0-d float64, nats for F-OTCE and JC-NCE.

    Raises:
        ValueError: If an input is malformed or not finite, widths differ, or ``labels`` hold fewer than two classes.
        RuntimeError: If the transport solver does not reach the optimum.

    Note:
        Memory and time grow with ``m * n`` and faster: about 1000 samples a side are usual, see the Metric.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import otce
        >>> reference = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
        >>> target = torch.tensor([[0.5], [1.5], [8.0], [11.0]])
        >>> otce(reference, torch.tensor([0, 0, 1, 1]), target, torch.tensor([1, 1, 0, 0]))
        tensor(0., dtype=torch.float64)
    """
    weights = check_otce_options(label_weight, weights)
    features, labels = flatten_positions(features, labels, ignore_index)
    reference_features, reference_labels = check_reference(reference_features, reference_labels)
    return score_from_transport(
        transport_reference(reference_features, reference_labels, features, labels, label_weight), weights
    )


def check_otce_options(label_weight: float, weights: Weights | None) -> Weights:
    """Check the options of :func:`otce` and return the weights, those of F-OTCE by default.

    Raises:
        ValueError: If the share is not in [0, 1] or the weights are no three finite numbers.
    """
    check_in_interval(label_weight, 0, 1, "label_weight")
    if weights is None:
        return (0.0, -1.0, 0.0)
    if len(weights) != 3 or not all(math.isfinite(weight) for weight in weights):
        raise ValueError(f"Expected argument `weights` to be three finite numbers, but got {weights!r}.")
    return weights


def check_reference(reference_features: Tensor, reference_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Check the reference.

    Raises:
        ValueError: If it is malformed.
    """
    reference_features = check_features(reference_features, "reference_features")
    return reference_features, check_labels(reference_labels, len(reference_features), name="reference_labels")


def transport_reference(
    reference_features: Tensor, reference_labels: Tensor, features: Tensor, labels: Tensor, label_weight: float = 0.0
) -> TransportedReference:
    """Transport a reference to a target exactly; see :func:`otce`.

    Raises:
        ValueError: If the target is malformed or of another width.
        RuntimeError: If the solver does not reach the optimum.
    """
    features = check_features(features)
    labels = check_labels(labels, len(features))
    if features.shape[1] != reference_features.shape[1]:
        raise ValueError(
            f"Expected argument `features` to be as wide as `reference_features` ({reference_features.shape[1]}), "
            f"but got {features.shape[1]}."
        )
    reference_ids, num_source = compact_ids(reference_labels.to(features.device))
    ids, num_classes = compact_ids(labels)
    require_two_classes(num_classes)
    cost = _squared_distances(reference_features.to(features.device), features)
    if label_weight:
        between = _class_distances(cost, reference_ids, ids)
        cost = (1 - label_weight) * cost + label_weight * between[reference_ids][:, ids]
    plan = torch.as_tensor(_exact_plan(cost.cpu().numpy()), device=cost.device) * len(features)
    probs = cost.new_zeros(num_source, len(features)).index_add_(0, reference_ids, plan)
    return TransportedReference(probs.T, (plan * cost).sum(0), ids)


def score_from_transport(transported: TransportedReference, weights: Weights) -> Tensor:
    """Combine transport cost and conditional entropy; see :func:`otce`."""
    probs, distance, labels = transported
    joint = probs.new_zeros(int(labels.max()) + 1, probs.shape[1]).index_add_(0, labels, probs)
    return weights[0] * distance.mean() + weights[1] * conditional_entropy(joint.T) + weights[2]


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    first, second = first.double(), second.double()
    centre = first.mean(0)
    first, second = first - centre, second - centre
    square = first.square().sum(1, keepdim=True) + second.square().sum(1)
    return torch.addmm(square, first, second.T, alpha=-2).clamp(min=0)


def _class_distances(cost: Tensor, reference_ids: Tensor, ids: Tensor) -> Tensor:
    """Exact transport cost between the samples of each source class and of each target class."""
    rows, columns = reference_ids.argsort(stable=True), ids.argsort(stable=True)
    by_class = cost[rows][:, columns].cpu().numpy()
    row_ends = torch.bincount(reference_ids).cumsum(0)[:-1].tolist()
    column_ends = torch.bincount(ids).cumsum(0)[:-1].tolist()
    parts = [np.split(band, column_ends, axis=1) for band in np.split(by_class, row_ends)]
    distances = [[float((_exact_plan(part) * part).sum()) for part in band] for band in parts]
    return torch.tensor(distances, dtype=cost.dtype, device=cost.device)


def _exact_plan(cost: np.ndarray) -> np.ndarray:
    """Optimal coupling of two uniform distributions, shape of ``cost``.

    Raises:
        RuntimeError: If the solver does not reach the optimum.
    """
    import ot

    m, n = cost.shape
    pivots = max(10**6, 100 * m * n)  # far more than the network simplex needs
    shares = np.full(m, 1 / m), np.full(n, 1 / n)
    plan, log = ot.emd(*shares, np.ascontiguousarray(cost), numItermax=pivots, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"The optimal transport solver did not reach the optimum: {log['warning']}")
    return np.asarray(plan)
