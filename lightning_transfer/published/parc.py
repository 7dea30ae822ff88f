"""PARC as its released code computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.parc import (
    check_parc_options,
    choose_samples,
    correlation_distances,
    pairs,
    rank_agreement,
    standardise,
)


def parc(
    features: Tensor,
    labels: Tensor,
    *,
    pca_dim: int | None = None,
    keep_samples: int | None = 500,
    seed: int = 0,
    ignore_index: int | None = None,
) -> Tensor:
    """PARC with a seeded, randomised PCA, and ties of labels broken by the rounding of ``numpy.corrcoef``.

    Args and errors are those of :func:`lightning_transfer.functional.parc` (Bolya et al., NeurIPS 2021). How NumPy
    rounds, and so the order of tied classes, depends on the machine.

    Returns:
        0-d float64 in [-100, 100]; higher is better.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.parc import parc
        >>> features = torch.tensor([[0.0, 1.0, 0.1], [0.3, 0.6, 0.0], [1.0, 0.0, 0.2], [0.7, 0.5, 0.9]])
        >>> parc(features, torch.tensor([0, 0, 1, 1]))
        tensor(82.8079, dtype=torch.float64)
    """
    check_parc_options(pca_dim, keep_samples, "official")
    rows, annotations = choose_samples(features, labels, keep_samples, seed, ignore_index)
    if pca_dim is not None:
        rows = _randomised_components(rows, pca_dim)
    return rank_agreement(correlation_distances(standardise(rows)), _rounded_distances(annotations))


def _rounded_distances(annotations: Tensor) -> Tensor:
    import numpy as np

    # of the labels that there are: of all samples, the rounding would depend on their order as well
    kinds, kind = annotations.unique(dim=0, return_inverse=True)
    with np.errstate(invalid="ignore"):
        correlation = np.nan_to_num(np.corrcoef(kinds.cpu().numpy()))
    return pairs((1 - torch.from_numpy(correlation).to(annotations))[kind][:, kind])


def _randomised_components(rows: Tensor, num_components: int) -> Tensor:
    """Principal components by the approximation and the seed of the released code."""
    from sklearn.decomposition import PCA

    pca = PCA(min(num_components, *rows.shape), svd_solver="randomized", random_state=1919, iterated_power=1)
    return torch.from_numpy(pca.fit_transform(rows.cpu().numpy())).to(rows)
