"""Resampling models: intervals from bootstrap or jackknife, and what shuffled scores would give."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from lightning_transfer.screening.rank_kernels import Array, Kernel
from lightning_transfer.screening.rank_statistics import MINIMUM_MODELS

ROUNDING = 1e-9


@dataclass(frozen=True)
class Resamples:
    """The resamples of one set of models; every statistic and estimator on it shares them, so differences are paired.

    Attributes:
        accuracies: Shape ``(models,)``.
        models: Their names.
        level: Coverage of intervals.
        interval: ``"bootstrap"`` or ``"jackknife"``.
        num_resamples: Bootstrap draws, and permutations where not all orders are taken.
        seed: Seed of both.
    """

    accuracies: Array
    models: tuple[str, ...]
    level: float
    interval: str
    num_resamples: int
    seed: int

    @property
    def exact(self) -> bool:
        """Whether the null takes every order of the scores."""
        return len(self.models) <= 12 and math.factorial(len(self.models)) <= self.num_resamples

    def replicates(self, kernel: Kernel, scores: Array) -> tuple[Array, Array]:
        """Return the statistic on the bootstrap draws (none for the jackknife) and with each model left out."""
        n = len(scores)
        left_out = np.empty(0)
        if n > MINIMUM_MODELS:
            others = np.array([[j for j in range(n) if j != i] for i in range(n)])
            left_out = kernel(scores[others], self.accuracies[others])
        if self.interval == "jackknife":
            return np.empty(0), left_out
        drawn = np.random.default_rng(self.seed).integers(n, size=(self.num_resamples, n))
        return kernel(scores[drawn], self.accuracies[drawn]), left_out

    def null(self, kernel: Kernel, scores: Array) -> Array:
        """Return the statistic of the scores in every order, or in seeded random ones."""
        if self.exact:
            orders = np.array(list(itertools.permutations(scores)))
        else:
            rows = np.broadcast_to(scores, (self.num_resamples, len(scores)))
            orders = np.random.default_rng([self.seed, 1]).permuted(rows, axis=1)
        return kernel(orders, np.broadcast_to(self.accuracies, orders.shape))

    def interval_of(self, value: float, draws: Array, left_out: Array) -> tuple[float, float]:
        """Return the ends of the interval from what :meth:`replicates` gave; undefined replicates are left out.

        Raises:
            ValueError: If the jackknife has fewer than four models, or no replicate is defined.
        """
        draws, left_out = draws[~np.isnan(draws)], left_out[~np.isnan(left_out)]
        tails = np.array([(1 - self.level) / 2, (1 + self.level) / 2])
        if self.interval == "jackknife":
            return _jackknife(value, left_out, tails)
        return _bias_corrected(value, draws, left_out, tails)


def _jackknife(value: float, left_out: Array, tails: Array) -> tuple[float, float]:
    from scipy.stats import t

    n = len(left_out)
    if n <= MINIMUM_MODELS:
        raise ValueError(f"Expected at least 4 models that can be left out for interval='jackknife', but got {n}.")
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    lower, upper = value + t.ppf(tails, n - 1) * error
    return float(lower), float(upper)


def _bias_corrected(value: float, draws: Array, left_out: Array, tails: Array) -> tuple[float, float]:
    # Efron 1987: quantiles of the draws, shifted by their median bias and by the skewness of the jackknife values
    from scipy.stats import norm

    share_below = ((draws < value - ROUNDING).mean() + (draws <= value + ROUNDING).mean()) / 2
    floor = 0.5 / len(draws)
    bias = float(norm.ppf(np.clip(share_below, floor, 1 - floor)))
    deviation = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    squares = float((deviation**2).sum())
    acceleration = float((deviation**3).sum()) / (6 * squares**1.5) if squares > ROUNDING**2 else 0.0
    shifted = bias + norm.ppf(tails)
    lower, upper = np.quantile(draws, norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 0.01)))
    return float(lower), float(upper)
