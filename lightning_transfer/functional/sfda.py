"""SFDA: self-challenging Fisher discriminant analysis."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional._discriminant import (
    LinearDiscriminant,
    adaptive_shrinkage,
    approximate_shrinkage,
    fit_discriminant,
    shrink_within,
    true_class,
    within_covariance,
)
from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.utilities.checks import check_one_of, flatten_positions


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
    data = labelled_rows(features, labels, rotate=True)
    within = within_covariance(data)
    shrinkage = adaptive_shrinkage(within) if variant == "paper" else approximate_shrinkage(features, data)
    posterior = _fit(data, within, shrinkage).log_posterior(data.rows).exp()
    mixed = _confident_mix(data, true_class(posterior.softmax(dim=1), data))
    second = _fit(mixed, within_covariance(mixed), shrinkage)
    log_probability = true_class(second.log_posterior(mixed.rows), mixed)
    return log_probability.mean() if variant == "paper" else log_probability.exp().mean()


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
    within = moments.within_scatter / moments.count
    covariance = shrink_within(within, moments.total_variance, moments.num_features, adaptive_shrinkage(within))
    weights, intercept = fit_discriminant(moments.class_offsets, moments.counts, covariance)
    return LinearDiscriminant(weights, intercept - weights @ moments.mean)


def _fit(data: LabelledRows, within: Tensor, shrinkage: float) -> LinearDiscriminant:
    covariance = shrink_within(within, data.total_variance, data.num_features, shrinkage)
    return fit_discriminant(data.class_means, data.counts, covariance)


def _confident_mix(data: LabelledRows, confidence: Tensor) -> LabelledRows:
    means = data.class_means
    others = (means.sum(0) - means) / (len(means) - 1)
    confidence = confidence[:, None]
    rows = confidence * data.rows + (1 - confidence) * others[data.classes]
    return data._replace(rows=rows - rows.mean(0))
