"""The result of a screen: one row for each backbone, ranked by one of the scores, with what it costs beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.screening.standings import Standings
from lightning_transfer.screening.storage import decode, encode
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.files import safe_name, write_atomically
from lightning_transfer.utilities.text import csv_cell, whole_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from lightning_transfer.screening.comparing import Comparison


class Leaderboard(Standings):
    """Backbones ranked by a transferability score.

    Args:
        rows: The backbones, in any order; names are unique.
        rank_by: The column that ranks. ``None``: ``"leep"`` where every backbone with scores has it (all have source
            heads) and no layers are compared, else ``"logme"`` where it was computed, else the first score.
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
            record["status"] = row.status
            records.append({whole_text(key): whole_text(value) for key, value in record.items()})
        whole = ("rank", "parameters", "parameters_rank", "flops", "feature_dim")
        table = pd.DataFrame.from_records(records)
        return table.astype({name: "Int64" for name in whole if name in table})

    def headline(self) -> list[str]:
        """What the table says, in sentences.

        Returns:
            First what to fine-tune and which others are not ruled out, or why that cannot be said; then what speaks
            against trusting it: a control wins, scores disagree, too few samples, near-duplicates, collapsed features,
            the largest one would have been as good a guess.
        """
        from lightning_transfer.screening.headline import headline

        return headline(self)

    @property
    def is_drawable(self) -> bool:
        """Whether some backbone has the score that ranks and a number of parameters: what :meth:`plot` draws."""
        return any(math.isfinite(row.score(self.rank_by)) and row.parameters for row in self.rows)

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

    def to_html(self, path: str | Path | None = None) -> str:
        """The whole report as one HTML file that needs no network: table to sort and filter, charts, how to repeat it.

        Args:
            path: Where to write it too.

        Returns:
            An HTML document; names and messages in it are escaped.
        """
        from lightning_transfer.report.html import leaderboard_html

        document = leaderboard_html(self)
        if path is not None:
            write_atomically(check_path(path, "path"), document.encode())
        return document

    def to_markdown(self) -> str:
        """The table for a README or an issue, best backbone first.

        Example:
            >>> from lightning_transfer.screening import Leaderboard, Row
            >>> print(Leaderboard([Row("a", {"logme": 0.5}, parameters=10), Row("b", {"logme": 0.25})]).to_markdown())
            | # | Backbone | LogME | Params |
            |--:|:---|--:|--:|
            | 1 | a | **0.500** | 10 |
            | 2 | b | 0.250 | - |
        """
        from lightning_transfer.report.tables import markdown

        return markdown(self)

    def to_latex(self) -> str:
        """The table for a paper: a ``tabular`` with the rules of the package ``booktabs``."""
        from lightning_transfer.report.tables import latex

        return latex(self)

    def to_model_card(self, backbone: str | None = None) -> str:
        """A section for the model card of what was chosen: on what evidence, how sure, and how to repeat it.

        Args:
            backbone: What was chosen; the first by default.

        Returns:
            Markdown.

        Raises:
            ValueError: If it is not on the leaderboard, or has no score.
        """
        from lightning_transfer.report.tables import model_card

        return model_card(self, backbone)

    def compare(self, other: Standings, column: str | None = None) -> Comparison:
        """Set this leaderboard beside another one of the same backbones: other data, samples, weights or versions.

        Args:
            other: Another leaderboard.
            column: The score to compare; by default the one that ranks here.

        Returns:
            Scores and ranks on both, which differences are larger than their errors, and how far the orders agree;
            ``print`` shows it.

        Raises:
            ValueError: If one lacks the score, or they have no backbone in common.

        Example:
            >>> from lightning_transfer.screening import Leaderboard, Row
            >>> before = Leaderboard([Row("a", {"logme": 0.5}), Row("b", {"logme": 0.4})])
            >>> after = Leaderboard([Row("a", {"logme": 0.3}), Row("b", {"logme": 0.4})])
            >>> [row.ranks for row in before.compare(after).rows]
            [(1, 2), (2, 1)]
        """
        from lightning_transfer.screening.comparing import Comparison

        return Comparison.of(self, other, column)

    def save(self, folder: str | Path, *, figure: bool = True, name: str = "leaderboard") -> dict[str, Path]:
        """Write ``leaderboard.csv``, ``leaderboard.json``, ``leaderboard.html`` and ``leaderboard.png`` into a folder.

        Each file is replaced as a whole: whoever reads it sees the old or the new one, never half of one.

        Args:
            folder: Made if it is not there.
            figure: Whether to draw the figure and write the HTML report too.
            name: Of the files, without their endings.

        Returns:
            The paths by kind: ``csv``, ``json``, with ``figure`` ``html``, and ``png`` with matplotlib
            and something to draw.
        """
        table = self.to_pandas().rename(columns=csv_cell).map(csv_cell)
        contents = {"json": self._encode(), "csv": table.to_csv(index=False).encode()}
        if figure:
            contents["html"] = self.to_html().encode()
        if figure and self.is_drawable and find_spec("matplotlib") is not None:
            from lightning_transfer.utilities.figures import png_bytes

            contents["png"] = png_bytes(self.plot())
        paths = {kind: Path(folder) / f"{safe_name(name)}.{kind}" for kind in contents}
        for kind, path in paths.items():
            write_atomically(path, contents[kind])
        return paths

    def _encode(self) -> bytes:
        return encode(
            self.rows,
            rank_by=self.rank_by,
            ranks_by_default=self.ranks_by_default,
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
            raise FileNotFoundError(f"There is no leaderboard `{file}`: give the folder that a screen wrote to.")
        try:
            data = decode(file.read_bytes())
            by_default = data.pop("ranks_by_default")
            board = cls(**data)
            board.ranks_by_default = by_default
            return board
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
        from lightning_transfer.report.html import notebook_html

        return notebook_html(self)
