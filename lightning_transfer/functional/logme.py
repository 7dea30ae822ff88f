"""LogME: the maximum evidence of a Bayesian linear model on the features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_transfer.functional.moments import ClassMoments, FeatureMoments, TargetMoments
from lightning_transfer.utilities.checks import check_features

_GRID = 240
_NEWTON_STEPS = 40


def log_maximum_evidence(features: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Logarithm of the maximum evidence a sample (LogME; You et al., ICML 2021, eq. 2 to 4); higher is better.

    For each column ``y`` (a one-hot class, or a regression target) the evidence of ``y = F w + noise`` with
    ``w ~ N(0, 1 / alpha)`` and noise ``N(0, 1 / beta)`` is maximised over both precisions, divided by ``n``, and the
    mean over columns is returned. There is no intercept and nothing is centred, as published. With
    ``t = alpha / beta`` the best ``beta`` has a closed form, so what remains is a search in one variable, done for all
    columns at once and to convergence: the global maximum on a grid, refined by Newton's method. The evidence is exact
    at every shape, also with fewer samples than features.

    Args:
        features: Shape ``(n, d)``, any floating dtype (tokens and pixels too, with integer labels).
        labels: Class ids, shape ``(n,)``, any integer dtype, ids may have gaps; or floating regression targets (or 0/1
            columns of a multi-label task), shape ``(n,)`` or ``(n, m)``.
        ignore_index: Samples with this class id are left out.

    Returns:
        0-d float64, in nats a sample; unbounded on both sides.

    Raises:
        ValueError: If an input is malformed, not finite or holds fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import log_maximum_evidence
        >>> features = torch.tensor([[0.0, 0.0], [1.0, 0.2], [4.0, 0.1], [5.0, 0.3]])
        >>> log_maximum_evidence(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.3671, dtype=torch.float64)
        >>> log_maximum_evidence(features, torch.tensor([0.1, 0.9, 4.2, 4.8]))
        tensor(-0.3040, dtype=torch.float64)
    """
    if isinstance(labels, Tensor) and labels.is_floating_point():
        return log_maximum_evidence_from_moments(TargetMoments.from_samples(check_features(features), labels))
    return log_maximum_evidence_from_moments(ClassMoments.from_samples(features, labels, ignore_index))


def log_maximum_evidence_from_moments(moments: FeatureMoments) -> Tensor:
    """Compute LogME from moments; see :func:`log_maximum_evidence`."""
    return column_evidence(moments).mean()


def column_evidence(moments: FeatureMoments) -> Tensor:
    """Maximum log evidence a sample of each column (present class or target), shape ``(c,)``, nats."""
    if isinstance(moments, ClassMoments):
        square = moments.counts
        cross = moments.class_sums[moments.present] + moments.counts[:, None] * moments.shift
    elif isinstance(moments, TargetMoments):
        n, offset = moments.count, moments.target_shift
        square = moments.target_square + 2 * offset * moments.target_sum + n * offset.square()
        cross = moments.cross_moment.T + torch.outer(moments.target_sum, moments.shift)
        cross = cross + torch.outer(offset, moments.feature_sum + n * moments.shift)
    else:
        raise TypeError(f"Expected moments with classes or targets, but got {type(moments).__name__}.")
    values, vectors = moments.gram_spectrum
    explained = (cross @ vectors).square() / values
    return _maximum_evidence(values, explained, square, moments.count)


def _maximum_evidence(values: Tensor, explained: Tensor, square: Tensor, n: int) -> Tensor:
    """Maximise the profile evidence over ``t = alpha / beta`` for all columns.

    Args:
        values: Non-zero eigenvalues of the Gram matrix, shape ``(r,)``.
        explained: Squared length of each column along each eigenvector, shape ``(c, r)``.
        square: Squared length of each column, shape ``(c,)``.
        n: Number of samples.
    """
    eps = torch.finfo(values.dtype).eps
    empty = square <= 0  # an all-zero column is explained without noise and without weights
    square = torch.where(empty, torch.ones_like(square), square)
    # An exact fit has unbounded evidence: the part left over is never below rounding noise.
    residual = (square - explained.sum(1)).clamp(min=0) + square * eps
    if not len(values):
        return 0.5 * (torch.log(n / square) - 1 - math.log(2 * math.pi))

    def evidence(log_t: Tensor, fit: Tensor, volume: Tensor) -> Tensor:
        return 0.5 * (torch.log(n / fit) - 1 - math.log(2 * math.pi)) + 0.5 * volume / n

    grid = torch.linspace(
        math.log(float(values[-1])) - 12,
        math.log(float(values[0])) + 24,
        _GRID,
        dtype=values.dtype,
        device=values.device,
    )
    kept_away = torch.sigmoid(grid[:, None] - values.log())  # t / (t + value), shape (grid, r)
    fit = residual[:, None] + explained @ kept_away.T
    on_grid = evidence(grid, fit, kept_away.log().sum(1))
    best = on_grid.argmax(1)
    low = grid[(best - 1).clamp(min=0)]
    high = grid[(best + 1).clamp(max=_GRID - 1)]
    log_t = grid[best]
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(log_t[:, None] - values.log())
        q = 1 - p
        fit = residual + (explained * p).sum(1)
        first = (explained * p * q).sum(1)
        slope = (q.sum(1) - n * first / fit) / n
        second = (explained * p * q * (q - p)).sum(1)
        curvature = (-(p * q).sum(1) - n * (second / fit - (first / fit).square())) / n
        low, high = torch.where(slope > 0, log_t, low), torch.where(slope > 0, high, log_t)
        step = torch.where(curvature < 0, log_t - slope / curvature, log_t)
        inside = (step > low) & (step < high) & (curvature < 0)
        following = torch.where(inside, step, (low + high) / 2)
        moved = (following - log_t).abs().max()
        log_t = following
        if float(moved) < 1e-9:
            break
    p = torch.sigmoid(log_t[:, None] - values.log())
    refined = evidence(log_t, residual + (explained * p).sum(1), p.log().sum(1))
    return torch.maximum(refined, on_grid.gather(1, best[:, None]).squeeze(1))
