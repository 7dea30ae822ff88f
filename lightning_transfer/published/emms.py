"""EMMS as its released code computes it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.emms import emms as _emms

DEVIATION_FLOOR = 1e-8  #: Added to standard deviations.


def emms(features: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
    """EMMS with the squared error times the width of the embeddings in place of over it (Meng et al., NeurIPS 2023).

    Args and errors are those of :func:`lightning_transfer.functional.emms`.

    Returns:
        0-d float64, at most 0; higher is better.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.emms import emms
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> emms(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.0376, dtype=torch.float64)
    """
    return _emms(features, labels, variant="official", **options)


def times_width(score: Tensor, width: int) -> Tensor:
    """The mean over samples and width, times the squared width."""
    return score * width**2
