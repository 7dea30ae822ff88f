"""The leaderboard as text for other documents: Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lightning_transfer.report.text import (
    column_texts,
    cost_text,
    costs_of,
    error_text,
    listed,
    title,
    undecided_places,
)
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.text import html_text, plain

if TYPE_CHECKING:
    from lightning_transfer.screening.row import Row
    from lightning_transfer.screening.standings import Standings

_MARKS = re.compile(r"([\\`*_{}\[\]|~])")
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "≈": r"$\approx$", "±": r"$\pm$",
    "…": r"\ldots{}", "²": r"$^2$", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def markdown(board: Standings) -> str:
    """A pipe table; best values are bold, controls and failures are said.

    Args:
        board: The result of a screen.
    """
    heads, rows = _grid(board)
    rule = "".join("|:---" if head in ("Backbone", "Status") else "|--:" for head in heads) + "|"
    lines = [_pipe([_mark_down(head) for head in heads]), rule]
    lines += [_pipe([f"**{_mark_down(text)}**" if best else _mark_down(text) for text, best in row]) for row in rows]
    return "\n".join(lines)


def latex(board: Standings) -> str:
    """A ``tabular`` with booktabs' rules; best values are bold.

    Args:
        board: The result of a screen.
    """
    heads, rows = _grid(board)
    kinds = "".join("l" if head in ("Backbone", "Status") else "r" for head in heads)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", _ampersands(map(latex_text, heads)), r"\midrule"]
    lines += [_ampersands(rf"\textbf{{{latex_text(t)}}}" if best else latex_text(t) for t, best in row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def latex_text(text: object) -> str:
    r"""Plain text as LaTeX sets it, whatever signs are in it.

    Example:
        >>> from lightning_transfer.report.tables import latex_text
        >>> latex_text("50% of {a_b}")
        '50\\% of \\{a\\_b\\}'
    """
    return "".join(_LATEX.get(sign, sign) for sign in plain(text))


def model_card(board: Standings, backbone: str | None = None) -> str:
    """A section of a model card.

    Args:
        board: The result of a screen.
        backbone: What was chosen; the first by default.

    Raises:
        ValueError: If it is not on the leaderboard, or has no score.
    """
    name = board.best if backbone is None else backbone
    check_one_of(name, tuple(row.backbone for row in board.rows), "backbone")
    row, ranks = board[name], board.ranks()
    if ranks[name] is None:
        raise ValueError(f"Expected argument `backbone` to have a score that ranks, but got {name!r} ({row.status}).")
    ranked = [r for r in board.rows if ranks[r.backbone] is not None]
    controls = sum(r.control for r in ranked)
    zoo = f"{len(ranked)} backbones ({controls} with random weights)" if controls else f"{len(ranked)} backbones"
    open_to = [r.backbone for r in board.ranked() if r is not row and 0.05 < board.prob_better(name, r.backbone) < 0.95]
    scores = [
        (column, dict(zip(map(_name, board.ranked()), column_texts(board, column), strict=True)))
        for column in board.columns
    ]
    listing = "\n".join(
        f"- {_mark_down(title(column))}: {texts[name][0]}{error_text(texts[name][0], row.standard_error(column))}"
        f"{'' if board.higher_is_better(column) else ' (lower is better)'}"
        for column, texts in scores
    )
    info = board.info
    data = ", ".join(
        f"{info[key]} {unit}" for key, unit in (("num_samples", "samples"), ("num_classes", "classes")) if info.get(key)
    )
    about = f" on {_mark_down(str(info['target']))}" if info.get("target") else ""
    lines = [
        "## Choice of the backbone",
        "",
        f"`{plain(name).replace('`', '')}` ranks {ranks[name]} of {zoo} by "
        f"{_mark_down(title(board.rank_by))}{about}{f' ({_mark_down(data)})' if data else ''}, before any fine-tuning.",
        f"Not told apart from it by this sample (95 %): {_mark_down(listed(open_to))}." if open_to else "",
        "",
        listing,
        "",
        *(f"- {_mark_down(line)}" for line in board.headline()),
    ]
    if isinstance(versions := info.get("versions"), Mapping):
        lines += [
            "",
            _mark_down("Computed with " + ", ".join(f"{each} {number}" for each, number in versions.items()) + "."),
        ]
    return "\n".join(lines) + "\n"


def _name(row: Row) -> str:
    return row.backbone


def _grid(board: Standings) -> tuple[list[str], list[list[tuple[str, bool]]]]:
    """Headings, and rows of texts with whether each is the best of its column."""
    scores = sorted(board.columns, key=lambda column: column != board.rank_by)
    costs = costs_of(board)
    failed = any(row.failed for row in board.rows)
    heads = ["#", "Backbone", *map(title, (*scores, *costs)), *(["Status"] if failed else [])]
    columns = {column: column_texts(board, column) for column in scores}
    ranks, tied = board.ranks(), undecided_places(board)
    rows = []
    for position, row in enumerate(board.ranked()):
        place = f"{'≈' if row.backbone in tied else ''}{ranks[row.backbone] or ''}"
        cells = [(place, False), (f"{row.backbone}{' (control)' if row.control else ''}", False)]
        for column in scores:
            text, best = columns[column][position]
            error = row.standard_error(column)
            cells.append((text + (error_text(text, error) if math.isfinite(error) else ""), best))
        cells += [(cost_text(cost, getattr(row, cost)), False) for cost in costs]
        rows.append([*cells, *([(row.status if row.failed else "", False)] if failed else [])])
    return heads, rows


def _mark_down(text: str) -> str:
    return _MARKS.sub(r"\\\1", html_text(text).replace("&#x27;", "'").replace("&quot;", '"'))


def _pipe(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
