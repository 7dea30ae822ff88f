"""The ranking statistics on many rows at once: what bootstrap, permutations and leave-one-out are made of.

Every kernel takes scores and accuracies of shape ``(rows, models)``, both higher is better, and returns one value a
row; a row where a correlation is undefined (scores or accuracies all equal) gives NaN, which
:mod:`lightning_transfer.screening.ranking` counts and reports. Scores that tie are ordered against the estimator (least
accurate first), so a tie never earns a lucky pick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Kernel: TypeAlias = Callable[[Array, Array], Array]

_PAIRS_AT_ONCE = 2_000_000


def pearson_rows(scores: Array, accuracies: Array) -> Array:
    """Pearson correlation of each row."""
    x = scores - scores.mean(axis=1, keepdims=True)
    y = accuracies - accuracies.mean(axis=1, keepdims=True)
    x /= np.maximum(np.abs(x).max(axis=1, keepdims=True), np.finfo(float).tiny)
    y /= np.maximum(np.abs(y).max(axis=1, keepdims=True), np.finfo(float).tiny)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    constant = (np.ptp(scores, axis=1) == 0) | (np.ptp(accuracies, axis=1) == 0)
    return np.where(constant, np.nan, np.clip(values, -1.0, 1.0))


def spearman_rows(scores: Array, accuracies: Array) -> Array:
    """Spearman correlation of each row: Pearson's of the average ranks."""
    from scipy.stats import rankdata

    return pearson_rows(rankdata(scores, axis=1), rankdata(accuracies, axis=1))


def kendall_rows(scores: Array, accuracies: Array) -> Array:
    """Kendall's tau-b of each row."""
    return _in_chunks(lambda x, y: _tau(*_concordance(x, y), np.ones_like(x)), scores, accuracies)


def weighted_kendall_rows(scores: Array, accuracies: Array) -> Array:
    """Weighted Kendall tau of each row, as ``scipy.stats.weightedtau(scores, accuracies, rank=True)`` defines it.

    Additive hyperbolic weights, averaged over the ranking by score and the ranking by accuracy.
    """

    def both_rankings(x: Array, y: Array) -> Array:
        sums = _concordance(x, y)
        return (_tau(*sums, _hyperbolic(x, y)) + _tau(*sums, _hyperbolic(y, x))) / 2

    return _in_chunks(both_rankings, scores, accuracies)


def rel_at_k_rows(scores: Array, accuracies: Array, k: int) -> Array:
    """Best accuracy among the k best-scored models over the best accuracy of all."""
    ratio: Array = _picked(scores, accuracies, k).max(axis=1) / accuracies.max(axis=1)
    return ratio


def recall_at_k_rows(scores: Array, accuracies: Array, k: int, best: int | None = None) -> Array:
    """Share of the ``best`` (default k) most accurate models that are among the k best-scored."""
    best = min(best or k, accuracies.shape[1])
    threshold = -np.partition(-accuracies, best - 1, axis=1)[:, best - 1]
    hits = (_picked(scores, accuracies, k) >= threshold[:, None]).sum(axis=1)
    share: Array = np.minimum(hits, best) / best
    return share


def top1_regret_rows(scores: Array, accuracies: Array) -> Array:
    """Best accuracy of all minus the accuracy of the best-scored model."""
    regret: Array = accuracies.max(axis=1) - _picked(scores, accuracies, 1)[:, 0]
    return regret


def _picked(scores: Array, accuracies: Array, k: int) -> Array:
    order = np.lexsort(np.stack([accuracies, -scores]), axis=-1)[:, :k]
    return np.take_along_axis(accuracies, order, axis=1)


def _in_chunks(kernel: Kernel, scores: Array, accuracies: Array) -> Array:
    rows, models = scores.shape
    step = max(1, _PAIRS_AT_ONCE // models**2)
    return np.concatenate([kernel(scores[i : i + step], accuracies[i : i + step]) for i in range(0, rows, step)])


def _concordance(x: Array, y: Array) -> tuple[Array, Array, Array]:
    # for each model the sum over its partners of sign(x) sign(y), |sign(x)| and |sign(y)|
    sign_x = np.sign(x[:, :, None] - x[:, None, :])
    sign_y = np.sign(y[:, :, None] - y[:, None, :])
    return (sign_x * sign_y).sum(axis=2), np.abs(sign_x).sum(axis=2), np.abs(sign_y).sum(axis=2)


def _tau(agreement: Array, untied_x: Array, untied_y: Array, weights: Array) -> Array:
    # pair weights are w_i + w_j, so the sum over pairs is a sum over models of w_i times its row sum
    scale = (weights * untied_x).sum(axis=1) * (weights * untied_y).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (weights * agreement).sum(axis=1) / np.sqrt(scale), np.nan)


def _hyperbolic(first: Array, second: Array) -> Array:
    # 1 / (1 + rank), rank 0 for the largest of `first`, ties by the larger of `second`
    order = np.lexsort(np.stack([-second, -first]), axis=-1)
    weights: Array = 1.0 / (1.0 + np.argsort(order, axis=1).astype(np.float64))
    return weights
