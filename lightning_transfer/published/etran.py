"""Parts of ETran as its released code computes them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional._discriminant import log_posterior, true_class
from lightning_transfer.functional._rows import LabelledRows
from lightning_transfer.functional.etran import etran_parts as _etran_parts


def etran_parts(features: Tensor, labels: Tensor | None = None, **options: Any) -> dict[str, Tensor]:
    """Energy of the lowest 0.5 % of the samples, and the fit of a discriminant with identity covariance.

    Args and errors are those of :func:`lightning_transfer.functional.etran_parts`. The released code hands a matrix
    that is not symmetric to a symmetric eigensolver (Gholami et al., ICCV 2023).

    Example:
        >>> import torch
        >>> from lightning_transfer.published.etran import etran_parts
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> {name: round(float(part), 4) for name, part in etran_parts(features, torch.tensor([0, 0, 1, 1])).items()}
        {'energy': 1.1544, 'fit': 0.5966}
    """
    return _etran_parts(features, labels, variant="official", **options)


def lowest_energies(energies: Tensor) -> Tensor:
    """The lowest 0.5 % of energies, at least one."""
    return energies.sort().values[: max(1, 5 * len(energies) // 1000)]


def discriminant_fit(data: LabelledRows) -> Tensor:
    """Mean probability of the true class, 0-d."""
    return true_class(log_posterior(data), data).exp().mean()
