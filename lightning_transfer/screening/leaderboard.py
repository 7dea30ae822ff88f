"""The result of a screen: one row a backbone, ranked by one of the scores, with what it costs beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from lightning_transfer.screening.row import COSTS, Row
from lightning_transfer.screening.storage import decode, encode
from lightning_transfer.utilities.checks import check_in_interval
from lightning_transfer.utilities.files import safe_name, write_atomically
from lightning_transfer.utilities.text import csv_cell

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

LOWER_IS_BETTER = frozenset({"task_relatedness"})
_DEFAULT_RANK_BY = "logme"


class Leaderboard:
    """Backbones ranked by a transferability score.

    Args:
        rows: The backbones, in any order; names are unique.
        rank_by: The column that ranks. ``None``: ``"logme"`` where it was computed, else the first score.
        lower_is_better: Columns where the smallest value wins, beside ``task_relatedness``.
        info: What was screened (``target``, ``split``, ``num_samples``, ``num_classes``, ...): plain JSON values.
        settings: What else the scores depend on, by which ``screen(resume=...)`` knows its own: plain JSON values.

    Attributes:
        columns: Names of the scores.
        costs: Names of what a backbone costs.

    Raises:
        ValueError: If names repeat, or ``rank_by`` is no column.

    Example:
        >>> from lightning_transfer.screening import Leaderboard, Row
        >>> board = Leaderboard([
        ...     Row("small", {"logme": 0.4}, {"logme": 0.1}, parameters=10),
        ...     Row("large", {"logme": 0.5}, {"logme": 0.1}, parameters=90),
        ...     Row("broken", status="ValueError: no such layer"),
        ... ])
        >>> board.best, [row.backbone for row in board.ranked()]
        ('large', ['large', 'small', 'broken'])
        >>> round(board.prob_better("large", "small"), 3)
        0.76
        >>> board.undecided()
        [('large', 'small')]
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
        names = [row.backbone for row in self.rows]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"Expected argument `rows` to name each backbone once, but got {twice!r} twice.")
        self.lower_is_better = LOWER_IS_BETTER | set(lower_is_better)
        self.info: dict[str, Any] = dict(info or {})
        self.settings: dict[str, Any] = dict(settings or {})
        self.columns = tuple(dict.fromkeys(column for row in self.rows for column in row.scores))
        if rank_by is None:
            rank_by = self.columns[0] if self.columns and _DEFAULT_RANK_BY not in self.columns else _DEFAULT_RANK_BY
        self.rank_by = rank_by

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
            reason = f"{self.rows[0].backbone}: {self.rows[0].status}" if self.rows else "it has no rows"
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
        spread = math.hypot(first.standard_error(column), second.standard_error(column))
        if not self.higher_is_better(column):
            lead = -lead
        if math.isnan(lead) or math.isnan(spread):
            return math.nan
        if spread == 0:
            return 0.5 if lead == 0 else float(lead > 0)
        return NormalDist().cdf(lead / spread)

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

    def to_pandas(self) -> pd.DataFrame:
        """The table, best backbone first.

        Returns:
            Columns ``rank``, ``backbone``, each score (followed by ``<score>_se`` where standard errors are known),
            ``parameters``, ``parameters_rank`` (the static baseline), ``flops``, ``feature_dim``,
            ``images_per_second``, ``seconds``, ``status``.
        """
        import pandas as pd

        ranks, size_ranks = self.ranks(), self.size_ranks()
        records = []
        for row in self.ranked():
            record: dict[str, Any] = {"rank": ranks[row.backbone], "backbone": row.backbone}
            for column in self.columns:
                record[column] = row.score(column)
                if self.has_errors(column):
                    record[f"{column}_se"] = row.standard_error(column)
            for cost in self.costs:
                record[cost] = getattr(row, cost)
                if cost == "parameters":
                    record["parameters_rank"] = size_ranks[row.backbone]
            records.append(record | {"status": row.status})
        whole = ("rank", "parameters", "parameters_rank", "flops", "feature_dim")
        table = pd.DataFrame.from_records(records)
        return table.astype({name: "Int64" for name in whole if name in table})

    def has_errors(self, column: str) -> bool:
        """Whether some backbone has a standard error in a column."""
        return any(column in row.standard_errors for row in self.rows)

    def plot(self, *, cost: str = "parameters", columns: Sequence[str] | None = None) -> Figure:
        """Draw each score, with error bars where known, against what the backbone costs.

        Args:
            cost: ``"parameters"``, ``"flops"``, ``"feature_dim"``, ``"images_per_second"`` or ``"seconds"``.
            columns: The scores to draw; all by default, the one that ranks first.

        Returns:
            A matplotlib figure that belongs to no window; ``figure.savefig(path)`` writes it.

        Raises:
            ValueError: If a name is unknown or there is nothing to draw.
        """
        from lightning_transfer.report.figures import draw_leaderboard

        return draw_leaderboard(self, cost=cost, columns=columns)

    def save(self, folder: str | Path, *, figure: bool = True, name: str = "leaderboard") -> dict[str, Path]:
        """Write ``leaderboard.csv``, ``leaderboard.json``, ``leaderboard.html`` and ``leaderboard.png`` into a folder.

        Each file is replaced as a whole: whoever reads it sees the old or the new one, never half of one.

        Args:
            folder: Made if it is not there.
            figure: Whether to draw the figure (and the HTML report around it) too.
            name: Of the files, without their endings.

        Returns:
            The paths by kind: ``csv``, ``json``, and ``png`` and ``html`` if there was something to draw.
        """
        table = self.to_pandas().rename(columns=csv_cell).map(csv_cell)
        contents = {"csv": table.to_csv(index=False).encode(), "json": self._encode()}
        if figure and any(_is_drawable(row, self.rank_by) for row in self.rows):
            from lightning_transfer.report.figures import png_bytes
            from lightning_transfer.report.html import leaderboard_html

            contents["png"] = png_bytes(self.plot())
            contents["html"] = leaderboard_html(self, contents["png"]).encode()
        paths = {kind: Path(folder) / f"{safe_name(name)}.{kind}" for kind in contents}
        for kind, path in paths.items():
            write_atomically(path, contents[kind])
        return paths

    def _encode(self) -> bytes:
        return encode(
            self.rows,
            rank_by=self.rank_by,
            lower_is_better=self.lower_is_better,
            info=self.info,
            settings=self.settings,
        )

    @classmethod
    def load(cls, path: str | Path) -> Leaderboard:
        """Read a leaderboard that ``save`` wrote.

        Args:
            path: The folder or the JSON file. Nothing in it is executed.

        Raises:
            ValueError: If it is no leaderboard.
            FileNotFoundError: If there is no such file.
        """
        path = Path(path)
        file = path / "leaderboard.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"There is no leaderboard `{file}`.")
        try:
            return cls(**decode(file.read_bytes()))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Expected `{file}` to be a leaderboard, but got: {error}") from error

    def __rich__(self) -> RenderableType:
        from lightning_transfer.report.console import leaderboard_table

        return leaderboard_table(self)

    def __str__(self) -> str:
        from lightning_transfer.report.console import as_text

        return as_text(self)

    def __repr__(self) -> str:
        return f"Leaderboard({len(self)} backbones, rank_by={self.rank_by!r})"

    def _repr_html_(self) -> str:
        from lightning_transfer.report.html import table_html

        return table_html(self)


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _finite(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _is_drawable(row: Row, column: str) -> bool:
    return math.isfinite(row.score(column)) and bool(row.parameters)


def _ranks(values: Mapping[str, float], higher_is_better: bool) -> dict[str, int | None]:
    sign = -1 if higher_is_better else 1
    ordered = sorted(sign * value for value in values.values() if not math.isnan(value))
    return {name: None if math.isnan(value) else 1 + ordered.index(sign * value) for name, value in values.items()}
