"""NCTI: how far the features are from the terminal stage of training, neural collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_transfer.functional._discriminant import (
    SMALLEST_SHRINKAGE,
    cholesky_factor,
    fit_discriminant,
    shrink_within,
    shrinkage_strength,
    true_class,
    within_covariance,
)
from lightning_transfer.functional._rows import LabelledRows, labelled_rows, principal_components
from lightning_transfer.functional._zoo import scale_parts
from lightning_transfer.utilities.checks import check_positive_int


def ncti_parts(features: Tensor, labels: Tensor, *, pca_dim: int = 64) -> dict[str, Tensor]:
    r"""Compute the three raw parts of the neural collapse informed score (Wang et al., ICCV 2023).

    All are taken from one linear discriminant fitted on the leading principal components. Its shrinkage is
    :math:`\exp(-\sum_{j \le 32} v_j)` with the explained variances v; where that falls under 1e-10 it is left out and
    the within-class covariance is normalised by :math:`n - c`, as in the published code, the only full definition.

    - ``seli``: nuclear norm of the centred features in discriminant space (larger: closer to the limiting geometry);
    - ``ncc``: mean probability of the true class, in [0, 1];
    - ``variability``: log of the summed nuclear norms of the posteriors of each class (smaller: collapsed).

    Args:
        features: Shape ``(n, d)``, any floating dtype; computed in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        pca_dim: Principal components kept, as far as there are as many.

    Returns:
        Three 0-d float64 tensors, for :func:`combine_ncti`.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.ncti import ncti_parts
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> {name: round(float(part), 4) for name, part in ncti_parts(features, torch.tensor([0, 0, 1, 1])).items()}
        {'seli': 3.9436, 'ncc': 0.9924, 'variability': 1.0398}
    """
    check_positive_int(pca_dim, "pca_dim")
    data = labelled_rows(features, labels, rotate=True)
    n, c = len(data.rows), len(data.counts)
    rows, variances = principal_components(data.rows, pca_dim)
    data = data._replace(rows=rows, num_features=rows.shape[1])
    shrinkage = shrinkage_strength(float(variances[:32].sum()) / max(n - 1, 1))
    within = within_covariance(data)
    if shrinkage == SMALLEST_SHRINKAGE:
        within = within * (n / max(n - c, 1))
    covariance = shrink_within(within, data.total_variance, rows.shape[1], shrinkage)
    log_posterior = fit_discriminant(data.class_means, data.counts, covariance).log_posterior(rows)
    posteriors = data._replace(rows=log_posterior.exp()).by_class()
    nuclear = torch.stack([torch.linalg.svdvals(block).sum() for block in posteriors])
    return {
        "seli": torch.linalg.svdvals(_project(data, covariance, shrinkage)).sum(),
        "ncc": true_class(log_posterior, data).exp().mean(),
        "variability": nuclear.sum().log(),
    }


def ncti(features: Tensor, labels: Tensor, *, pca_dim: int = 64) -> Tensor:
    """Compute the raw NCTI of one model: ``ncc + seli - variability``.

    The published score scales each part over the models compared before it adds them up, so it exists for a zoo only:
    pass the :func:`ncti_parts` of each model to :func:`combine_ncti`. The raw sum of one model has the right sign in
    each part, yet ``seli`` outweighs the others.

    Args:
        features: Shape ``(n, d)``, any floating dtype; computed in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        pca_dim: Principal components kept, as far as there are as many.

    Returns:
        0-d float64 tensor; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.ncti import ncti
        >>> ncti(torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]]), torch.tensor([0, 0, 1, 1]))
        tensor(3.8961, dtype=torch.float64)
    """
    parts = ncti_parts(features, labels, pca_dim=pca_dim)
    return parts["ncc"] + parts["seli"] - parts["variability"]


def combine_ncti(parts_of_zoo: Sequence[Mapping[str, Tensor | float]]) -> Tensor:
    """Combine the parts of a zoo into the published score: ``ncc + seli - variability``, each scaled to [0, 1].

    Args:
        parts_of_zoo: The :func:`ncti_parts` of each model, all on the same target data.

    Returns:
        Shape ``(m,)``, float64, in [-1, 2]; higher is better. A part equal for all models counts 0.5 for each.

    Raises:
        ValueError: If there is no model, a model lacks a part, or a part is not finite.

    Example:
        >>> from lightning_transfer.functional.ncti import combine_ncti
        >>> combine_ncti([{"seli": 1.0, "ncc": 0.5, "variability": 2.0}, {"seli": 3.0, "ncc": 0.7, "variability": 2.5}])
        tensor([0., 1.], dtype=torch.float64)
    """
    scaled = scale_parts(parts_of_zoo, ("seli", "ncc", "variability"))
    return scaled["ncc"] + scaled["seli"] - scaled["variability"]


def _project(data: LabelledRows, within: Tensor, shrinkage: float) -> Tensor:
    """Rows in discriminant space: at most c - 1 axes, whitened by the within-class covariance."""
    n, r = data.rows.shape
    total = data.rows.T @ data.rows / n
    if shrinkage > SMALLEST_SHRINKAGE:  # both covariances are shrunk, each to its own trace
        total = (1 - shrinkage) * total
        total.diagonal().add_(shrinkage * float(data.total_variance) / r)
    factor = cholesky_factor(within)
    between = torch.linalg.solve_triangular(factor, total - within, upper=False)
    between = torch.linalg.solve_triangular(factor, between.mT, upper=False)
    axes: Tensor = torch.linalg.eigh((between + between.mT) / 2).eigenvectors[:, -min(len(data.counts) - 1, r) :]
    whitened: Tensor = torch.linalg.solve_triangular(factor, data.rows.T, upper=False).T
    return whitened @ axes
