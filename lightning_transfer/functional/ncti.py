"""NCTI: how far the features are from the terminal stage of training, neural collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_transfer.functional._discriminant import (
    SMALLEST_SHRINKAGE,
    class_residuals,
    log_posterior,
    shrink,
    shrinkage_strength,
    true_class,
    whiten,
    within_spectrum,
)
from lightning_transfer.functional._rows import LabelledRows, labelled_rows, principal_components
from lightning_transfer.functional._zoo import scale_parts
from lightning_transfer.utilities.checks import check_positive_int, flatten_positions
from lightning_transfer.utilities.linalg import eigh, gram

_TOLERANCE = 1e-4  # relative size under which the discriminant drops a direction, of scikit-learn


def ncti_parts(
    features: Tensor, labels: Tensor, *, pca_dim: int = 64, ignore_index: int | None = None
) -> dict[str, Tensor]:
    r"""Compute the three raw parts of the neural collapse informed score (Wang et al., ICCV 2023).

    All are taken from one linear discriminant fitted on the leading principal components. Its shrinkage is
    :math:`\exp(-\sum_{j \le 32} v_j)` with the explained variances v; where that falls under 1e-10 nothing is shrunk,
    and directions without variance within classes are left out (relative tolerance 1e-4), as scikit-learn does for the
    published code, which is the only full definition. Covariances are normalised by n, as in scikit-learn from 1.9;
    before, by ``n - c`` where nothing is shrunk.

    - ``seli``: nuclear norm of the centred features in discriminant space (larger: closer to the limiting geometry);
    - ``ncc``: mean probability of the true class, in [0, 1];
    - ``variability``: log of the summed nuclear norms of the posteriors of each class (smaller: collapsed).

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        pca_dim: Principal components kept, as far as there are as many.
        ignore_index: Samples with this label are left out.

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
    data = labelled_rows(*flatten_positions(features, labels, ignore_index), rotate=True)
    rows, variances = principal_components(data.rows, pca_dim, data.noise)
    whitened, axes = _discriminant_space(data._replace(rows=rows), float(variances[:32].sum()) / (len(rows) - 1))
    data = data._replace(rows=whitened)
    log_probabilities = log_posterior(data)
    posteriors = data._replace(rows=log_probabilities.exp()).by_class()
    nuclear = torch.stack([torch.linalg.svdvals(block).sum() for block in posteriors])
    return {
        "seli": torch.linalg.svdvals(whitened @ axes).sum(),
        "ncc": true_class(log_probabilities, data).exp().mean(),
        "variability": nuclear.sum().log(),
    }


def ncti(features: Tensor, labels: Tensor, *, pca_dim: int = 64, ignore_index: int | None = None) -> Tensor:
    """Compute the raw NCTI of one model: ``ncc + seli - variability``.

    The published score scales each part over the models compared before it adds them up, so it exists for a zoo only:
    pass the :func:`ncti_parts` of each model to :func:`combine_ncti`. The raw sum of one model has the right sign in
    each part, yet ``seli`` outweighs the others.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        pca_dim: Principal components kept, as far as there are as many.
        ignore_index: Samples with this label are left out.

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
    parts = ncti_parts(features, labels, pca_dim=pca_dim, ignore_index=ignore_index)
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


def _discriminant_space(data: LabelledRows, explained_variance: float) -> tuple[Tensor, Tensor]:
    """Rows whitened by the within-class covariance, shape ``(n, k)``, and the discriminant axes there, ``(k, m)``."""
    n, r = data.rows.shape
    shrinkage = shrinkage_strength(explained_variance)
    within = within_spectrum(data)
    if shrinkage > SMALLEST_SHRINKAGE and float(within.values.sum()) > 0:
        whitened = whiten(data, within, shrinkage, r)
        ridge = shrinkage * data.total_variance / r / shrink(within.values, data.total_variance, r, shrinkage)
        between = (1 - shrinkage) / n * gram(whitened) + ridge.diag()  # and the identity
        return whitened, eigh(between)[1][:, -min(len(data.counts) - 1, r) :]
    # without shrinkage: directions without variance within classes are left out, then those without any between them
    residuals = class_residuals(data)
    deviation = residuals.square().mean(0).sqrt()
    noise = 1e3 * torch.finfo(deviation.dtype).eps * data.total_variance.sqrt()
    deviation = torch.where(deviation > noise, deviation, torch.inf)
    _, lengths, axes = torch.linalg.svd(torch.linalg.qr(residuals / deviation / n**0.5, mode="r").R)
    kept = lengths > _TOLERANCE
    whitened = data.rows @ ((axes.T[:, kept] / deviation[:, None]) / lengths[kept])
    means = data._replace(rows=whitened).class_means * data.counts.sqrt()[:, None]
    _, strengths, directions = torch.linalg.svd(means, full_matrices=False)
    rank = int((strengths > _TOLERANCE * strengths.max()).sum()) if strengths.numel() else 0
    return whitened, directions[: min(rank, len(data.counts) - 1)].T
