"""Mixtures of Gaussians with full covariances, fitted to pairs of sample and component that matter.

The steps are those of scikit-learn's ``GaussianMixture``. A pair whose responsibility is certain to be below
``exp(-90)`` is dropped as soon as the leading coordinates tell, and covariances are made of the other pairs: in many
dimensions nearly every sample belongs to one component, and most of the work goes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_NEGLIGIBLE = 90.0  # nats below the best component of a sample
_REGULARISATION = 1e-6  # added to the variances
_TOLERANCE = 1e-3  # of the mean log-likelihood
_MOST_STEPS = 100
_FIRST = 40  # leading coordinates looked at for all pairs at once, where most pairs do not matter
_SOFT = 0.25  # share of pairs that matter from which all are looked at as a whole
_ENTRIES = 2**21  # of the products made at once


class _Components(NamedTuple):
    """Parameters: logarithms of the weights ``(k,)``, means ``(k, r)``, Cholesky factors ``(k, r, r)``."""

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    @property
    def peaks(self) -> Tensor:
        """Logarithm of weight times density at the mean, shape ``(k,)``."""
        logdet = self.factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.log_weights - logdet - 0.5 * self.means.shape[1] * math.log(2 * math.pi)


def fit_mixture(samples: Tensor, components: int, seed: int) -> tuple[Tensor, bool]:
    """Fit a mixture, from k-means on.

    Args:
        samples: Shape ``(n, r)``, float64.
        components: Number of components.
        seed: Seed of k-means.

    Returns:
        Responsibilities of shape ``(n, components)`` and whether the fit converged.

    Raises:
        ValueError: If a covariance is not positive definite.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(components, n_init=1, random_state=np.random.RandomState(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of samples that repeat each other
        means.fit(samples.cpu().numpy())
    labels = torch.as_tensor(means.labels_, device=samples.device).long()
    shares = samples.new_zeros(components, len(samples)).scatter_(0, labels[None], 1.0)
    fitted = _maximise(samples, shares)
    before, converged = -math.inf, False
    for _ in range(_MOST_STEPS):
        shares, likelihood = _expect(samples, fitted, shares)
        fitted = _maximise(samples, shares)
        now = float(likelihood.mean())
        converged = abs(now - before) < _TOLERANCE
        if converged:
            break
        before = now
    return _expect(samples, fitted, shares)[0].T.contiguous(), converged


def _maximise(samples: Tensor, shares: Tensor) -> _Components:
    n, r = samples.shape
    sums = shares.sum(1) + 10 * torch.finfo(samples.dtype).eps
    means = (shares @ samples) / sums[:, None]
    factors = samples.new_empty(len(shares), r, r)
    for component, (share, mean) in enumerate(zip(shares, means, strict=True)):
        members = share.nonzero().flatten()
        if 2 * len(members) > n:
            rows, share = samples - mean, share
        else:
            rows, share = samples[members] - mean, share[members]
        torch.mm(rows.T, rows * share[:, None], out=factors[component])
    factors /= sums[:, None, None]
    factors.diagonal(dim1=1, dim2=2).add_(_REGULARISATION)
    for some in _portions(len(factors), r * r):
        factors[some], failed = torch.linalg.cholesky_ex(factors[some])
        if bool(failed.any()):
            raise ValueError("Expected features to vary enough for a Gaussian mixture, but a covariance is singular.")
    return _Components((sums / sums.sum()).log(), means, factors)


def _expect(samples: Tensor, fitted: _Components, before: Tensor) -> tuple[Tensor, Tensor]:
    """Responsibilities, shape ``(components, n)``, and the log-likelihood of each sample, shape ``(n,)``."""
    peaks, width = fitted.peaks, samples.shape[1]
    soft = int(before.count_nonzero()) > _SOFT * before.numel()
    leading = width if soft or width < 2 * _FIRST else _FIRST
    log_probs = _leading(samples, fitted, peaks, leading)
    if leading < width:
        _complete_(log_probs, samples, fitted, peaks, before.argmax(0))
    likelihood = log_probs.logsumexp(0)
    return (log_probs - likelihood).exp_(), likelihood


def _leading(samples: Tensor, fitted: _Components, peaks: Tensor, leading: int) -> Tensor:
    """Log-probabilities by the leading coordinates alone: those of all of them are no larger, shape ``(k, n)``."""
    samples, identity = samples[:, :leading].contiguous(), torch.eye(leading).to(samples)
    log_probs = samples.new_empty(len(peaks), len(samples))
    for some in _portions(len(peaks), len(samples) * leading):
        inverse = torch.linalg.solve_triangular(fitted.factors[some, :leading, :leading], identity, upper=False)
        origin = inverse @ fitted.means[some, :leading, None]
        square = (inverse @ samples.T).sub_(origin).square_().sum(1)
        log_probs[some] = peaks[some, None] - 0.5 * square
    return log_probs


def _complete_(log_probs: Tensor, samples: Tensor, fitted: _Components, peaks: Tensor, nearest: Tensor) -> None:
    """Put in the other coordinates, in place; what cannot matter becomes minus infinity.

    Args:
        log_probs: Those of :func:`_leading`.
        samples: Shape ``(n, r)``.
        fitted: The components.
        peaks: Theirs.
        nearest: The likely component of each sample, looked at first, shape ``(n,)``.
    """
    known = torch.empty_like(samples[:, 0])  # what the most probable component has at least
    likely = nearest.argsort(stable=True).split(torch.bincount(nearest, minlength=len(peaks)).tolist())
    for component, own in enumerate(likely):
        if len(own):
            square = _squares(fitted.factors[component], samples, fitted.means[component], own)[1]
            known[own] = peaks[component] - 0.5 * square
    log_probs.scatter_(0, nearest[None], -math.inf)  # known already
    components, places = (log_probs >= known - _NEGLIGIBLE).nonzero(as_tuple=True)
    log_probs.fill_(-math.inf).scatter_(0, nearest[None], known[None])
    for component, alive in enumerate(places.split(torch.bincount(components, minlength=len(peaks)).tolist())):
        if len(alive):
            farthest = 2 * (peaks[component] - known[alive] + _NEGLIGIBLE)
            alive, square = _squares(fitted.factors[component], samples, fitted.means[component], alive, farthest)
            exact = peaks[component] - 0.5 * square
            known[alive] = torch.maximum(known[alive], exact)
            log_probs[component, alive] = exact


def _squares(
    factor: Tensor, samples: Tensor, mean: Tensor, places: Tensor, farthest: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Squared Mahalanobis distances of some samples from a mean, leading coordinates first.

    Args:
        factor: Cholesky factor of the covariance, shape ``(r, r)``.
        samples: Shape ``(n, r)``.
        mean: Shape ``(r,)``.
        places: Numbers of the samples, shape ``(m,)``.
        farthest: Samples farther than that are left out, shape ``(m,)``.

    Returns:
        Numbers of the samples that are left and their squares.
    """
    width, start = samples.shape[1], 0
    square, solved = samples.new_zeros(len(places)), samples.new_empty(len(places), 0)
    stops = [width] if farthest is None else [*_doubling(_FIRST, width), width]
    for stop in stops:
        part = samples[:, start:stop][places] - mean[start:stop]
        if start:
            part.addmm_(solved, factor[start:stop, :start].T, alpha=-1)
        part = torch.linalg.solve_triangular(factor[start:stop, start:stop], part.T, upper=False).T
        square = square + part.square().sum(1)
        solved, start = torch.cat([solved, part], dim=1), stop
        if farthest is not None:
            near = square <= farthest
            if not bool(near.all()):
                places, square, solved, farthest = places[near], square[near], solved[near], farthest[near]
                if not len(places):
                    break
    return places, square


def _doubling(first: int, below: int) -> Iterator[int]:
    while first < below:
        yield first
        first *= 2


def _portions(count: int, entries: int) -> list[slice]:
    """Slices of some components of so many entries each, which are looked at together."""
    step = max(1, _ENTRIES // max(entries, 1))
    return [slice(start, start + step) for start in range(0, count, step)]
