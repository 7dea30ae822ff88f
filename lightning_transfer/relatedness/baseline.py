"""What a reference says beyond its ease: copies of it that lie turned at random, and are the same in all else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LEVEL = 0.95
_NOTHING = 1e-4  # nats, of which a difference may be owed to where a solver stopped


@dataclass(frozen=True)
class Baseline:
    """The bound under maps that can only turn the target, or none, beside that of random copies of the reference.

    A copy is the reference turned at random about its mean: class sizes, spectra within and between classes, and how
    well its classes are told apart are those of the reference, but class means and axes point elsewhere. What it
    reaches is owed to the ease of the reference and of the target, what the reference is better by to its lying in the
    same directions of the backbone's features. Maps are fitted from where the features lie, and are the nearest to no
    map where classes leave them open: a reference that an unknown turn of all features would make related counts as
    unrelated, and one with as many classes as dimensions, whose copies can be turned back, as undecided. With few
    classes a turn brings the class means of any copy to those of the target, too, and there is little to decide;
    without a map (``baseline_map="identity"``) the bounds are near those of guessing, but copies tell more.

    Attributes:
        bound: Bound under an orthogonal map, or without a map.
        copies: Bounds of the copies likewise, one a seed.
        feature_map: ``"orthogonal"`` or ``"identity"``.

    Example:
        >>> from lightning_transfer.relatedness.baseline import Baseline
        >>> print(Baseline(1.5, (2.0, 1.9, 2.1, 2.0, 2.0)))
        1.5000 under a turning map, -0.5000 against 5 random copies of the reference (spread 0.0707)
        >>> Baseline(1.9, (2.0, 1.9, 2.1, 2.0, 2.0)).decided
        False
    """

    bound: float
    copies: tuple[float, ...]
    feature_map: str = "orthogonal"

    @staticmethod
    def of(values: Mapping[str, Any]) -> Baseline:
        """Rebuild a baseline from its fields as plain values."""
        copies = tuple(map(float, values["copies"]))
        return Baseline(float(values["bound"]), copies, values.get("feature_map", "orthogonal"))

    @property
    def way(self) -> str:
        """The map, in words."""
        return "without a map" if self.feature_map == "identity" else "under a turning map"

    @property
    def difference(self) -> float:
        """Bound minus the mean of the copies' bounds, in nats; below zero for a related reference."""
        return self.bound - math.fsum(self.copies) / len(self.copies)

    @property
    def spread(self) -> float:
        """Standard deviation over the copies, in nats; zero for a single one."""
        mean = math.fsum(self.copies) / len(self.copies)
        return math.sqrt(math.fsum((each - mean) ** 2 for each in self.copies) / max(len(self.copies) - 1, 1))

    @property
    def margin(self) -> float:
        """What a further copy differs by from the mean of these in one case of twenty; infinite for a single one.

        From Student's distribution: 3.04 spreads for five copies, 4.97 for three.
        """
        from scipy.stats import t

        count = len(self.copies)
        if count < 2:
            return math.inf
        return float(t.ppf((1 + _LEVEL) / 2, count - 1)) * math.sqrt(1 + 1 / count) * self.spread

    @property
    def decided(self) -> bool:
        """Whether the reference differs from its copies by more than these do, see :attr:`margin`, and by 1e-4 nats."""
        return abs(self.difference) > max(self.margin, _NOTHING)

    def remark(self, guessing: float) -> str:
        """What to say behind the figures where the bound in question says no more than guessing costs.

        Args:
            guessing: Entropy of the target prior, in nats.

        Returns:
            Words, or nothing.
        """
        return f"; the bound {self.way} is vacuous" if self.bound >= guessing else ""

    def __str__(self) -> str:
        verdict = "" if self.decided else ", not decided"
        return (
            f"{self.bound:.4f} {self.way}, {self.difference:+.4f} against {len(self.copies)} random copies of "
            f"the reference (spread {self.spread:.4f}{verdict})"
        )


def random_turn(centre: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A random rotation or reflection about a point, every one as likely.

    Args:
        centre: What stays where it is, shape ``(d,)``, float64.
        seed: Seed of the turn.

    Returns:
        Orthogonal matrix of shape ``(d, d)``, and offset of shape ``(d,)``, float64.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.baseline import random_turn
        >>> centre = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> matrix, offset = random_turn(centre, seed=0)
        >>> torch.allclose(centre @ matrix.T + offset, centre)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(len(centre), len(centre), generator=generator, dtype=torch.float64)
    matrix, triangle = torch.linalg.qr(draw)
    matrix = (matrix * triangle.diagonal().sign()).to(centre.device)
    return matrix, centre - matrix @ centre
