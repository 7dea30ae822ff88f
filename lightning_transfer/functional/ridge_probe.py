"""Ridge probe: the leave-one-out accuracy or R² of a ridge regression on the features, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional._rows import centred_rows
from lightning_transfer.functional.counts import (
    check_attributes,
    is_multilabel,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_labels,
    check_targets,
    flatten_positions,
)
from lightning_transfer.utilities.linalg import rank_cutoff, thin_svd

_STRENGTHS = torch.logspace(-7, 2, 28, dtype=torch.float64).tolist()


class RidgeProbeResult(NamedTuple):
    """Score of the probe, and the strength of regularisation that it was reached with (relative to ``tr(S) / d``)."""

    score: Tensor
    strength: float


def ridge_probe(
    features: Tensor, labels: Tensor, *, regularization: float | None = None, ignore_index: int | None = None
) -> Tensor:
    """Leave-one-out accuracy (class ids, attributes) or R² (real targets) of a linear ridge probe; higher is better.

    One-hot classes, attributes or targets are regressed on the features with an unpenalised intercept. The prediction
    for a sample by the probe that was fitted without it follows from its leverage ``h`` as
    ``y - (y - prediction) / (1 - h)`` (PRESS; Allen, 1974), so one eigendecomposition gives all ``n`` probes at every
    strength of regularisation. The strength is the one with the smallest leave-one-out squared error on a grid of 28
    values from 1e-7 to 1e2 times the mean variance of the features. Strength 0 is the limit of a vanishing one: with no
    more samples than features, the probes that interpolate with the smallest weights.

    Args:
        features: Shape ``(n, d)``, any floating dtype, at least 3 samples.
        labels: Class ids, shape ``(n,)``, any integer dtype, ids may have gaps; zeros and ones of a multi-label task,
            shape ``(n, l)``; or floating targets, shape ``(n,)`` or ``(n, m)``.
        regularization: A fixed strength relative to the mean variance of the features, or None to choose it.
        ignore_index: Samples with this class id are left out.

    Returns:
        0-d float64: the share of samples whose class is predicted (ties go to the smallest id); the share of attributes
        that are, by a prediction above one half; or R², the mean over targets of one minus the squared error over the
        error of the leave-one-out mean, at most 1.

    Raises:
        ValueError: If an input is malformed, not finite, holds fewer than two classes, or every target is constant.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import ridge_probe
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [5.0], [6.0], [7.0]])
        >>> ridge_probe(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        tensor(1., dtype=torch.float64)
        >>> ridge_probe(features, 2 * features.flatten() + 1)
        tensor(1.0000, dtype=torch.float64)
    """
    return fit_ridge_probe(features, labels, regularization=regularization, ignore_index=ignore_index).score


def fit_ridge_probe(
    features: Tensor, labels: Tensor, *, regularization: float | None = None, ignore_index: int | None = None
) -> RidgeProbeResult:
    """Fit the probe of :func:`ridge_probe` and also say which strength was chosen."""
    if regularization is not None:
        check_in_interval(regularization, 0, float("inf"), "regularization")
    features, labels = flatten_positions(features, labels, ignore_index)
    features = check_features(features)
    n = len(features)
    regression = isinstance(labels, Tensor) and labels.is_floating_point()
    multilabel = not regression and is_multilabel(features, labels)
    if regression:
        truth = check_targets(labels, n).double()
    elif multilabel:
        refuse_ignored_columns(labels, ignore_index)
        truth = check_attributes(labels, n).double()
        require_two_classes(1 + int((truth.amax(0) - truth.amin(0)).max()))
    else:
        classes, labels = check_labels(labels, n).unique(return_inverse=True)
        require_two_classes(len(classes))
        truth = torch.nn.functional.one_hot(labels).double()
    if n < 3:
        raise ValueError(f"Expected argument `features` to hold at least 3 samples, but got {n}.")
    rows, num_features = centred_rows(features, rotate=True), features.shape[1]
    centred = truth - truth.mean(0)
    weak = regularization is not None and regularization < _STRENGTHS[0]
    if weak:
        left, lengths, _ = thin_svd(rows)
        values, scores = lengths.square(), left * lengths
    else:
        values, vectors = torch.linalg.eigh(rows.T @ rows)
        scores = rows @ vectors
    kept = values > rank_cutoff(values.max().clamp(min=0), n, num_features)
    values, scores = values[kept], scores[:, kept]
    unit = float(values.sum()) / num_features or 1.0
    cross, leverages = scores.T @ centred, scores.square()
    # samples that are met exactly without a penalty leave 0 / 0 with a weak one, of which the strength cancels
    met = (leverages @ (1 / values) >= 1 - 1 / n - 1e-12) | (len(values) >= n - 1)
    met = met & weak
    best: tuple[float, Tensor, float] | None = None
    for strength in _STRENGTHS if regularization is None else [regularization]:
        weights = 1 / (values + strength * unit)
        slack = 1 - 1 / n - leverages @ weights
        residuals = centred - scores @ (weights[:, None] * cross)
        if bool(met.any()):
            weights = weights * (unit / values)
            slack = torch.where(met, leverages @ weights, slack)
            residuals = torch.where(met[:, None], scores @ (weights[:, None] * cross), residuals)
        residuals = residuals / slack[:, None]
        press = float(residuals.square().sum())
        if best is None or press < best[0]:
            best = (press, residuals, strength)
    assert best is not None
    _, residuals, strength = best
    if multilabel:
        return RidgeProbeResult((((truth - residuals) > 0.5) == (truth > 0.5)).double().mean(), strength)
    if not regression:
        predicted = (truth - residuals).argmax(1)
        return RidgeProbeResult((predicted == labels).double().mean(), strength)
    spread = (centred * n / (n - 1)).square().sum(0)  # squared error of the mean of the other samples
    varies = spread > 0
    if not bool(varies.any()):
        raise ValueError("Expected argument `targets` to vary, but got constant targets.")
    return RidgeProbeResult((1 - residuals.square().sum(0)[varies] / spread[varies]).mean(), strength)
