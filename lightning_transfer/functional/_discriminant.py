"""Linear discriminant analysis with a shrunk within-class covariance: the part that SFDA, ETran and NCTI share."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional._rows import LabelledRows

SMALLEST_SHRINKAGE = 1e-10


class LinearDiscriminant(NamedTuple):
    """A fitted classifier ``softmax(x @ weights.T + intercept)``.

    Attributes:
        weights: Shape ``(c, r)``.
        intercept: Shape ``(c,)``.
    """

    weights: Tensor
    intercept: Tensor

    def log_posterior(self, rows: Tensor) -> Tensor:
        """Log-probabilities of the classes, shape ``(n, c)``, for rows of shape ``(n, r)``."""
        return (rows @ self.weights.T + self.intercept).log_softmax(dim=1)


def within_covariance(data: LabelledRows) -> Tensor:
    """Covariance about the class means, normalised by n, shape ``(r, r)``."""
    residuals = data.rows - data.class_means[data.classes]
    return residuals.T @ residuals / len(residuals)


def shrink_within(within: Tensor, total_variance: Tensor, num_features: int, shrinkage: float) -> Tensor:
    r"""Pull the within-class covariance towards a multiple of the identity; the result is positive definite.

    :math:`(1 - \lambda) S_W + \lambda \operatorname{tr}(S_W) / d \; I`. Where every sample lies on the mean of its
    class, the limit of a vanishing round covariance takes its place.

    Args:
        within: Shape ``(r, r)``.
        total_variance: Trace of the covariance about the overall mean, 0-d.
        num_features: Number of features ``d``, which ``r`` dimensions may span.
        shrinkage: :math:`\lambda`, in (0, 1].
    """
    size, total = float(within.trace()), float(total_variance)
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    eps = torch.finfo(within.dtype).eps
    if size <= eps * total or total == 0:
        return identity * (eps * total / num_features or 1.0)
    return (1 - shrinkage) * within + identity * (shrinkage * size / num_features)


def adaptive_shrinkage(within: Tensor) -> float:
    r"""The strength :math:`\lambda = \max(\exp(-5\, \sigma(S_W)), 10^{-10})`, with the exact largest eigenvalue."""
    return shrinkage_strength(5 * float(torch.linalg.eigvalsh(within)[-1]))


def approximate_shrinkage(features: Tensor, data: LabelledRows) -> float:
    """The strength as published codes compute it: the eigenvalue after three double power steps from the row sums.

    Args:
        features: The features in their own coordinates (row sums depend on them), shape ``(n, d)``.
        data: The same samples.
    """
    rows = features.detach().double()
    rows = rows - rows.mean(0)
    residuals = rows - data._replace(rows=rows).class_means[data.classes]

    def step(vector: Tensor) -> Tensor:
        return residuals.T @ (residuals @ vector) / len(residuals)

    x = y = step(residuals.new_ones(residuals.shape[1]))
    for _ in range(3):
        y = torch.nn.functional.normalize(step(x), dim=0)
        x = torch.nn.functional.normalize(step(y), dim=0)
    return shrinkage_strength(5 * float(x @ step(y)))


def shrinkage_strength(exponent: float) -> float:
    """``exp(-exponent)``, not below the floor of the published codes."""
    return max(math.exp(-exponent), SMALLEST_SHRINKAGE)


def fit_discriminant(means: Tensor, counts: Tensor, covariance: Tensor) -> LinearDiscriminant:
    """Fit the classifier of Gaussian classes that share one covariance, with the class frequencies as priors.

    Args:
        means: Means of the classes, shape ``(c, r)``.
        counts: Samples of each class, shape ``(c,)``.
        covariance: Shape ``(r, r)``, positive definite.
    """
    weights = torch.cholesky_solve(means.T, cholesky_factor(covariance)).T
    return LinearDiscriminant(weights, (counts / counts.sum()).log() - 0.5 * (means * weights).sum(1))


def true_class(values: Tensor, data: LabelledRows) -> Tensor:
    """Pick the column of each sample's own class from a matrix of shape ``(n, c)``."""
    return values.gather(1, data.classes[:, None]).squeeze(1)


def cholesky_factor(covariance: Tensor) -> Tensor:
    """Lower triangular factor of a positive definite matrix that may be so by less than the rounding of its entries."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not int(failed):
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=float(values[-1]) * torch.finfo(values.dtype).eps).sqrt()
    factor = torch.linalg.qr(root.T, mode="r").R.T
    return factor
