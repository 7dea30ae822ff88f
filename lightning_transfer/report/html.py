"""The leaderboard as one HTML file that needs no other."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from lightning_transfer.report.text import cost_text, error_text, score_texts, sentences, title
from lightning_transfer.utilities.text import html_text

if TYPE_CHECKING:
    from lightning_transfer.screening.standings import Standings

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:nth-child(2), td:nth-child(2), td:last-child { text-align: left; }
td:nth-child(2) { max-width: 22rem; white-space: normal; overflow-wrap: break-word; }
.best { font-weight: 700; color: #176d2c; }
.failed { color: #a11; }
.headline p:first-child { font-weight: 600; }
.se, .notes { color: #666; }
img { max-width: 100%; margin-top: 1rem; }
"""


def leaderboard_html(board: Standings, figure: bytes | None = None) -> str:
    """A self-contained report; every text in it is escaped.

    Args:
        board: The result of a screen.
        figure: A PNG to show below the table.

    Returns:
        A whole HTML document.
    """
    heading = html_text(f"Transferability to {board.info.get('target', 'the target')}")
    image = ""
    if figure is not None:
        image = f'<img alt="Scores against cost" src="data:image/png;base64,{base64.b64encode(figure).decode()}">'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">\n'
        f"<title>{heading}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{heading}</h1>\n"
        f"{table_html(board)}\n{image}\n</body>\n</html>\n"
    )


def table_html(board: Standings) -> str:
    """The table and the sentences below it, without a document around them.

    Args:
        board: The result of a screen.
    """
    ranks, size_ranks = board.ranks(), board.size_ranks()
    texts = {column: score_texts([row.score(column) for row in board.ranked()]) for column in board.columns}
    leaders = {column: board.ranks(column) for column in board.columns}
    headings = ["#", "Backbone", *map(title, (*board.columns, *board.costs, "parameters_rank")), "Status"]
    lines = []
    for position, row in enumerate(board.ranked()):
        cells = [_cell(str(ranks[row.backbone] or "")), _cell(row.backbone)]
        for column in board.columns:
            style = "best" if leaders[column][row.backbone] == 1 and len(board) > 1 else ""
            cells.append(_cell(texts[column][position], style, row.standard_error(column)))
        cells += [_cell(cost_text(cost, getattr(row, cost))) for cost in board.costs]
        cells += [_cell(str(size_ranks[row.backbone] or "")), _cell(row.status, "failed" if row.failed else "")]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f"<th>{html_text(heading)}</th>" for heading in headings)
    notes = "".join(f"<p>{html_text(line)}</p>" for line in sentences(board))
    said = "".join(f"<p>{html_text(line)}</p>" for line in board.headline())
    return (
        f'<div class="headline">{said}</div>\n'
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + f'\n</tbody>\n</table></div>\n<div class="notes">{notes}</div>'
    )


def _cell(text: str, style: str = "", error: float = float("nan")) -> str:
    span = f'<span class="se">{error_text(text, error)}</span>' if error == error else ""
    return f'<td class="{style}">{html_text(text)}{span}</td>'
