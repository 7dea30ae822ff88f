"""The leaderboard in a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lightning_transfer.report.text import (
    against_copies,
    baseline_of,
    column_texts,
    cost_text,
    costs_of,
    error_text,
    is_vacuous,
    sentences,
    short_names,
    size_places,
    title,
    undecided_places,
)
from lightning_transfer.utilities.scores import equal_scores
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from lightning_transfer.screening.row import Row
    from lightning_transfer.screening.standings import Standings

_BAR_CELLS = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SHOWN_COSTS = ("parameters", "flops", "images_per_second", "seconds")
_NARROWEST_NAME = 27  # characters below which names are left whole
_GAP = 2  # what the table's box adds to each column


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: tuple[Text, ...]
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        return max(cell_len(self.heading), *(cell.cell_len for cell in self.cells)) + _GAP


@dataclass(frozen=True)
class LeaderboardView:
    """A rich renderable that lays a leaderboard out for the width at hand: columns that do not fit go to a table below.

    Args:
        board: What to show.
    """

    board: Standings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if not len(self.board):
            yield Text("An empty leaderboard.")
            return
        rows = self.board.ranked()
        names = short_names([plain(row.backbone) for row in rows], max(_NARROWEST_NAME, options.max_width // 3))
        cells = tuple(_name_cell(row, names[plain(row.backbone)]) for row in rows)
        keys = [_rank_column(self.board, rows), _Column("Backbone", cells, "left")]
        for block in self._blocks(rows, options.max_width - sum(column.width for column in keys), options.ascii_only):
            table = Table(
                box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 1, 0, 0)
            )
            for column in (*keys, *block):
                table.add_column(Text(column.heading), justify=column.justify, no_wrap=column.justify == "right")
            for cells in zip(*(column.cells for column in (*keys, *block)), strict=True):
                table.add_row(*cells)
            yield Padding(table, (1, 0, 0, 0))
        yield Text()
        for number, line in enumerate(self.board.headline()):
            yield Text(plain(line), style="" if number else "bold")
        yield Text()
        for line in sentences(self.board):
            yield Text(plain(line), style="dim")

    def _blocks(self, rows: list[Row], room: int, ascii_only: bool) -> Iterator[list[_Column]]:
        board = self.board
        scores = [_score_column(board, rows, name) for name in board.columns if name != board.rank_by]
        first = []
        if board.rank_by in board.columns:
            first = [_score_column(board, rows, board.rank_by), _bar_column(board, rows, ascii_only)]
        costs = [_cost_column(board, rows, name) for name in _SHOWN_COSTS if name in costs_of(board)]
        spare = room - sum(column.width for column in (*first, *costs))
        if spare < 0:
            yield from _pack([*first, *scores], room)
            yield from _pack(costs, room)
            return
        fitting = next(_pack(scores, spare), [])  # between the score that ranks and what it costs
        if sum(column.width for column in fitting) > spare:
            fitting = []
        yield [*first, *fitting, *costs]
        yield from _pack(scores[len(fitting) :], room)


def _pack(columns: list[_Column], room: int) -> Iterator[list[_Column]]:
    """Split columns into runs that fit; a run holds at least one."""
    run: list[_Column] = []
    for column in columns:
        if run and sum(other.width for other in (*run, column)) > room:
            yield run
            run = []
        run.append(column)
    if run:
        yield run


def leaderboard_table(board: Standings) -> RenderableType:
    """What a terminal shows of a leaderboard.

    Args:
        board: The result of a screen.

    Returns:
        A rich renderable: rank, backbone, scores (best one highlighted, with its standard error where known), a bar
        from the worst to the best score that ranks, the costs, what it says in sentences, and how to
        read it.
    """
    return Group(LeaderboardView(board))


def one_line(board: Standings) -> str:
    """What there is to say of a leaderboard of a single row: its scores, or why there are none.

    Args:
        board: The result of a screen.
    """
    (row,) = board.rows
    about = f" on {board.info['target']}" if board.info.get("target") else ""
    scores = []
    for name in board.columns:
        ((text, _),) = column_texts(board, name)
        scores.append(f"{title(name)} {text}{error_text(text, row.standard_error(name))}")
    return plain(f"{row.backbone}{about}: {row.status if row.failed else ', '.join(scores)}")


def bounds_table(results: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Several task-relatedness bounds, the best first: which reference, or which backbone, to choose.

    References are in the order of how far they are better than random copies of themselves, backbones in that of their
    bounds.

    Args:
        results: Contents of ``relatedness.json`` files.

    Returns:
        A rich renderable.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for name in ("#", "Reference", "Target", "Backbone"):
        table.add_column(name, justify="right" if name == "#" else "left")
    figures = ("bound", "reweighted_reference_loss", "label_mismatch", "distribution_mismatch", "target_loss")
    for name in (*figures, "target_accuracy"):
        table.add_column(title(name), justify="right")
    baselines = [baseline_of(result) for result in results]
    pairs = list(zip(results, baselines, strict=True))
    related = None not in baselines and len({str(result["reference"]) for result in results}) > 1
    if any(baselines):
        table.add_column("Against copies", justify="right")
    pairs.sort(key=lambda pair: pair[1].difference if related and pair[1] else float(pair[0]["bound"]))
    for rank, (result, baseline) in enumerate(pairs, start=1):
        names = [Text(plain(result[name])) for name in ("reference", "target", "backbone")]
        cells = [Text(f"{float(result[name]):.4f}") for name in (*figures, "target_accuracy")]
        if is_vacuous(result["bound"], result):
            cells[0].append(" vacuous", style="dim")
        if baseline is not None:
            cells.append(Text(against_copies(result)))
        cells[-1 if related else 0].stylize("bold green" if rank == 1 else "")
        table.add_row(str(rank), *names, *cells)
    words = "\nBounds of the loss on the target in nats: lower is better; vacuous from what guessing costs on."
    if any(baselines):
        words += (
            " Against copies: the bound under turning maps (baseline_map: or none) minus that of random copies of the "
            "reference, with their spread; ? where that is not decided, vacuous where that bound is."
        )
    return Group(Text(), table, Text(words, style="dim"))


def as_text(board: Standings, width: int = 120) -> str:
    """The same without colours, for logs and files.

    Args:
        board: The result of a screen.
        width: Characters a line.
    """
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(leaderboard_table(board))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")


def _rank_column(board: Standings, rows: list[Row]) -> _Column:
    ranks = board.ranks()
    tied = undecided_places(board)
    cells = [f"{'≈' if row.backbone in tied else ''}{ranks[row.backbone] or ''}" for row in rows]
    return _Column("#", tuple(Text(cell, style="bold") for cell in cells))


def _name_cell(row: Row, name: str) -> Text:
    return Text(f"{name} ✗", style="red") if row.failed else Text(name)


def _score_column(board: Standings, rows: list[Row], name: str) -> _Column:
    cells = []
    for row, (text, best) in zip(rows, column_texts(board, name), strict=True):
        cell = Text(text, style="bold green" if best else "")
        cells.append(cell.append(error_text(text, row.standard_error(name)), style="dim"))
    return _Column(title(name), tuple(cells))


def _bar_column(board: Standings, rows: list[Row], ascii_only: bool) -> _Column:
    values = [row.score(board.rank_by) for row in rows]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if not board.higher_is_better(board.rank_by):
        low, high = high, low
    cells = []
    for value in values:
        share = 0.0 if not math.isfinite(value) else 1.0 if equal_scores(low, high) else (value - low) / (high - low)
        eighths = max(round(share * 8 * _BAR_CELLS), 1 if math.isfinite(value) else 0)
        bar = "#" * math.ceil(eighths / 8) if ascii_only else "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
        cells.append(Text(bar.ljust(_BAR_CELLS), style="cyan"))
    return _Column("", tuple(cells), "left")


def _cost_column(board: Standings, rows: list[Row], name: str) -> _Column:
    cells = [cost_text(name, getattr(row, name)) for row in rows]
    heading = title(name)
    if name == "parameters":
        ranks = size_places(board)
        cells = [_with_rank(cell, ranks[row.backbone]) for row, cell in zip(rows, cells, strict=True)]
        heading += " (rank)" if any(ranks.values()) else ""
    return _Column(heading, tuple(Text(cell) for cell in cells))


def _with_rank(text: str, rank: int | None) -> str:
    return text if rank is None else f"{text} ({rank})"
