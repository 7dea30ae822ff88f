"""Results as one HTML file that needs no other: sorted, filtered and drawn by a script of its own, with no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lightning_transfer.report.explanations import explain_column
from lightning_transfer.report.text import (
    MISSING,
    against_copies,
    baseline_of,
    column_texts,
    cost_text,
    costs_of,
    error_text,
    is_vacuous,
    score_texts,
    sentences,
    size_places,
    title,
    undecided_places,
)
from lightning_transfer.utilities.scores import equal_scores
from lightning_transfer.utilities.text import html_text

if TYPE_CHECKING:
    from lightning_transfer.screening.comparing import AcrossTargets
    from lightning_transfer.screening.row import Row
    from lightning_transfer.screening.standings import Standings

_LARGEST_MAP = 40  # classes a side of a label map that is drawn; larger ones are listed
_PARTS_OF_NAMES = re.compile(r"([_/.-])(?=.)")
_FEWEST_TO_AGREE = 3  # backbones
_TERMS = (
    ("reference", "reweighted_reference_loss", "re-weighted reference loss"),
    ("label", "label_mismatch", "label mismatch"),
    ("distribution", "distribution_mismatch", "distribution mismatch"),
)
_ABOUT_REPRODUCING = ("versions", "overrides", "command", "notes")  # entries of ``info`` with a place of their own


def leaderboard_html(board: Standings) -> str:
    """A whole report of one leaderboard.

    Args:
        board: The result of a screen.

    Returns:
        An HTML document; every text in it is escaped.
    """
    return page(board_heading(board), [board_section(board, heading=False)])


def page(heading: str, sections: Iterable[str]) -> str:
    """A document around sections.

    Args:
        heading: Its title, any text.
        sections: What the functions of this module gave.

    Returns:
        An HTML document. Its policy allows the one script and the one style in it, by their digests, and no network.
    """
    style, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html_text(heading)}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{html_text(heading)}</h1>\n"
        f"{''.join(sections)}\n"
        '<div id="tip" popover="manual" role="tooltip"></div>\n'
        "<noscript><p>Sorting, filters and charts need JavaScript; the tables are complete without it.</p></noscript>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def board_section(board: Standings, heading: bool = True) -> str:
    """What a report says of a leaderboard: headline, table, chart, agreement, the bound, warnings, how to repeat it.

    Args:
        board: The result of a screen.
        heading: Whether it begins with a heading of its own.
    """
    parts = [
        f"<h2>{html_text(board_heading(board))}</h2>" if heading else "",
        _said(board),
        _controls(board),
        table_html(board),
        _notes(board),
        _chart(board),
        _agreement(board),
        bound_section([(row.backbone, row.bound) for row in board.ranked("task_relatedness") if row.bound], level=3),
        _meanings(board),
        _reproduce(board),
    ]
    return f'<section class="of-board">\n{"".join(parts)}</section>\n'


def table_html(board: Standings) -> str:
    """The table alone, without a document around it.

    Args:
        board: The result of a screen.
    """
    scores = sorted(board.columns, key=lambda column: column != board.rank_by)
    costs = costs_of(board)
    rows, ranks, size_ranks, tied = board.ranked(), board.ranks(), size_places(board), undecided_places(board)
    texts = {column: column_texts(board, column) for column in scores}
    titles = {name: title(name) for name in (*scores, *costs)}
    heads = [("#", "rank", "up"), ("Backbone", "backbone", "up")]
    heads += [(titles[name], name, "down" if board.higher_is_better(name) else "up") for name in scores]
    heads += [(titles[name], name, "down" if name == "images_per_second" else "up") for name in costs]
    places = {row.backbone: place for place, row in enumerate(board.rows)}
    ranking = [value for row in rows if math.isfinite(value := row.score(board.rank_by))]
    lines = []
    for position, row in enumerate(rows):
        rank = ranks[row.backbone]
        approximately = '<abbr title="not told apart from the one above">≈</abbr>' if row.backbone in tied else ""
        cells = [_cell("#", f"{approximately}{rank or ''}", rank, "rank"), _name_cell(row)]
        for column in scores:
            text, best = texts[column][position]
            error = row.standard_error(column)
            inner = html_text(text) + (
                f'<span class="se">{error_text(text, error)}</span>' if math.isfinite(error) else ""
            )
            if column == board.rank_by:
                inner += _bar(row.score(column), ranking, board.higher_is_better(column))
            spread = f' data-e="{error:.6g}"' if math.isfinite(error) else ""
            cells.append(_cell(titles[column], inner, row.score(column), "best" if best else "", spread))
        for cost in costs:
            place = f" ({size_ranks[row.backbone]})" if cost == "parameters" and size_ranks[row.backbone] else ""
            value = getattr(row, cost)
            cells.append(_cell(titles[cost], html_text(cost_text(cost, value)) + place, value))
        kinds = " ".join(kind for kind, holds in (("control", row.control), ("failure", row.failed)) if holds)
        about = f'data-name="{html_text(row.backbone)}" data-kind="{kinds}" data-i="{places[row.backbone]}"'
        lines.append(f'<tr role="row" {about}>{"".join(cells)}</tr>')
    head = "".join(_head(board, *entry) for entry in heads)
    return (
        f'<div class="scroll"><table class="board" role="table">\n<thead><tr role="row">{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table></div>\n"
    )


def notebook_html(board: Standings) -> str:
    """Headline, table and notes without a document around them.

    Args:
        board: The result of a screen.
    """
    return _said(board) + table_html(board) + _notes(board)


def bound_section(bounds: Sequence[tuple[str, Mapping[str, Any]]], level: int = 2) -> str:
    """What task-relatedness bounds are made of, and the label map of the smallest.

    Args:
        bounds: Names, and contents of ``relatedness.json`` or of ``row.bound``, best first.
        level: Of its heading.
    """
    if not bounds:
        return ""
    widest = max(_top(bound) for _, bound in bounds) or 1.0
    keys = "".join(
        f'<svg class="key"><rect class="{kind}" width="99" height="99"/></svg>{name}' for kind, _, name in _TERMS
    )
    heads = ["Backbone", "Bound", *(name for _, _, name in _TERMS), "loss that it bounds", "guessing", ""]
    news = any(bound.get("population_bound") is not None for _, bound in bounds)
    if news:
        heads.insert(-1, "new samples")
    copies = any(baseline_of(bound) is not None for _, bound in bounds)
    if copies:
        heads.insert(-1, "against copies")
    lines = []
    for name, bound in bounds:
        cells = [f'<td class="name">{html_text(name)}</td>']
        values = (bound["bound"], *(bound[key] for _, key, _ in _TERMS), bound["target_loss"], bound.get("guessing"))
        texts = [_three(value) for value in values]
        if is_vacuous(bound["bound"], bound):
            texts[0] += " vacuous"
        if news:
            texts.append(_three(bound.get("population_bound")))
        if copies:
            texts.append(against_copies(bound))
        cells += [f'<td data-t="{heading}">{text}</td>' for heading, text in zip(heads[1:-1], texts, strict=True)]
        cells.append(f'<td class="stack">{_stack(bound, widest)}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th class="{"name" if not i else ""}">{text}</th>' for i, text in enumerate(heads))
    best, bound = bounds[0]
    typed = [shlex.join(["lightning-transfer", "relate", *map(str, b.get("overrides") or ())]) for _, b in bounds]
    repeat = "" if level > 2 or not bound.get("overrides") else "\n".join(map(html_text, typed))
    words = (
        " Against copies: the bound under maps that can only turn the target (or none), minus that of copies of the "
        "reference turned at random, with their spread; ? where that is not decided, vacuous where that bound is."
    )
    new_words = (
        " New samples: what the expected loss on them does not exceed, of a classifier that mixes in the class shares, "
        "with the confidence that was asked for: for all backbones of one screen together."
    )
    return (
        f'<h{level}>What the bound is made of</h{level}>\n<p class="faint">In nats, lower is better: {keys}. '
        "The upright line is the loss that the bound is about. A bound above guessing is vacuous: it says nothing of "
        f"its own.{new_words if news else ''}{words if copies else ''}</p>\n"
        f'<div class="scroll"><table class="terms narrow"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n{_label_map(best, bound)}"
        + (f"<h{level}>To repeat it</h{level}>\n<pre>{repeat}</pre>\n" if repeat else "")
    )


def across_section(across: AcrossTargets) -> str:
    """Which backbone is best over several targets.

    Args:
        across: What :func:`~lightning_transfer.screening.across_targets` gave.
    """
    columns = {
        target: score_texts([across.scores[target][name] for name in across.backbones]) for target in across.targets
    }
    head = "".join(f"<th>{html_text(name)}</th>" for name in (*across.targets, "mean rank"))
    lines = []
    for place, name in enumerate(across.backbones):
        cells = "".join(f'<td data-t="{html_text(head)}">{texts[place]}</td>' for head, texts in columns.items())
        mean = f'<td data-t="mean rank">{across.mean_ranks[name]:.1f}</td>'
        lines.append(f'<tr><td class="name">{html_text(name)}</td>{cells}{mean}</tr>')
    said = "".join(f"<p>{html_text(line)}</p>" for line in across.lines())
    return (
        f'<section><h2>Over all targets</h2><div class="headline">{said}</div>\n<div class="scroll">'
        f'<table class="narrow"><thead><tr><th class="name">Backbone</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></section>\n"
    )


def run_section(name: str, summary: Mapping[str, Any]) -> str:
    """What a fine-tuning run logged and how its monitors moved.

    Args:
        name: Of the run.
        summary: Content of its ``finetune.json``.
    """
    histories = [history for history in summary["history"].values() if history]
    tables = "".join(map(_history_table, histories))
    results = {**summary["objective"], **summary["test"]}
    said = ", ".join(f"{key} {_three(value)}" for key, value in results.items())
    stopped = "".join(f"<p>Stopped: {html_text(why)}</p>" for why in summary.get("stopped", ()))
    command = shlex.join(["lightning-transfer", "finetune", *map(str, summary["overrides"])])
    return (
        f"<section><h2>{html_text(name)}</h2><p>{html_text(said)}</p>{stopped}{tables}"
        f"<pre>{html_text(command)}</pre></section>\n"
    )


def _history_table(history: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html_text(entry.get('step', ''))}</th>" for entry in history)
    lines = []
    for key in dict.fromkeys(key for entry in history for key in entry if key not in ("epoch", "step")):
        values = "".join(f"<td>{_three(entry.get(key))}</td>" for entry in history)
        lines.append(f'<tr><td class="name">{html_text(key)}</td>{values}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th class="name">step</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def board_heading(board: Standings) -> str:
    """What a leaderboard is about: the title of its report.

    Args:
        board: The result of a screen.
    """
    if board.info.get("layers_of"):
        return f"Layers of {board.info['layers_of']}"
    return f"Transferability to {board.info.get('target', 'the target')}"


def _resource(name: str) -> str:
    return files("lightning_transfer.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _head(board: Standings, text: str, column: str, first: str) -> str:
    shown = html_text(text)
    style = "name" if column == "backbone" else ""
    order = "ascending" if column == "rank" else "none"
    why = f'<button class="why" aria-label="What is {shown}?">?</button>' if _meaning(board, column) else ""
    return (
        f'<th role="columnheader" scope="col" class="{style}" data-t="{shown}" data-first="{first}" '
        f'aria-sort="{order}"><button class="sort">{shown}</button>{why}</th>'
    )


def _cell(heading: str, inner: str, value: float | None = None, style: str = "", more: str = "") -> str:
    """A cell; ``inner`` is HTML, ``heading`` text."""
    known = value is not None and math.isfinite(value)
    number = f' data-v="{value!r}"' if known else ""
    kind = f' class="{style}"' if style else ""
    return f'<td role="cell" data-t="{html_text(heading)}"{kind}{number}{more}>{inner}</td>'


def _name_cell(row: Row) -> str:
    badge = '<span class="badge">control</span>' if row.control else ""
    why = f'<span class="why-not failed">{html_text(row.status)}</span>' if row.failed else ""
    name = _PARTS_OF_NAMES.sub(r"\1<wbr>", html_text(row.backbone))  # long ones break there, not within a word
    return f'<td role="cell" class="name">{name}{badge}{why}</td>'


def _bar(value: float, ranking: Sequence[float], higher_is_better: bool) -> str:
    """How far a score is from the worst to the best of a ranking, in order either way."""
    if not math.isfinite(value) or len(ranking) < 2:
        return ""
    low, high = sorted((ranking[0], ranking[-1]))
    share = 1.0 if equal_scores(low, high) else (value - low) / (high - low)
    if not higher_is_better and high > low:
        share = 1 - share
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{2 + 98 * share:.0f}" height="10"/></svg>'
    )


def _controls(board: Standings) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" value="{kind}" checked>{text}</label>'
        for kind, text, holds in (
            ("control", "controls", any(row.control for row in board.rows)),
            ("failure", "failures", any(row.failed for row in board.rows)),
        )
        if holds
    )
    return (
        '<div class="controls" hidden><label>Filter <input type="search" placeholder="name, status"></label>'
        f'{boxes}<span class="said faint" role="status"></span></div>\n'
    )


def _said(board: Standings) -> str:
    return f'<div class="headline">{"".join(f"<p>{html_text(line)}</p>" for line in board.headline())}</div>\n'


def _notes(board: Standings) -> str:
    lines = "".join(f"<p>{html_text(line)}</p>" for line in sentences(board))
    legend = []
    if undecided_places(board):
        legend.append("≈ the sample does not tell this row from the one above (95 %)")
    if any(row.control for row in board.rows):
        legend.append("control: the same network with random weights")
    if any(map(board.has_errors, board.columns)):
        legend.append("± standard error")
    explained = f"<p>{html_text('; '.join(legend))}.</p>" if legend else ""
    return f'<div class="notes">{explained}{lines}</div>\n'


def _chart(board: Standings) -> str:
    scores = sorted(board.columns, key=lambda column: column != board.rank_by)
    costs = costs_of(board)
    if not scores:
        return ""
    ups = "".join(f'<option value="{2 + i}">{html_text(title(name))}</option>' for i, name in enumerate(scores))
    alongs = "".join(
        f'<option value="{2 + len(scores) + i}">{html_text(title(name))}</option>' for i, name in enumerate(costs)
    )
    if board.info.get("layers_of"):
        alongs = f'<option value="depth">depth</option>{alongs}'
    if not alongs:
        return ""
    heading = "Scores by depth" if board.info.get("layers_of") else "Score against cost"
    return (
        f'<h2>{heading}</h2>\n<div class="controls axes" hidden><label>Score <select>{ups}</select></label>'
        f"<label>against <select>{alongs}</select></label></div>\n"
        f'<svg class="chart" role="img" aria-label="{heading}"></svg>\n'
    )


def _agreement(board: Standings) -> str:
    pairs = _taus(board)
    if not pairs:
        return ""
    names = list(dict.fromkeys(name for name, _ in pairs))
    head = "".join(f'<th scope="col"><span>{html_text(title(name))}</span></th>' for name in names)
    lines = []
    for one in names:
        cells = []
        for other in names:
            tau = pairs[one, other]
            if math.isnan(tau):
                cells.append(f"<td>{MISSING}</td>")
                continue
            style = f"{'u' if tau >= 0 else 'd'}{round(10 * abs(tau))}"
            cells.append(f'<td class="{style if style != "d0" else "u0"}">{round(tau, 2) + 0.0:.2f}</td>')
        lines.append(f'<tr><th scope="row">{html_text(title(one))}</th>{"".join(cells)}</tr>')
    return (
        '<h2>Do the scores agree?</h2>\n<p class="faint">'
        "Kendall's rank correlation between the orders that two scores give the backbones: 1 the same order, "
        "0 unrelated, -1 reversed.</p>\n"
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _taus(board: Standings) -> dict[tuple[str, str], float]:
    """Kendall's correlation of the orders by each two scores, over backbones that have both."""
    from scipy.stats import kendalltau

    values: dict[str, list[float]] = {}
    for column in board.columns:
        ranks = board.ranks(column)  # of scores that rounding tells apart the same
        values[column] = [-(ranks[row.backbone] or math.nan) for row in board.rows]
    columns = [column for column in board.columns if sum(map(math.isfinite, values[column])) >= _FEWEST_TO_AGREE]
    if len(columns) < 2:
        return {}
    taus: dict[tuple[str, str], float] = {}
    for i, one in enumerate(columns):
        for other in columns[i:]:
            both = [pair for pair in zip(values[one], values[other], strict=True) if all(map(math.isfinite, pair))]
            first, second = zip(*both, strict=True) if len(both) >= _FEWEST_TO_AGREE else ((), ())
            varied = len(set(first)) > 1 and len(set(second)) > 1
            taus[one, other] = taus[other, one] = float(kendalltau(first, second).statistic) if varied else math.nan
    return taus


def _meaning(board: Standings, column: str) -> str:
    said = explain_column(column)
    if column in board.columns:
        direction = "Higher is better." if board.higher_is_better(column) else "LOWER is better."
        said = f"{said} {direction}".strip()
    return said


def _meanings(board: Standings) -> str:
    columns = [
        ("rank", "#"),
        ("backbone", "Backbone"),
        *((name, title(name)) for name in (*board.columns, *costs_of(board))),
    ]
    items = "".join(
        f"<dt>{html_text(heading)}</dt><dd>{html_text(said)}</dd>"
        for column, heading in columns
        if (said := _meaning(board, column))
    )
    return f"<details><summary>What the columns mean</summary><dl>{items}</dl></details>\n"


def _reproduce(board: Standings) -> str:
    info = board.info
    command = info.get("command") or (
        shlex.join(["lightning-transfer", "screen", *map(str, info["overrides"])]) if "overrides" in info else ""
    )
    versions = info.get("versions")
    rest = {name: value for name, value in info.items() if name not in _ABOUT_REPRODUCING} | (
        {"settings": board.settings} if board.settings else {}
    )
    parts = [f"<pre>{html_text(command)}</pre>" if command else ""]
    if isinstance(versions, Mapping):
        parts.append(f"<p>{html_text(', '.join(f'{name} {version}' for name, version in versions.items()))}</p>")
    if rest:
        shown = html_text_of_lines(json.dumps(rest, indent=2, ensure_ascii=False, default=str))
        parts.append(f"<details><summary>Settings</summary><pre>{shown}</pre></details>")
    return f"<h2>To repeat it</h2>\n{''.join(parts)}\n" if any(parts) else ""


def html_text_of_lines(text: str) -> str:
    """Several lines of text, each made harmless."""
    return "\n".join(html_text(line) if line.strip() == line else _indented(line) for line in text.split("\n"))


def _indented(line: str) -> str:
    inner = line.strip()
    return line[: len(line) - len(line.lstrip())] + html_text(inner)


def _top(bound: Mapping[str, Any]) -> float:
    values = [sum(max(float(bound[key]), 0.0) for _, key, _ in _TERMS), float(bound["target_loss"])]
    return max(value for value in values if math.isfinite(value))


def _stack(bound: Mapping[str, Any], widest: float) -> str:
    def parts() -> Iterator[str]:
        start = 0.0
        for kind, key, name in _TERMS:
            width = 1000 * max(float(bound[key]), 0.0) / widest
            yield (
                f'<rect class="{kind}" x="{start:.0f}" width="{width:.0f}" height="60">'
                f"<title>{name} {_three(bound[key])}</title></rect>"
            )
            start += width
        place = 1000 * float(bound["target_loss"]) / widest
        yield f'<path vector-effect="non-scaling-stroke" d="M{place:.0f} 0V60"/>'

    label = ", ".join(f"{name} {_three(bound[key])}" for _, key, name in _TERMS)
    shape = 'viewBox="0 0 1000 60" preserveAspectRatio="none"'
    return f'<svg {shape} role="img" aria-label="{label}">{"".join(parts())}</svg>'


def _label_map(name: str, bound: Mapping[str, Any]) -> str:
    matrix = bound.get("label_map")
    if not matrix:
        return ""
    targets, references = _class_names(bound, "target", len(matrix)), _class_names(bound, "reference", len(matrix[0]))
    heading = f"<h3>Which reference class stands for which target class ({html_text(name)})</h3>\n"
    if max(len(targets), len(references)) > _LARGEST_MAP:
        items = []
        for column, reference in enumerate(references):
            shares = sorted(((row[column], target) for row, target in zip(matrix, targets, strict=True)), reverse=True)
            listed = ", ".join(f"{target} {share:.2f}" for share, target in shares[:3] if share >= 0.05)
            items.append(f"<dt>{html_text(reference)}</dt><dd>{html_text(listed)}</dd>")
        return (
            f"{heading}<details><summary>{len(items)} reference classes</summary><dl>{''.join(items)}</dl></details>\n"
        )
    head = "".join(f'<th scope="col"><span>{html_text(reference)}</span></th>' for reference in references)
    lines = []
    for target, row in zip(targets, matrix, strict=True):
        cells = "".join(
            f'<td class="u{round(10 * min(max(share, 0.0), 1.0))}">{f"{share:.2f}" if share >= 0.005 else ""}</td>'
            for share in row
        )
        lines.append(f'<tr><th scope="row">{html_text(target)}</th>{cells}</tr>')
    return (
        f'{heading}<p class="faint">Probability of the target class (row) given the reference class (column).</p>\n'
        f'<div class="scroll"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _class_names(bound: Mapping[str, Any], side: str, count: int) -> list[str]:
    names = bound.get(f"{side}_class_names") or bound.get(f"{side}_classes") or ()
    return [str(name) for name in names] if len(names) == count else [str(index) for index in range(count)]


def _three(value: Any) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"
