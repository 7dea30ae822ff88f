"""SFDA: self-challenging Fisher discriminant analysis."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_transfer.functional._discriminant import (
    WithinSpectrum,
    adaptive_shrinkage,
    log_posterior,
    shrink,
    true_class,
    whiten,
    within_spectrum,
)
from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional._variants import published
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.utilities.checks import check_one_of, flatten_positions
from lightning_transfer.utilities.linalg import eigh


class LinearDiscriminant(NamedTuple):
    """A fitted classifier ``softmax(x @ weights.T + intercept)``.

    Attributes:
        weights: Shape ``(c, d)``.
        intercept: Shape ``(c,)``.
    """

    weights: Tensor
    intercept: Tensor

    def log_posterior(self, rows: Tensor) -> Tensor:
        """Log-probabilities of the classes, shape ``(n, c)``, for features of shape ``(n, d)``."""
        return (rows @ self.weights.T + self.intercept).log_softmax(dim=1)


def sfda(features: Tensor, labels: Tensor, *, variant: str = "paper", ignore_index: int | None = None) -> Tensor:
    r"""Compute the self-challenging Fisher score (Shao et al., ECCV 2022).

    Step one fits a linear discriminant whose within-class covariance is shrunk by
    :math:`\lambda = \max(\exp(-5\,\sigma(S_W)), 10^{-10})`, :math:`\sigma` the largest eigenvalue. Step two makes the
    task
    harder: each sample is mixed with the mean of the other classes, by the (softened) confidence in its own class,
    :math:`x \leftarrow p_y x + (1 - p_y) \bar\mu_{\neq y}`, and the discriminant is fitted again with the same
    :math:`\lambda`. The score is the mean log-probability of the true class.

    The published code leaves the logarithm out (mean probability) and stops a power iteration for :math:`\sigma` after
    six products: ``"official"``. The score is invariant under rotation and translation, not under scaling.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64, never changed.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        variant: ``"paper"`` (at most 0) or ``"official"`` (in [0, 1]).
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.sfda import sfda
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> sfda(features, torch.tensor([0, 0, 1, 1]), variant="official")
        tensor(0.8081, dtype=torch.float64)
    """
    check_one_of(variant, ("paper", "official"), "variant")
    features, labels = flatten_positions(features, labels, ignore_index)
    if variant == "official":
        score: Tensor = published("sfda")(features, labels)
        return score
    data = labelled_rows(features, labels, rotate=True)
    within = within_spectrum(data)
    return self_challenged(data, within, adaptive_shrinkage(within.values)).mean().clamp(max=0) + 0.0


def sfda_first_step(moments: ClassMoments) -> LinearDiscriminant:
    """Compute the discriminant of step one from moments, exactly and without any sample.

    Args:
        moments: Moments in the coordinates of the features (``n >= d``, or streamed).

    Returns:
        The classifier of the classes present, for features of shape ``(n, d)`` in float64.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.moments import ClassMoments
        >>> from lightning_transfer.functional.sfda import sfda_first_step
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]], dtype=torch.float64)
        >>> classifier = sfda_first_step(ClassMoments.from_samples(features, torch.tensor([0, 0, 1, 1])))
        >>> classifier.log_posterior(features).argmax(dim=1)
        tensor([0, 0, 1, 1])
    """
    values, vectors = eigh(moments.within_scatter / moments.count)
    values = values.clamp(min=0)
    shrunk = shrink(values, moments.total_variance, moments.num_features, adaptive_shrinkage(values))
    weights = (moments.class_offsets @ vectors / shrunk) @ vectors.T
    priors = (moments.counts / moments.count).log()
    intercept = priors - 0.5 * (moments.class_offsets * weights).sum(1) - weights @ moments.mean
    return LinearDiscriminant(weights, intercept)


def self_challenged(data: LabelledRows, within: WithinSpectrum, shrinkage: float) -> Tensor:
    """Log-probability of the true class of each mixed sample in step two, shape ``(n,)``; see :func:`sfda`."""
    posterior = log_posterior(data._replace(rows=whiten(data, within, shrinkage))).exp()
    mixed = _confident_mix(data, true_class(posterior.softmax(dim=1), data))
    second = mixed._replace(rows=whiten(mixed, within_spectrum(mixed), shrinkage))
    return true_class(log_posterior(second), mixed)


def _confident_mix(data: LabelledRows, confidence: Tensor) -> LabelledRows:
    means = data.class_means
    others = (means.sum(0) - means) / (len(means) - 1)
    confidence = confidence[:, None]
    rows = confidence * data.rows + (1 - confidence) * others[data.classes]
    return data._replace(rows=rows - rows.mean(0))
