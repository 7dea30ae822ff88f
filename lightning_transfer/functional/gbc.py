"""GBC: Gaussian Bhattacharyya coefficients, the overlap of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional._rows import labelled_rows, principal_components
from lightning_transfer.functional._variants import published
from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_one_of,
    check_positive_int,
    flatten_positions,
)

_CHUNK = 2**22  # entries of the largest temporary over pairs of classes: 32 MiB


def gbc(
    features: Tensor,
    labels: Tensor,
    *,
    covariance: str = "spherical",
    pca_dim: int | None = 64,
    variance_floor: float = 1e-4,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute the Gaussian Bhattacharyya coefficient (Pandy et al., CVPR 2022, equations 1 to 4).

    Each class is a Gaussian in the space of the leading principal components;

    .. math::
        \mathrm{GBC} = -\sum_{a \neq b} e^{-D(a, b)}, \qquad
        D = \tfrac{1}{8} \Delta\mu^\top \bar\Sigma^{-1} \Delta\mu
            + \tfrac{1}{2} \log \frac{|\bar\Sigma|}{\sqrt{|\Sigma_a| |\Sigma_b|}}, \quad
        \bar\Sigma = \tfrac{1}{2}(\Sigma_a + \Sigma_b)

    over ordered pairs, so it lies in ``[-c (c - 1), 0]``; 0 says that no two classes overlap. With spherical
    covariances ``s I`` the determinant is ``s ** d``; the published code takes ``s`` for it, so its logarithm lacks the
    factor ``d``: ``variant="official"``. With diagonal covariances both agree.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        covariance: ``"spherical"`` (one variance a class, the mean over dimensions) or ``"diagonal"``.
        pca_dim: Principal components kept where there are more features; ``None`` keeps the features as they are.
        variance_floor: Smallest variance of a dimension of a class (population variance), which is that of classes with
            one sample: a share of the mean variance of the dimensions, in the published code one in squared units.
        variant: ``"paper"`` or ``"official"``.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.gbc import gbc
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> gbc(features, torch.tensor([0, 0, 1, 1])), gbc(features, torch.tensor([0, 1, 0, 1]))
        (tensor(-0.1347, dtype=torch.float64), tensor(-1.0724, dtype=torch.float64))
    """
    check_gbc_options(covariance, pca_dim, variance_floor, variant)
    features, labels = flatten_positions(features, labels, ignore_index)
    reduced = pca_dim is not None and check_features(features).shape[1] > pca_dim
    data = labelled_rows(features, labels, rotate=reduced)
    if reduced and pca_dim is not None:
        data = data._replace(rows=principal_components(data.rows, pca_dim, data.noise)[0])
    means = data.class_means
    residuals = (data.rows - means[data.classes]).square()
    variances = data._replace(rows=residuals).class_means
    mean_variance = float(data.total_variance) / means.shape[1]
    return bhattacharyya_score(
        means, variances, mean_variance, covariance=covariance, variance_floor=variance_floor, variant=variant
    )


def check_gbc_options(covariance: str, pca_dim: int | None, variance_floor: float, variant: str) -> None:
    """Check the options of :func:`gbc`.

    Raises:
        ValueError: If one is malformed.
    """
    check_one_of(covariance, ("spherical", "diagonal"), "covariance")
    check_one_of(variant, ("paper", "official"), "variant")
    check_in_interval(variance_floor, 1e-300, 1e300, "variance_floor")
    if pca_dim is not None:
        check_positive_int(pca_dim, "pca_dim")


def bhattacharyya_score(
    means: Tensor, variances: Tensor, mean_variance: float, *, covariance: str, variance_floor: float, variant: str
) -> Tensor:
    """Sum the coefficients of Gaussian classes over ordered pairs, negated.

    Args:
        means: Shape ``(c, d)``, float64.
        variances: Population variance of each class and dimension, shape ``(c, d)``.
        mean_variance: Mean over dimensions of the variance of all samples.
        covariance: ``"spherical"`` or ``"diagonal"``.
        variance_floor: Smallest variance, as a share of the mean one.
        variant: ``"paper"`` or ``"official"``.

    Returns:
        0-d tensor in ``[-c (c - 1), 0]``.
    """
    if variant == "official":
        score: Tensor = published("gbc", "bhattacharyya_score")(
            means, variances, covariance=covariance, variance_floor=variance_floor
        )
        return score
    floor = variance_floor * mean_variance or 1.0  # samples that are all the same overlap whatever their variance
    variances = variances.clamp(min=floor)
    if covariance == "spherical":
        variances = variances.mean(1, keepdim=True)
    return sum_coefficients(means, variances, means.shape[1] // variances.shape[1])


def sum_coefficients(means: Tensor, variances: Tensor, log_weight: int) -> Tensor:
    """Sum the coefficients of Gaussian classes over ordered pairs, negated.

    Args:
        means: Shape ``(c, d)``, float64.
        variances: Shape ``(c, d)``, or ``(c, 1)`` for spherical ones.
        log_weight: How often the logarithm of each variance counts.
    """
    c, d = means.shape
    log_variances = variances.log().sum(1)
    rows = max(1, _CHUNK // (c * d))
    total = means.new_zeros(())
    for start in range(0, c, rows):
        some = slice(start, start + rows)
        average = (variances[some, None] + variances) / 2
        mahalanobis = ((means[some, None] - means).square() / average).sum(2)
        log_ratio = average.log().sum(2) - (log_variances[some, None] + log_variances) / 2
        coefficients = (-mahalanobis / 8 - log_weight * log_ratio / 2).exp().clamp(max=1)
        index = torch.arange(len(coefficients), device=means.device)
        coefficients[index, start + index] = 0
        total = total - coefficients.sum()
    return total
