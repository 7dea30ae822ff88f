"""A study as a figure, and as HTML, Markdown and LaTeX."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_transfer.report.text import MISSING, title
from lightning_transfer.utilities.figures import new_figure, png_bytes
from lightning_transfer.utilities.text import figure_text, html_text, plain

if TYPE_CHECKING:
    import pandas as pd

_PANELS = 4  # scores in the figure
_HEADINGS = {"top1_regret": "Regret", "weighted_kendall": "Weighted Kendall", "spearman_lowest": "Worst without one"}
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def study_files(sentences: Sequence[str], tables: Mapping[str, pd.DataFrame], figure: bytes) -> dict[str, bytes]:
    """The pages of a study.

    Args:
        sentences: What stands on top.
        tables: By heading, from score to statistics with their intervals.
        figure: A PNG.

    Returns:
        Contents by the endings of their files: ``html``, ``md`` and ``tex``.
    """
    grids = {heading: _grid(table) for heading, table in tables.items()}
    markdown = [f"{line}  " for line in map(plain, sentences)]
    latex: list[str] = []
    html = [f"<p>{html_text(line)}</p>" for line in sentences]
    for heading, (head, *body) in grids.items():
        shown = heading.capitalize()
        markdown += ["", f"## {shown}", "", _bar(head), _bar(["---"] * len(head)), *map(_bar, body)]
        latex += [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", rf"\multicolumn{{{len(head)}}}{{l}}{{{shown}}} \\"]
        latex += [" & ".join(map(_tex, cells)) + r" \\" for cells in (head, *body)] + [r"\end{tabular}", ""]
        rows = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in cells)}</tr>\n" for cells in body)
        heads = "".join(f"<th>{html_text(cell)}</th>" for cell in head)
        html.append(f"<h2>{html_text(shown)}</h2>\n<table>\n<tr>{heads}</tr>\n{rows}</table>")
    html.append(f'<img alt="Scores against outcomes" src="data:image/png;base64,{base64.b64encode(figure).decode()}">')
    document = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Study</title><style>\n'
        "body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }\n"
        "td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }\n"
        "td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }\n"
        f"</style></head><body>\n<h1>Which scores foretell fine-tuning?</h1>\n{chr(10).join(html)}\n</body></html>\n"
    )
    return {
        "html": document.encode(),
        "md": ("\n".join(["# Which scores foretell fine-tuning?", "", *markdown]) + "\n").encode(),
        "tex": "\n".join(latex).encode(),
    }


def as_text(table: pd.DataFrame) -> str:
    """A judgement for a terminal.

    Args:
        table: From score to statistics with their intervals.
    """
    grid = _grid(table)
    widths = [max(len(cells[column]) for cells in grid) for column in range(len(grid[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in grid
    )


def figure_bytes(frames: Mapping[str, pd.DataFrame], order: Sequence[str]) -> bytes:
    """Scores against outcomes, one row of panels a target: the best of the scores that half of the targets have.

    Args:
        frames: By target a table with scores and the column ``truth``.
        order: Names of scores, best first.

    Returns:
        A PNG.
    """
    known = Counter(column for frame in frames.values() for column in frame.dropna(axis="columns", how="all"))
    often = max((known[name] for name in order), default=0)
    scores = [name for name in order if known[name] * 2 >= often > 0][:_PANELS]
    figure = new_figure(figsize=(2.6 * len(scores), 2.2 * len(frames)), dpi=120)
    panels: Any = figure.subplots(len(frames), len(scores), squeeze=False)
    for row, (target, frame) in zip(panels, frames.items(), strict=True):
        for axes, score in zip(row, scores, strict=True):
            if score not in frame or not frame[score].notna().any():
                axes.set_axis_off()
                axes.text(0.5, 0.5, f"no {figure_text(title(score))}", ha="center", fontsize=7, color="grey")
                continue
            axes.scatter(frame[score], frame["truth"], s=14, color="#4477AA")
            axes.set_title(figure_text(target), loc="left", fontsize=8)
            axes.set_xlabel(figure_text(title(score)), fontsize=7)
            axes.tick_params(labelsize=6)
            axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("after fine-tuning", fontsize=8)
    return png_bytes(figure)


def _grid(table: pd.DataFrame) -> list[list[str]]:
    statistics = [name for name in map(str, table) if f"{name}_lower" in table]
    single = [name for name in ("spearman_lowest", "cells") if name in table]
    head = ["Score", *(_HEADINGS.get(name) or _name(name) for name in (*statistics, *single))]
    body = []
    for score, row in table.iterrows():
        intervals = [_cell(row[name], row[f"{name}_lower"], row[f"{name}_upper"]) for name in statistics]
        rest = [f"{row[name]:.0f}" if name == "cells" else _number(row[name]) for name in single]
        body.append([title(str(score)), *intervals, *rest])
    return [head, *body]


def _name(statistic: str) -> str:
    return statistic.replace("rel_at_", "Rel@").replace("recall_at_", "Recall@").capitalize().replace("_", " ")


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else MISSING


def _cell(value: float, lower: float, upper: float) -> str:
    return f"{_number(value)} [{_number(lower)}, {_number(upper)}]" if math.isfinite(lower) else _number(value)


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
