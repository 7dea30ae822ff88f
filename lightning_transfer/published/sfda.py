"""SFDA as its released code computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional._discriminant import class_residuals, shrinkage_strength, within_spectrum
from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional.sfda import self_challenged
from lightning_transfer.utilities.checks import flatten_positions
from lightning_transfer.utilities.linalg import centred


def sfda(features: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """SFDA as a mean probability, with a power iteration for the shrinkage that stops after six products.

    Args and errors are those of :func:`lightning_transfer.functional.sfda` (Shao et al., ECCV 2022). The row sums with
    which the iteration starts make it depend on rotations.

    Returns:
        0-d float64 in [0, 1]; higher is better.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.sfda import sfda
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> sfda(features, torch.tensor([0, 0, 1, 1]))
        tensor(0.8081, dtype=torch.float64)
    """
    features, labels = flatten_positions(features, labels, ignore_index)
    data = labelled_rows(features, labels, rotate=True)
    return self_challenged(data, within_spectrum(data), approximate_shrinkage(features, data)).exp().mean()


def approximate_shrinkage(features: Tensor, data: LabelledRows) -> float:
    """The strength as published codes compute it: the eigenvalue after three double power steps from the row sums.

    Args:
        features: The features in their own coordinates (row sums depend on them), shape ``(n, d)``.
        data: The same samples.
    """
    residuals = class_residuals(data._replace(rows=centred(features)[0]))

    def step(vector: Tensor) -> Tensor:
        return residuals.T @ (residuals @ vector) / len(residuals)

    x = y = step(residuals.new_ones(residuals.shape[1]))
    for _ in range(3):
        y = torch.nn.functional.normalize(step(x), dim=0)
        x = torch.nn.functional.normalize(step(y), dim=0)
    return shrinkage_strength(5 * float(x @ step(y)))
