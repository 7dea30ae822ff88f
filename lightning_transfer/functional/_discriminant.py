"""Linear discriminant analysis with a shrunk within-class covariance: the part that SFDA, ETran and NCTI share."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional._rows import LabelledRows

SMALLEST_SHRINKAGE = 1e-10


class WithinSpectrum(NamedTuple):
    """Eigenvalues (of which some may be 0) and eigenvectors of the covariance about the class means.

    Attributes:
        values: Shape ``(r,)``.
        vectors: Shape ``(r, r)``.
    """

    values: Tensor
    vectors: Tensor


def class_residuals(data: LabelledRows) -> Tensor:
    """Samples less the means of their classes, shape ``(n, r)``."""
    return data.rows - data.class_means[data.classes]


def within_spectrum(data: LabelledRows) -> WithinSpectrum:
    """Spectrum of the covariance about the class means, normalised by n, from the samples: no digit is squared away."""
    residuals = class_residuals(data)
    _, lengths, axes = torch.linalg.svd(torch.linalg.qr(residuals, mode="r").R)
    return WithinSpectrum(lengths.square() / len(residuals), axes.T)


def shrink(within: Tensor, total_variance: Tensor, num_features: int, shrinkage: float) -> Tensor:
    r"""Pull the eigenvalues of the within-class covariance towards their mean; all are then above 0.

    :math:`(1 - \lambda) S_W + \lambda \operatorname{tr}(S_W) / d \; I`. Where every sample lies on the mean of its
    class, the limit of a vanishing round covariance takes its place.

    Args:
        within: Shape ``(r,)``.
        total_variance: Trace of the covariance about the overall mean, 0-d.
        num_features: Number of features ``d``, which ``r`` dimensions may span.
        shrinkage: :math:`\lambda`, in (0, 1].
    """
    size, total = float(within.sum()), float(total_variance)
    eps = torch.finfo(within.dtype).eps
    if size <= eps * total or total == 0:
        return torch.full_like(within, eps * total / num_features or 1.0)
    return (1 - shrinkage) * within + shrinkage * size / num_features


def whiten(data: LabelledRows, within: WithinSpectrum, shrinkage: float, num_features: int | None = None) -> Tensor:
    """Samples in coordinates in which the shrunk covariance about the class means is the identity, shape ``(n, r)``."""
    shrunk = shrink(within.values, data.total_variance, num_features or data.num_features, shrinkage)
    return data.rows @ (within.vectors / shrunk.sqrt())


def adaptive_shrinkage(within: Tensor) -> float:
    r"""The strength :math:`\lambda = \max(\exp(-5\, \sigma(S_W)), 10^{-10})`, with the exact largest eigenvalue."""
    return shrinkage_strength(5 * float(within.max()))


def shrinkage_strength(exponent: float) -> float:
    """``exp(-exponent)``, not below the floor of the published codes."""
    return max(math.exp(-exponent), SMALLEST_SHRINKAGE)


def log_posterior(data: LabelledRows) -> Tensor:
    """Log-probabilities of the classes, shape ``(n, c)``, by the classifier of Gaussian classes with unit covariance.

    The class frequencies are the priors.
    """
    means = data.class_means
    priors = (data.counts / data.counts.sum()).log()
    return (data.rows @ means.T + (priors - 0.5 * means.square().sum(1))).log_softmax(dim=1)


def true_class(values: Tensor, data: LabelledRows) -> Tensor:
    """Pick the column of each sample's own class from a matrix of shape ``(n, c)``."""
    return values.gather(1, data.classes[:, None]).squeeze(1)
