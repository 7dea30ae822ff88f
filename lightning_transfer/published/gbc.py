"""GBC as its released code computes it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.gbc import gbc as _gbc
from lightning_transfer.functional.gbc import sum_coefficients


def gbc(features: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """GBC with the determinant ``s`` for ``s I`` in any dimension, and an absolute floor of the variances.

    Args and errors are those of :func:`lightning_transfer.functional.gbc`, but that ``variance_floor`` is in squared
    units of the features (Pandy et al., CVPR 2022).

    Returns:
        0-d float64 in ``[-c (c - 1), 0]``; higher is better.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.gbc import gbc
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> gbc(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.1354, dtype=torch.float64)
    """
    return _gbc(features, labels, variant="official", **options)


def bhattacharyya_score(means: Tensor, variances: Tensor, *, covariance: str, variance_floor: float) -> Tensor:
    """The sum over pairs of classes; see :func:`lightning_transfer.functional.gbc.bhattacharyya_score`."""
    variances = variances.clamp(min=variance_floor)
    if covariance == "spherical":
        variances = variances.mean(1, keepdim=True)
    return sum_coefficients(means, variances, 1)
