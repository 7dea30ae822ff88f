"""Rows of a leaderboard in order: ranks, leads and what the sample leaves open."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import NormalDist
from typing import Any, ClassVar

from lightning_transfer.screening.row import COSTS, Row
from lightning_transfer.utilities.checks import check_in_interval, check_one_of
from lightning_transfer.utilities.scores import equal_scores

LOWER_IS_BETTER = frozenset({"task_relatedness"})
_WITH_HEADS, _DEFAULT_RANK_BY = "leep", "logme"  # which of them the study supports where, see docs/which-score.md


class Standings(ABC):
    """What a :class:`~lightning_transfer.screening.Leaderboard` knows of its rows, and reports need.

    Args:
        rows: The backbones, in any order; names are unique.
        rank_by: The column that ranks. ``None``: ``"leep"`` where every backbone with scores has it (all have source
            heads) and no layers are compared, else ``"logme"`` where it was computed, else the first score.
        lower_is_better: Columns where the smallest value wins, beside ``task_relatedness``.
        info: What was screened: plain JSON values.
        settings: What else the scores depend on: plain JSON values.

    Raises:
        ValueError: If names repeat, or ``rank_by`` is no column.
    """

    costs: ClassVar[tuple[str, ...]] = COSTS

    def __init__(
        self,
        rows: Iterable[Row] = (),
        *,
        rank_by: str | None = None,
        lower_is_better: Iterable[str] = (),
        info: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.rows = tuple(rows)
        if strange := [row for row in self.rows if not isinstance(row, Row)]:
            raise ValueError(f"Expected argument `rows` to hold rows of the class Row, but got {strange[0]!r}.")
        names = [row.backbone for row in self.rows]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"Expected argument `rows` to name each backbone once, but got {twice!r} twice.")
        self.lower_is_better = LOWER_IS_BETTER | set(lower_is_better)
        self.info: dict[str, Any] = dict(info or {})
        self.settings: dict[str, Any] = dict(settings or {})
        self.columns = tuple(dict.fromkeys(column for row in self.rows for column in row.scores))
        self.rank_by = self._choose_column() if rank_by is None else rank_by
        self.ranks_by_default = rank_by is None  # and not by a column that somebody named

    @property
    def rank_by(self) -> str:
        """The column that ranks; assign another one to rank by it.

        Raises:
            ValueError: If it is no column.
        """
        return self._rank_by

    @rank_by.setter
    def rank_by(self, column: str) -> None:
        if self.columns and column not in self.columns:
            raise ValueError(f"Expected argument `rank_by` to be one of {self.columns}, but got {column!r}.")
        self._rank_by = column
        self.ranks_by_default = False

    def _choose_column(self) -> str:
        scored = [row for row in self.rows if any(math.isfinite(row.score(column)) for column in self.columns)]
        layered = self.settings.get("layers") is not None or any(
            row.layer for row in self.rows
        )  # of which LEEP sees none
        if scored and not layered and all(math.isfinite(row.score(_WITH_HEADS)) for row in scored):
            return _WITH_HEADS
        return self.columns[0] if self.columns and _DEFAULT_RANK_BY not in self.columns else _DEFAULT_RANK_BY

    def higher_is_better(self, column: str) -> bool:
        """Whether large values of a column are good."""
        return column not in self.lower_is_better

    def ranked(self, column: str | None = None) -> list[Row]:
        """Rows from best to worst by a column (by ``rank_by`` if none is named); those without a value come last."""
        column = column or self.rank_by
        sign = -1 if self.higher_is_better(column) else 1
        return sorted(self.rows, key=lambda row: (_is_missing(row.score(column)), sign * _finite(row.score(column))))

    def ranks(self, column: str | None = None) -> dict[str, int | None]:
        """Rank of each backbone by a column, from 1; equal scores share a rank, no score is no rank."""
        column = column or self.rank_by
        return _ranks({row.backbone: row.score(column) for row in self.rows}, self.higher_is_better(column))

    def ranks_among(self, scores: Mapping[str, float], column: str) -> dict[str, int | None]:
        """Ranks of scores that need not be of this table, in the direction of a column of it.

        Args:
            scores: Scores by name.
            column: The column.
        """
        return _ranks(scores, self.higher_is_better(column))

    def size_ranks(self) -> dict[str, int | None]:
        """Rank of each backbone by the static baseline that any score has to beat: most parameters first."""
        sizes = {row.backbone: math.nan if row.parameters is None else float(row.parameters) for row in self.rows}
        return _ranks(sizes, higher_is_better=True)

    @property
    def best(self) -> str:
        """Name of the backbone that ranks first.

        Raises:
            ValueError: If no backbone has the score that ranks.
        """
        return self._first().backbone

    @property
    def best_score(self) -> float:
        """The score of ``best`` in the column that ranks: the objective of a sweep.

        Raises:
            ValueError: If no backbone has the score that ranks.
        """
        return self._first().score(self.rank_by)

    def _first(self) -> Row:
        ranked = self.ranked()
        if not ranked or _is_missing(ranked[0].score(self.rank_by)):
            reason = f"{self.rows[0].backbone}: {self.rows[0].status.rstrip('.')}" if self.rows else "it has no rows"
            others = f"; {len(self.rows) - 1} more in the table" if len(self.rows) > 1 else ""
            raise ValueError(f"No backbone of this leaderboard has a score in `{self.rank_by}` ({reason}{others}).")
        return ranked[0]

    def __getitem__(self, backbone: str) -> Row:
        for row in self.rows:
            if row.backbone == backbone:
                return row
        raise KeyError(f"{backbone!r} is not on the leaderboard: {[row.backbone for row in self.rows]}")

    def __len__(self) -> int:
        return len(self.rows)

    def prob_better(self, i: str, j: str, column: str | None = None) -> float:
        r"""Probability that backbone ``i`` truly scores better than ``j``, given the standard errors.

        Both scores are taken as normal and independent: with :math:`z = (s_i - s_j) / \sqrt{e_i^2 + e_j^2}`, negated
        where lower is better, it is :math:`\Phi(z)`. The scores come from the same samples, which usually makes their
        errors agree in sign; the true probability then lies further from one half than this one.

        Args:
            i: Name of a backbone.
            j: Name of another.
            column: The score, ``rank_by`` if none is named.

        Returns:
            A number in [0, 1]; NaN if a score or a standard error is missing. Without any error (both zero) it is 0, 1,
            or 0.5 for equal scores.
        """
        column = column or self.rank_by
        first, second = self[i], self[j]
        lead = first.score(column) - second.score(column)
        error = math.hypot(first.standard_error(column), second.standard_error(column))
        if not self.higher_is_better(column):
            lead = -lead
        if math.isnan(lead) or math.isnan(error):
            return math.nan
        if error == 0:
            return 0.5 if lead == 0 else float(lead > 0)
        return NormalDist().cdf(lead / error)

    def undecided(self, level: float = 0.95, column: str | None = None) -> list[tuple[str, str]]:
        """Neighbours on the leaderboard whose order the data do not settle.

        Args:
            level: A pair is settled if the better one is better with at least this probability (``prob_better``).
            column: The score, ``rank_by`` if none is named.

        Returns:
            Pairs of names, better one first. Pairs without standard errors are left out: nothing is known of them.

        Raises:
            ValueError: If ``level`` lies outside [0.5, 1].
        """
        check_in_interval(level, 0.5, 1.0, "level")
        names = [row.backbone for row in self.ranked(column)]
        return [(i, j) for i, j in pairwise(names) if self.prob_better(i, j, column) < level]

    def pareto(self, cost: str = "parameters", column: str | None = None) -> list[str]:
        """Backbones that are worth their price: no other one costs no more and scores as well or better.

        Args:
            cost: One of ``costs``; of ``images_per_second`` more is better, of the others less.
            column: The score, ``rank_by`` if none is named.

        Returns:
            Their names, the cheapest first; those without the score or the cost are left out.

        Raises:
            ValueError: If there is no such cost.
        """
        check_one_of(cost, self.costs, "cost")
        sign = -1.0 if cost == "images_per_second" else 1.0
        best, front = math.nan, []
        rows = [row for row in self.ranked(column) if getattr(row, cost) is not None]
        direction = 1.0 if self.higher_is_better(column or self.rank_by) else -1.0
        for row in sorted(rows, key=lambda row: sign * float(getattr(row, cost))):  # of equal cost the best comes first
            score = direction * row.score(column or self.rank_by)
            if math.isfinite(score) and not (score <= best or equal_scores(score, best)):
                best = score
                front.append(row.backbone)
        return front

    @abstractmethod
    def headline(self) -> list[str]:
        """What the table says, in sentences."""

    def has_errors(self, column: str) -> bool:
        """Whether some backbone has a standard error in a column."""
        return any(column in row.standard_errors for row in self.rows)


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _finite(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _ranks(values: Mapping[str, float], higher_is_better: bool) -> dict[str, int | None]:
    """Places from 1; values that differ by no more than rounding share one."""
    ordered = sorted((value for value in values.values() if not math.isnan(value)), reverse=higher_is_better)
    places: dict[float, int] = {}
    leader = math.nan
    for place, value in enumerate(ordered, start=1):
        if not equal_scores(value, leader):
            leader, shared = value, place
        places.setdefault(value, shared)
    return {name: places.get(value) for name, value in values.items()}
