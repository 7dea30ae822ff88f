"""Min-max scaling over a zoo of models, for scores that are only defined relative to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def scale_parts(parts_of_zoo: Sequence[Mapping[str, Tensor | float]], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Scale each part to [0, 1] over the models.

    Args:
        parts_of_zoo: Raw parts of each model.
        names: Parts to scale.

    Returns:
        For each name shape ``(m,)``, float64, on the CPU. A part that is the same for every model tells them not apart
        and is scaled to 0.5, also where there is one model only.

    Raises:
        ValueError: If there is no model, a model lacks a part, or a part is not finite.
    """
    if not parts_of_zoo:
        raise ValueError("Expected argument `parts_of_zoo` to hold at least one model, but got none.")
    scaled = {}
    for name in names:
        missing = [index for index, parts in enumerate(parts_of_zoo) if name not in parts]
        if missing:
            raise ValueError(
                f"Expected argument `parts_of_zoo` to hold {name!r} for every model, but it lacks at {missing}."
            )
        values = torch.tensor([float(parts[name]) for parts in parts_of_zoo], dtype=torch.float64)
        if not bool(values.isfinite().all()):
            raise ValueError(f"Expected argument `parts_of_zoo` to be finite, but got {values.tolist()} for {name!r}.")
        low, high = values.min(), values.max()
        scaled[name] = (values - low) / (high - low) if high > low else torch.full_like(values, 0.5)
    return scaled
