"""From maps and tokens to one vector a sample."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_one_of

POOLINGS = ("auto", "avg", "mean", "cls", "last", "flatten", "none")


def check_pooling(pooling: str) -> None:
    """Check the name of a pooling.

    Raises:
        ValueError: If it is not known.
    """
    check_one_of(pooling, POOLINGS, "pooling")


def pool(features: Tensor, pooling: str = "auto", mask: Tensor | None = None) -> Tensor:
    """Pool the output of a layer.

    Args:
        features: Vectors ``(b, d)``, tokens ``(b, t, d)``, or maps ``(b, d, h, w)`` (any number of positions).
        pooling: ``"avg"`` averages the positions of maps ``(b, d, ...)``; ``"mean"``, ``"cls"`` and ``"last"`` take
            the mean, the first and the last of the tokens ``(b, t, d)`` that count, on whichever side the padding is;
            ``"flatten"`` makes one long vector; ``"none"`` leaves the features as they are; ``"auto"`` is ``"mean"``
            for tokens, ``"avg"`` for maps.
        mask: Shape ``(b, t)``, 1 for tokens that count; only for tokens.

    Returns:
        Shape ``(b, d)``, unless pooling is ``"none"``.

    Raises:
        ValueError: If the pooling is unknown or does not fit the shape.

    Example:
        >>> import torch
        >>> from lightning_transfer.backbones.pooling import pool
        >>> pool(torch.arange(12.0).view(1, 3, 2, 2), "avg")
        tensor([[1.5000, 5.5000, 9.5000]])
        >>> pool(torch.arange(6.0).view(1, 3, 2), "mean", mask=torch.tensor([[1, 1, 0]]))
        tensor([[1., 2.]])
    """
    check_pooling(pooling)
    if pooling == "auto":
        pooling = {2: "none", 3: "mean"}.get(features.ndim, "avg")
    if pooling == "none":
        return features
    if pooling == "flatten":
        return features.flatten(1)
    if pooling == "avg":
        if features.ndim < 2:
            raise ValueError(f"Expected features of shape (b, d, ...) to average, but got {tuple(features.shape)}.")
        return features.flatten(2).mean(dim=2) if features.ndim > 2 else features
    if features.ndim != 3:
        raise ValueError(
            f"Expected features of shape (b, t, d) for pooling {pooling!r}, but got {tuple(features.shape)}."
        )
    if mask is None:
        mask = features.new_ones(features.shape[:2])
    if pooling == "mean":
        weights = mask.to(features.dtype).unsqueeze(-1)
        return (features * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    rows, positions = (torch.arange(length, device=features.device) for length in features.shape[:2])
    chosen = mask.long() if pooling == "cls" else mask.long() * positions
    return features[rows, chosen.argmax(dim=1)]
