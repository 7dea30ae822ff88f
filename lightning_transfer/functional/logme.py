"""LogME: the maximum evidence of a Bayesian linear model on the features."""

from __future__ import annotations

import math
from functools import cache, cached_property

import torch
from torch import Tensor

from lightning_transfer.functional.counts import check_attributes, is_multilabel, refuse_ignored_columns
from lightning_transfer.functional.moments import ClassMoments, SupervisedMoments, TargetMoments
from lightning_transfer.utilities.checks import check_features

_GRID = 240
_NEAR = 8  # points of the grid through which a polynomial has the derivative between two of them
_CUTS = 64  # of the distance between two points
_REFINEMENTS = 30
_SURE = 1e-11  # nats: a gain up to which the step behind it was a small one
_FLAT = 1e-13  # nats: what a cell of the grid may hide


def log_maximum_evidence(features: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Logarithm of the maximum evidence a sample (LogME; You et al., ICML 2021, eq. 2 to 4); higher is better.

    For each column ``y`` (a one-hot class, or a regression target) the evidence of ``y = F w + noise`` with
    ``w ~ N(0, 1 / alpha)`` and noise ``N(0, 1 / beta)`` is maximised over both precisions, divided by ``n``, and the
    mean over columns is returned. There is no intercept and nothing is centred, as published. With
    ``t = alpha / beta`` the best ``beta`` has a closed form, so what remains is a search in one variable, done for all
    columns at once and to convergence: the global maximum on a grid, refined to a vanishing derivative. The evidence is
    exact at every shape, also with fewer samples than features.

    Args:
        features: Shape ``(n, d)``, any floating dtype (tokens and pixels too, with integer labels).
        labels: Class ids, shape ``(n,)``, any integer dtype, ids may have gaps; zeros and ones of a multi-label task,
            shape ``(n, l)``; or floating regression targets, shape ``(n,)`` or ``(n, m)``.
        ignore_index: Samples with this class id are left out.

    Returns:
        0-d float64, in nats a sample; unbounded on both sides.

    Raises:
        ValueError: If an input is malformed, not finite or holds fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import log_maximum_evidence
        >>> features = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.5, 2.0], [7.0, 0.5], [8.0, 3.5]])
        >>> log_maximum_evidence(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        tensor(-0.6509, dtype=torch.float64)
        >>> log_maximum_evidence(features, torch.tensor([0.1, 0.9, 2.2, 5.2, 7.4, 7.6]))
        tensor(-1.0533, dtype=torch.float64)
    """
    if isinstance(labels, Tensor) and labels.is_floating_point():
        return log_maximum_evidence_from_moments(TargetMoments.from_samples(check_features(features), labels))
    if is_multilabel(features, labels):
        refuse_ignored_columns(labels, ignore_index)
        targets = check_attributes(labels, len(features)).double()
        return log_maximum_evidence_from_moments(TargetMoments.from_samples(features, targets))
    return log_maximum_evidence_from_moments(ClassMoments.from_samples(features, labels, ignore_index))


logme = log_maximum_evidence  # the name of the column


def log_maximum_evidence_from_moments(moments: SupervisedMoments) -> Tensor:
    """Compute LogME from moments; see :func:`log_maximum_evidence`."""
    return column_evidence(moments).mean()


def column_evidence(moments: SupervisedMoments) -> Tensor:
    """Maximum log evidence a sample of each column (present class or target), shape ``(c,)``, nats."""
    return _ProfileEvidence(moments).maximum()


class _ProfileEvidence:
    r"""Evidence of all columns as a function of ``u = log(alpha / beta)``, at the best ``beta``.

    The features are split into their mean and the rest, ``F = 1 m^T + C``, so that a mean far from zero costs no
    digits. With the eigenvalues ``s`` of ``C^T C`` and ``t = e^u``, the matrix inversion lemma gives

    .. math:: R(t) = \lVert y_c \rVert^2 - \sum_k \frac{b_k^2}{t + s_k} + \frac{n (\bar y - \beta)^2}{1 + n \alpha}

    for the penalised residual, where ``b`` and ``a`` are ``C^T y`` and ``m`` along the eigenvectors,
    ``alpha = sum a^2 / (t + s)`` and ``beta = sum a b / (t + s)``; and ``sum log(1 + s / t) + log(1 + n alpha)`` for
    the log-determinant.

    Args:
        moments: Moments of the features and the columns.
    """

    def __init__(self, moments: SupervisedMoments) -> None:
        self.n = moments.count
        self.values = moments.scatter_spectrum.values
        self.mean = moments.target_mean
        self.along_square = moments.mean_along.square()
        self.outside = moments.mean_outside
        coordinates, left = moments.principal_coordinates
        self.explained = coordinates.square()
        self.crossed = coordinates * (self.values.sqrt() * moments.mean_along)
        eps = torch.finfo(coordinates.dtype).eps
        total = moments.target_scatter + self.n * self.mean.square()
        empty = total <= 0  # an all-zero column is explained without noise and without weights
        if len(self.values) >= self.n - 1:  # every column is fitted exactly, and the evidence stays bounded
            floor, left = torch.where(empty, torch.ones_like(total), eps**2 * total), torch.zeros_like(total)
        else:  # an exact fit would have unbounded evidence: what is left over is never below rounding noise
            floor = torch.where(empty, torch.ones_like(total), total) * (1000 * eps)
        self.residual = torch.maximum(left, floor)

    def on_grid(self, log_t: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence of every column at the same values, and its derivatives there; both ``(c, len(log_t))``."""
        t = log_t.exp()
        away = torch.sigmoid(log_t[:, None] - self._log_values)  # t / (t + s)
        inverse = away / t[:, None]
        pull = 1 + self.n * (inverse @ self.along_square + self.outside / t)
        misfit = self.mean[:, None] - self.crossed @ inverse.T
        fit = self.residual[:, None] + self.explained @ away.T + self.n * misfit.square() / pull
        evidence = self._evidence(fit, pull.log() - away.log().sum(1))
        back = 1 - away
        inverse *= away
        pull_slope = -self.n * (inverse @ self.along_square + self.outside / t)
        fit_slope = self.explained @ (away * back).T
        fit_slope += self.n * (2 * misfit * (self.crossed @ inverse.T) / pull - (misfit / pull).square() * pull_slope)
        return evidence, -0.5 * fit_slope / fit + 0.5 * (back.sum(1) - pull_slope / pull) / self.n

    def at(self, log_t: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence of every column at a value of its own, and its derivative there; both shape ``(c,)``."""
        t = log_t.exp()
        away = torch.sigmoid(log_t[:, None] - self._log_values)
        inverse = away / t[:, None]
        pull = 1 + self.n * (inverse @ self.along_square + self.outside / t)
        misfit = self.mean - (self.crossed * inverse).sum(1)
        fit = self.residual + (self.explained * away).sum(1) + self.n * misfit.square() / pull
        evidence = self._evidence(fit, pull.log() - away.log().sum(1))
        inverse *= away
        pull_slope = -self.n * (inverse @ self.along_square + self.outside / t)
        misfit_slope = (self.crossed * inverse).sum(1)
        fit_slope = (self.explained * away * (1 - away)).sum(1)
        fit_slope += self.n * (2 * misfit * misfit_slope / pull - (misfit / pull).square() * pull_slope)
        slope = -0.5 * fit_slope / fit + 0.5 * ((1 - away).sum(1) - pull_slope / pull) / self.n
        return evidence, slope

    def maximum(self) -> Tensor:
        r"""Global maximum on a grid, refined by the derivative; shape ``(c,)``.

        The evidence is analytic for :math:`|\operatorname{Im} u| < \pi`: a polynomial through the derivatives at a few
        points of the grid has nearly their root. There the evidence is taken once more, and what a Newton step would
        gain is added. If for a column that is no small step, as at an end of the grid, a bracket is narrowed instead.
        """
        if not len(self.values) and not float(self.outside):
            return self._evidence(self.residual + self.n * self.mean.square(), self.residual.new_zeros(()))
        scale = torch.cat([self.values, (self.n * (self.outside + self.along_square.sum())).reshape(1)])
        lowest, highest = torch.stack(scale[scale > 0].log().aminmax()).tolist()
        grid = torch.linspace(lowest - 24, highest + 24, _GRID).to(scale)
        coarse, slopes = self.on_grid(grid)
        result, best = coarse.max(1)
        cell = torch.where(slopes.gather(1, best[:, None])[:, 0] > 0, best, best - 1)
        starts = (cell - _NEAR // 2 + 1).clamp(0, _GRID - _NEAR)
        near = slopes.gather(1, starts[:, None] + torch.arange(_NEAR, device=grid.device)) @ _between().to(scale)
        position = (near > 0).cumprod(1).sum(1).clamp(1, _CUTS)[:, None]
        before, after = near.gather(1, position - 1)[:, 0], near.gather(1, position)[:, 0]
        fall = (before - after).clamp(min=torch.finfo(scale.dtype).tiny)
        width = (grid[-1] - grid[0]) / ((_GRID - 1) * _CUTS)
        root = grid[starts + _NEAR // 2 - 1] + width * (position[:, 0] - 1 + (before / fall).clamp(0, 1))
        evidence, slope = self.at(root)
        gain = slope.square() * (0.5 * width / fall)
        found = (near[:, 0] > 0) & (near[:, -1] <= 0) & (starts == cell - _NEAR // 2 + 1) & (gain < _SURE)
        result = torch.maximum(result, torch.where(found, evidence + gain, evidence))
        flat = near.abs().amax(1) * (width * _CUTS) < _FLAT
        outside = (cell < 0) | (cell == _GRID - 1)  # rising beyond an end of the grid, where nothing is left to gain
        return result if bool((found | flat | outside).all()) else self._refined(grid, slopes, best, result)

    def _refined(self, grid: Tensor, slopes: Tensor, best: Tensor, result: Tensor) -> Tensor:
        """The maximum by the Illinois method on the derivative, from the points beside the best one of a grid."""
        before, after = (best - 1).clamp(min=0), (best + 1).clamp(max=len(grid) - 1)
        low, high = grid[before], grid[after]
        low_slope, high_slope = (slopes.gather(1, ends[:, None])[:, 0] for ends in (before, after))
        bracketed = (low_slope > 0) & (high_slope < 0)
        raised = lowered = torch.zeros_like(bracketed)
        for _ in range(_REFINEMENTS):
            middle = torch.where(
                bracketed, (low * high_slope - high * low_slope) / (high_slope - low_slope), (low + high) / 2
            )
            evidence, slope = self.at(middle)
            result = torch.maximum(result, evidence)
            rising = slope > 0
            # an end that stays for a second time counts half, or the secant would creep towards the other end only
            low_slope, high_slope = (
                torch.where(rising, slope, torch.where(lowered, low_slope / 2, low_slope)),
                torch.where(rising, torch.where(raised, high_slope / 2, high_slope), slope),
            )
            raised, lowered = rising, ~rising
            low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
            if float(slope[bracketed].abs().max() if bool(bracketed.any()) else 0) < 1e-10:
                break
        return result

    @cached_property
    def _log_values(self) -> Tensor:
        return self.values.log()

    def _evidence(self, fit: Tensor, log_determinant: Tensor) -> Tensor:
        return 0.5 * (torch.log(self.n / fit) - 1 - math.log(2 * math.pi) - log_determinant / self.n)


@cache
def _between() -> Tensor:
    """From values at points of a grid to those of their polynomial between the two in the middle, both included."""
    points = torch.arange(_NEAR, dtype=torch.float64)
    places = _NEAR // 2 - 1 + torch.linspace(0, 1, _CUTS + 1, dtype=torch.float64)
    others = ~torch.eye(_NEAR, dtype=torch.bool)
    factors = (places[:, None] - points)[:, None].expand(-1, _NEAR, -1)
    return (factors.where(others, 1).prod(2) / (points[:, None] - points).where(others, 1).prod(1)).T
