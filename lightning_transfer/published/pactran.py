"""PACTran as its released code computes it: bounds, of which lower is better."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.pactran import pactran as _pactran
from lightning_transfer.functional.pactran import pactran_dirichlet as _pactran_dirichlet
from lightning_transfer.functional.pactran import pactran_gamma as _pactran_gamma


def pactran(features: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The bound with the Gaussian prior, from the Hessian of the summed loss over weights and biases; lower is better.

    Args and errors are those of :func:`lightning_transfer.functional.pactran` (Ding et al., ECCV 2022).

    Example:
        >>> import torch
        >>> from lightning_transfer.published.pactran import pactran
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> pactran(features, torch.tensor([0, 0, 1, 1]))
        tensor(3.5464, dtype=torch.float64)
    """
    return _pactran(features, labels, variant="official", **options)


def pactran_dirichlet(source_probs: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The bound with the Dirichlet prior over the entries of the one-hot labels; lower is better.

    Args and errors are those of :func:`lightning_transfer.functional.pactran_dirichlet`.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.pactran import pactran_dirichlet
        >>> pactran_dirichlet(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        tensor(0.3397, dtype=torch.float64)
    """
    return _pactran_dirichlet(source_probs, labels, variant="official", **options)


def pactran_gamma(source_probs: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """The bound with the Gamma prior, all but a constant over the entries of the one-hot labels; lower is better.

    Args and errors are those of :func:`lightning_transfer.functional.pactran_gamma`.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.pactran import pactran_gamma
        >>> pactran_gamma(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]), torch.tensor([0, 0, 1]))
        tensor(1.2009, dtype=torch.float64)
    """
    return _pactran_gamma(source_probs, labels, variant="official", **options)


def total_curvature(squares: Tensor, spread: Tensor) -> Tensor:
    """Trace of the Hessian of the summed loss, 0-d, from squared norms and sums of ``p (1 - p)`` of the samples."""
    return (squares + 1) @ spread


def per_entry(bound: Tensor, prior: Tensor) -> Tensor:
    """A bound over the number of classes."""
    return bound / len(prior)
