"""One line of a leaderboard: a backbone, its scores, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

_OK = "ok"
COSTS = ("parameters", "flops", "feature_dim", "images_per_second", "seconds")


@dataclass(frozen=True)
class Row:
    """One backbone of a leaderboard.

    Attributes:
        backbone: Its name, unique on the leaderboard.
        scores: Score by column name; NaN (or absent) where a score could not be computed.
        standard_errors: Standard error by column name, where known.
        parameters: Number of parameters.
        flops: Floating point operations of one forward pass of one sample.
        feature_dim: Width of the features.
        images_per_second: Measured speed of the extraction.
        seconds: Time from building the backbone to its last score.
        status: ``"ok"`` or in one line what went wrong.
        remarks: What the scores' health records say, in words.
        parts: Raw parts, by column, of scores that exist only relative to the other backbones.
        fingerprint: Name of the weights and the preprocessing that were screened; empty where not known.
    """

    backbone: str
    scores: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None
    feature_dim: int | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    status: str = _OK
    remarks: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fingerprint: str = ""

    def score(self, column: str) -> float:
        """The score in a column, NaN where there is none."""
        return float(self.scores.get(column, math.nan))

    def standard_error(self, column: str) -> float:
        """The standard error of a score, NaN where it is not known."""
        return float(self.standard_errors.get(column, math.nan))

    @property
    def failed(self) -> bool:
        """Whether the status says that something went wrong."""
        return self.status != _OK
