"""What a reference says beyond its ease: copies of it that keep how well classes are told apart, and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Baseline:
    """The bound under maps that can only turn the target, beside that of random copies of the reference.

    Such maps cannot make up for a reference whose classes lie unlike those of the target. A copy has the same class
    sizes and the same spectra within and between classes, but directions at random: what it reaches is owed to the ease
    of the reference and of the target, what the reference is better by to their being related.

    Attributes:
        bound: Bound under an orthogonal map.
        copies: Bounds of the copies under an orthogonal map, one a seed.
    """

    bound: float
    copies: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Bound minus the mean of the copies' bounds, in nats; below zero for a related reference."""
        return self.bound - math.fsum(self.copies) / len(self.copies)

    @property
    def spread(self) -> float:
        """Standard deviation over the copies."""
        mean = math.fsum(self.copies) / len(self.copies)
        return math.sqrt(math.fsum((each - mean) ** 2 for each in self.copies) / max(len(self.copies) - 1, 1))

    @property
    def decided(self) -> bool:
        """Whether the difference is beyond two spreads of the copies."""
        return abs(self.difference) > 2 * self.spread

    def __str__(self) -> str:
        verdict = "" if self.decided else ", not decided"
        return (
            f"{self.bound:.4f} under a turning map, {self.difference:+.4f} against {len(self.copies)} random copies of "
            f"the reference (spread {self.spread:.4f}{verdict})"
        )


def random_copy(features: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Gaussian classes with the sizes and spectra of given ones, in random directions.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        labels: Shape ``(n,)``, any integer dtype.
        seed: Seed of the directions and of the samples.

    Returns:
        Shape ``(n, d)``, float64: row ``i`` is a sample of the class ``labels[i]``. Pooled covariance within classes,
        and covariance of the class means at their shares, have the eigenvalues of the given features.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.baseline import random_copy
        >>> random_copy(torch.randn(12, 3), torch.arange(12) % 2, seed=0).shape
        torch.Size([12, 3])
    """
    generator = torch.Generator().manual_seed(seed)
    x = features.double()
    n, width = x.shape
    ids, numbers, counts = labels.unique(return_inverse=True, return_counts=True)
    numbers, counts = numbers.to(x.device), counts.to(x)
    means = x.new_zeros(len(ids), width).index_add_(0, numbers, x) / counts[:, None]
    centre = x.mean(0)
    residuals = x - means[numbers]
    values = torch.linalg.eigvalsh(residuals.T @ residuals / n).clamp_min(0)
    roots = (counts / n).sqrt()
    strengths = torch.linalg.svdvals(roots[:, None] * (means - centre))

    def draw(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(x.device)

    rank = min(len(ids) - 1, width)
    shares = draw(len(ids), rank)
    shares = torch.linalg.qr(shares - roots[:, None] * (roots @ shares))[0]  # means at their shares stay centred
    directions = torch.linalg.qr(draw(width, width))[0]
    across = torch.linalg.qr(draw(width, rank))[0]
    moved = centre + (shares * strengths[:rank]) @ across.T / roots[:, None]
    copy: Tensor = moved[numbers] + (draw(n, width) * values.sqrt()) @ directions.T
    return copy
