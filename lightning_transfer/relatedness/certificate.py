"""The bound as numbers: what it is made of, what it bounds, and how far rounding may have moved either."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

VACUOUS = "the bound is vacuous: guessing by the class shares costs no more"


@dataclass(frozen=True)
class Certificate:
    """The bound and its parts on one pair of samples; losses are in nats.

    The bound is rounded outward: :attr:`rounding` is an upper bound of the errors of floating point that it and the
    loss carry, so the bound is not below the loss, in whatever order and on whatever machine that is summed.

    Attributes:
        reweighted_reference_loss: Loss of the head on the reference under the class prior: the first term.
        label_mismatch: Cost of the label map, the conditional entropy ``H(Y''|Y')`` where ``B = M / D``: the second.
        distribution_mismatch: Transport cost between the transformed tasks: the third.
        transformed_reference_loss: Loss of ``B h`` on the transformed reference; at most the first two terms.
        target_loss: Loss of the transformed classifier on the target sample: what is bounded.
        target_accuracy: Its accuracy.
        num_reference: Reference samples of the classes in use.
        num_target: Target samples.
        guessing: Entropy of the target prior, the loss of a classifier that guesses by it.
        rounding: What rounding may amount to, part of the bound.
        optimal: Whether every transport problem was solved to optimality; else the bound is valid, but not smallest.
        of_losses: Whether the mismatch is the rise of the loss above the first two terms (ground cost ``"loss"``), not
            above the loss of ``B h``: there is no tighter form then.

    Example:
        >>> from lightning_transfer.relatedness import Certificate
        >>> certificate = Certificate(0.5, 0.0, 0.25, 0.5, 0.6, 0.9, 100, 80, guessing=0.7)
        >>> round(certificate.bound, 6), certificate.vacuous
        (0.75, True)
    """

    reweighted_reference_loss: float
    label_mismatch: float
    distribution_mismatch: float
    transformed_reference_loss: float
    target_loss: float
    target_accuracy: float
    num_reference: int
    num_target: int
    guessing: float = math.inf
    rounding: float = 0.0
    optimal: bool = True
    of_losses: bool = False

    @property
    def bound(self) -> float:
        """Sum of the three terms (Theorem 3 of the paper), rounded outward."""
        return self.reweighted_reference_loss + self.label_mismatch + self.distribution_mismatch + self.rounding

    @property
    def tighter_bound(self) -> float:
        """Transformed reference loss plus distribution mismatch (Theorem 2), rounded outward; at most :attr:`bound`."""
        if self.of_losses:
            return self.bound
        return min(self.bound, self.transformed_reference_loss + self.distribution_mismatch + self.rounding)

    @property
    def vacuous(self) -> bool:
        """Whether the bound says no more than guessing by the target prior would reach."""
        return self.bound >= self.guessing

    @staticmethod
    def mean(parts: Sequence[Certificate]) -> Certificate:
        """Mean over parts of the target, each with a classifier of its own, weighted by their target samples."""
        total = sum(part.num_target for part in parts)

        def average(name: str) -> float:
            return math.fsum(getattr(part, name) * (part.num_target / total) for part in parts)

        values: dict[str, Any] = {
            part.name: average(part.name) for part in fields(Certificate) if part.type == "float"
        }  # fmt: skip
        values["rounding"] += 8 * math.ulp(math.fsum(abs(value) for value in values.values()))
        return Certificate(
            **values,
            num_reference=sum(part.num_reference for part in parts),
            num_target=total,
            optimal=all(part.optimal for part in parts),
            of_losses=any(part.of_losses for part in parts),
        )

    def to_dict(self) -> dict[str, float]:
        """Return plain values, the bounds included."""
        bounds = {"bound": self.bound, "tighter_bound": self.tighter_bound, "vacuous": self.vacuous}
        return {**bounds, **asdict(self)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Certificate:
        """Rebuild a certificate from :meth:`to_dict`; what is derived is derived again.

        Raises:
            TypeError: If a value is missing.
        """
        return Certificate(**{part.name: values[part.name] for part in fields(Certificate) if part.name in values})
