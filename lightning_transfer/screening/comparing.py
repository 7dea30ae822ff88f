"""Leaderboards side by side: what changed from one screen to another, and which backbone is best over many targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from lightning_transfer.report.text import MISSING, listed, score_texts, title
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from lightning_transfer.screening.standings import Standings

_LEVEL = 0.95
_SHOWN = 4  # names in a message
_FEWEST_TO_CORRELATE = 3
_ON_ONE_SCALE = ("ridge_probe", "knn_accuracy")  # accuracies: means over backbones compare between targets


@dataclass(frozen=True)
class ComparedRow:
    """A backbone on two leaderboards.

    Attributes:
        backbone: Its name.
        scores: Its scores, first and second.
        ranks: Its ranks among the backbones of both, first and second; None without a score.
        changed: Whether the difference is more than the standard errors allow (95 %); None where they are not known.
        same_weights: Whether the fingerprints agree; None where one is not known.
    """

    backbone: str
    scores: tuple[float, float]
    ranks: tuple[int | None, int | None]
    changed: bool | None
    same_weights: bool | None


@dataclass(frozen=True)
class Comparison:
    """What :meth:`~lightning_transfer.screening.Leaderboard.compare` gives.

    Attributes:
        column: The score that is compared.
        rows: Backbones on both, in the order of the first.
        only_first: Backbones that the second lacks.
        only_second: Backbones that the first lacks.
        kendall: Rank correlation of the two orders; NaN for fewer than three backbones with both scores.
        names: What the two are called where they are shown: their targets where these differ.
    """

    column: str
    rows: tuple[ComparedRow, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    kendall: float
    names: tuple[str, str] = ("first", "second")

    @classmethod
    def of(cls, first: Standings, second: Standings, column: str | None = None) -> Comparison:
        """Compare two leaderboards.

        Raises:
            ValueError: If one lacks the column, or they have no backbone in common.
        """
        if not hasattr(second, "ranked"):
            raise ValueError(f"Expected argument `other` to be a leaderboard, but got {second!r}.")
        column = _common_column([first, second]) if column is None else column
        for board, name in ((first, "column"), (second, "other")):
            if column not in board.columns:
                raise ValueError(f"Expected argument `{name}` to have a score `{column}`, but got {board.columns}.")
        ours, theirs = ({row.backbone: row for row in board.rows} for board in (first, second))
        names = [row.backbone for row in first.ranked(column) if row.backbone in theirs]
        if not names:
            received = f"{listed(list(theirs), _SHOWN)}, not {listed(list(ours), _SHOWN)}"
            raise ValueError(f"Expected argument `other` to hold some of the same backbones, but got {received}.")
        scores = {name: (ours[name].score(column), theirs[name].score(column)) for name in names}
        places = [first.ranks_among({name: pair[side] for name, pair in scores.items()}, column) for side in (0, 1)]
        targets = [board.info.get("target") for board in (first, second)]
        rows = []
        for name in names:
            one, other = ours[name], theirs[name]
            error = math.hypot(one.standard_error(column), other.standard_error(column))
            gap = abs(scores[name][0] - scores[name][1])
            known = one.fingerprint and other.fingerprint
            rows.append(
                ComparedRow(
                    name,
                    scores[name],
                    (places[0][name], places[1][name]),
                    None if math.isnan(gap + error) else gap > NormalDist().inv_cdf((1 + _LEVEL) / 2) * error,
                    one.fingerprint == other.fingerprint if known else None,
                )
            )
        return cls(
            column,
            tuple(rows),
            tuple(name for name in ours if name not in theirs),
            tuple(name for name in theirs if name not in ours),
            _kendall([row.scores[0] for row in rows], [row.scores[1] for row in rows]),
            cls.names if None in targets or targets[0] == targets[1] else (str(targets[0]), str(targets[1])),
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each backbone on both."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "backbone": row.backbone, "first": row.scores[0], "second": row.scores[1],
                    "rank_first": row.ranks[0], "rank_second": row.ranks[1], "changed": row.changed,
                    "same_weights": row.same_weights,
                }
                for row in self.rows
            ]
        )  # fmt: skip

    def __str__(self) -> str:
        firsts, seconds = (score_texts([row.scores[side] for row in self.rows]) for side in (0, 1))
        wide = max(len("Backbone"), *(len(plain(row.backbone)) for row in self.rows))
        first, second = map(plain, self.names)
        left, right = (max(10, len(name)) for name in (first, second))
        lines = [f"{'Backbone':<{wide}}  {first:>{left}}  {second:>{right}}  rank"]
        for row, one, other in zip(self.rows, firsts, seconds, strict=True):
            ranks = " -> ".join(MISSING if rank is None else str(rank) for rank in row.ranks)
            remarks = [" other weights"] if row.same_weights is False else []
            remarks += [" beyond its errors"] if row.changed else []
            lines.append(f"{plain(row.backbone):<{wide}}  {one:>{left}}  {other:>{right}}  {ranks}{''.join(remarks)}")
        agreement = "" if math.isnan(self.kendall) else f"; the orders agree by {self.kendall:.2f} (Kendall)"
        lines.append(f"{title(self.column)}, {len(self.rows)} backbone{'s' * (len(self.rows) != 1)}{agreement}.")
        article = "the " if self.names == Comparison.names else ""
        for names, where in zip((self.only_first, self.only_second), self.names, strict=True):
            if names:
                lines.append(f"Only on {article}{plain(where)}: {plain(listed(names))}.")
        return "\n".join(lines)


@dataclass(frozen=True)
class AcrossTargets:
    """Backbones over several targets.

    Attributes:
        column: The score that ranks.
        targets: Names of the targets.
        backbones: Those that every target has a score of, the best on average first.
        scores: Score by target and backbone.
        ranks: Rank by target and backbone, among these backbones.
        mean_ranks: Mean rank over the targets.
        ease: Mean score of the backbones by target, in the column ``ease_column``.
        ease_column: An accuracy where every target has one, else the score that ranks, whose scale may differ between
            targets.
        agreement: Kendall's correlation of the orders that two targets give the backbones: whether a backbone that
            suits one suits the other. NaN for fewer than three backbones.
    """

    column: str
    targets: tuple[str, ...]
    backbones: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, Mapping[str, int]]
    mean_ranks: Mapping[str, float]
    ease: Mapping[str, float]
    ease_column: str
    agreement: Mapping[tuple[str, str], float]

    @property
    def best(self) -> str:
        """The backbone with the lowest mean rank."""
        return self.backbones[0]

    @property
    def easiest(self) -> str:
        """The target with the best mean score."""
        return next(iter(self.ease))

    def to_pandas(self) -> pd.DataFrame:
        """One row for each backbone: its score on each target, and its mean rank."""
        import pandas as pd

        records = [
            {"backbone": name, **{target: self.scores[target][name] for target in self.targets},
             "mean_rank": self.mean_ranks[name]}
            for name in self.backbones
        ]  # fmt: skip
        return pd.DataFrame(records)

    def lines(self) -> list[str]:
        """What the table says, in sentences."""
        tied = [name for name in self.backbones if self.mean_ranks[name] == self.mean_ranks[self.best]]
        means = ", ".join(f"{target} {value:.3f}" for target, value in self.ease.items())
        caution = "" if self.ease_column in _ON_ONE_SCALE else ", whose scale may differ between targets"
        said = [
            f"Best on average: {listed(tied)}, mean rank {self.mean_ranks[self.best]:.1f} over "
            f"{len(self.targets)} targets by {title(self.column)}.",
            f"Easiest target: {self.easiest} (mean {title(self.ease_column)} of the backbones{caution}: {means}).",
        ]
        known = {pair: tau for pair, tau in self.agreement.items() if not math.isnan(tau)}
        if known:
            (one, other), tau = max(known.items(), key=lambda entry: entry[1])
            said.append(f"Targets that want the same backbones most: {one} and {other} ({tau:.2f}, Kendall).")
        return said

    def __str__(self) -> str:
        columns = {
            target: score_texts([self.scores[target][name] for name in self.backbones]) for target in self.targets
        }
        columns["mean rank"] = [f"{self.mean_ranks[name]:.1f}" for name in self.backbones]
        wide = max(len("Backbone"), *(len(plain(name)) for name in self.backbones))
        widths = {head: max(len(plain(head)), *map(len, texts)) for head, texts in columns.items()}
        rows = [f"{'Backbone':<{wide}}  " + "  ".join(f"{plain(head):>{widths[head]}}" for head in columns)]
        rows += [
            f"{plain(name):<{wide}}  " + "  ".join(f"{texts[i]:>{widths[head]}}" for head, texts in columns.items())
            for i, name in enumerate(self.backbones)
        ]
        return "\n".join([*rows, *map(plain, self.lines())])


def across_targets(boards: Sequence[Standings] | Mapping[str, Standings], column: str | None = None) -> AcrossTargets:
    """Which backbone is best over several targets, which target is easiest, and which want the same backbones.

    Scores of different targets are on scales of their own, so backbones are compared by their ranks.

    Args:
        boards: Leaderboards of the targets; a dict names them, else they are called by ``info["target"]``.
        column: The score; by default the one that ranks the first.

    Raises:
        ValueError: If there are fewer than two, names repeat, one lacks the score, or no backbone has it on all.

    Example:
        >>> from lightning_transfer.screening import Leaderboard, Row, across_targets
        >>> def board(**scores):
        ...     return Leaderboard([Row(name, {"knn_accuracy": score}) for name, score in scores.items()])
        >>> across = across_targets({"digits": board(a=0.9, b=0.8), "letters": board(a=0.5, b=0.4)})
        >>> across.best, across.easiest
        ('a', 'digits')
    """
    given = list(boards.values()) if isinstance(boards, Mapping) else boards
    if not isinstance(given, (list, tuple)) or not all(hasattr(board, "ranked") for board in given):
        raise ValueError(
            'Expected argument `boards` to be leaderboards by target, {"TARGET": board, ...}, or a list of them, but '
            f"got {boards!r:.100}."
        )
    if not isinstance(boards, Mapping):
        names = [str(board.info.get("target", f"target {i}")) for i, board in enumerate(boards)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"Expected argument `boards` to be of different targets, but got {names}; name them in a dict."
            )
        boards = dict(zip(names, boards, strict=True))
    if len(boards) < 2:
        raise ValueError(f"Expected argument `boards` to hold two leaderboards or more, but got {len(boards)}.")
    first = next(iter(boards.values()))
    column = _common_column(list(boards.values())) if column is None else column
    for board in boards.values():
        check_one_of(column, board.columns, "column")
    shared = [
        row.backbone
        for row in first.rows
        if all(math.isfinite(_score(board, row.backbone, column)) for board in boards.values())
    ]
    if not shared:
        raise ValueError(f"Expected argument `boards` to share a backbone with a score `{column}`, but got none.")
    scores = {target: {name: board[name].score(column) for name in shared} for target, board in boards.items()}
    ranks: dict[str, Any] = {target: first.ranks_among(values, column) for target, values in scores.items()}
    means = {name: math.fsum(ranks[target][name] for target in boards) / len(boards) for name in shared}
    ease_column = next(
        (
            name
            for name in _ON_ONE_SCALE
            if all(math.isfinite(_score(board, each, name)) for board in boards.values() for each in shared)
        ),
        column,
    )
    ease = {
        target: math.fsum(board[name].score(ease_column) for name in shared) / len(shared)
        for target, board in boards.items()
    }
    sign = 1 if first.higher_is_better(column) else -1
    targets = tuple(boards)
    return AcrossTargets(
        column,
        targets,
        tuple(sorted(shared, key=lambda name: means[name])),
        scores,
        ranks,
        means,
        dict(sorted(ease.items(), key=lambda item: -item[1] if first.higher_is_better(ease_column) else item[1])),
        ease_column,
        {
            (one, other): _kendall([sign * v for v in scores[one].values()], [sign * v for v in scores[other].values()])
            for i, one in enumerate(targets)
            for other in targets[i + 1 :]
        },
    )


def _score(board: Standings, backbone: str, column: str) -> float:
    return next((row.score(column) for row in board.rows if row.backbone == backbone), math.nan)


def _kendall(first: Sequence[float], second: Sequence[float]) -> float:
    from scipy.stats import kendalltau

    pairs = [pair for pair in zip(first, second, strict=True) if all(map(math.isfinite, pair))]
    if len(pairs) < _FEWEST_TO_CORRELATE or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return math.nan
    return float(kendalltau(*zip(*pairs, strict=True)).statistic)


def _common_column(boards: Sequence[Standings]) -> str:
    """What ranks the first leaderboard where all have it, else LogME or the first score that all have."""
    first = boards[0]
    for column in (first.rank_by, "logme", *first.columns):
        if all(column in board.columns for board in boards):
            return column
    return first.rank_by
