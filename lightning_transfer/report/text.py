"""Numbers as people read them, shared by the console, the figures and the HTML report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_transfer.metrics.registry import METRICS
from lightning_transfer.relatedness.baseline import Baseline
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from lightning_transfer.screening.standings import Standings

MISSING = "-"
_MOST_PAIRS = 12  # of neighbours that a sentence lists
TITLES = {
    "parameters": "Params",
    "parameters_rank": "Size rank",
    "flops": "FLOPs",
    "feature_dim": "Dim",
    "images_per_second": "Samples/s",
    "seconds": "Time",
}
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def title(column: str) -> str:
    """The heading of a column.

    Example:
        >>> from lightning_transfer.report.text import title
        >>> title("logme"), title("ridge_probe")
        ('LogME', 'Ridge probe')
    """
    if column in METRICS:
        return METRICS[column].title
    return TITLES.get(column) or plain(column).replace("_", " ").capitalize()


def short_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Names that are no wider than a number of characters: long ones lose their middle, unless two became the same.

    Example:
        >>> from lightning_transfer.report.text import short_names
        >>> short_names(["resnet18", "vit_base_patch16_224.augreg_in21k"], 15)["vit_base_patch16_224.augreg_in21k"]
        'vit_bas…g_in21k'
    """
    half = (width - 1) // 2
    short = {name: name if len(name) <= width else f"{name[:half]}…{name[-half:]}" for name in names}
    return short if len(set(short.values())) == len(short) else {name: name for name in names}


def human_number(value: float | None) -> str:
    """A count with a unit, three significant digits.

    Example:
        >>> from lightning_transfer.report.text import human_number
        >>> [human_number(value) for value in (None, 1280, 3_374_496, 4.01e8)]
        ['-', '1.28k', '3.37M', '401M']
    """
    if value is None or not math.isfinite(value):
        return MISSING
    for size, unit in _UNITS:
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)}{unit}"
    return f"{value:.0f}" if value == round(value) else _three_digits(value)


def human_seconds(value: float | None) -> str:
    """A duration.

    Example:
        >>> from lightning_transfer.report.text import human_seconds
        >>> [human_seconds(value) for value in (0.123, 12.34, 75.2, 4000)]
        ['0.12 s', '12.3 s', '1 min 15 s', '1 h 07 min']
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 59.95:
        return f"{_three_digits(value)} s" if value >= 1 else f"{value:.2f} s"
    if value < 3599.5:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    return f"{round(value / 60) // 60} h {round(value / 60) % 60:02d} min"


def score_texts(values: Sequence[float]) -> list[str]:
    """Scores of one column with as many decimals as they need to be told apart: three or four, or a power of ten.

    Example:
        >>> from lightning_transfer.report.text import score_texts
        >>> score_texts([0.5, float("nan"), 0.25]), score_texts([0.1234, 0.1235]), score_texts([123.456, 7.0])
        (['0.500', '-', '0.250'], ['0.1234', '0.1235'], ['123.5', '7.0'])
        >>> score_texts([-3.21e-6, 0.0]), score_texts([-90.0, -0.001])
        (['-3.21e-06', '0.00e+00'], ['-90.00', '0.00'])
    """
    finite = [value for value in values if math.isfinite(value)]
    different = len({f"{value:.4f}" for value in finite})
    largest = max((abs(value) for value in finite), default=0.0)
    if 0 < largest < 5e-4:
        return [f"{value + 0.0:.2e}" if math.isfinite(value) else MISSING for value in values]
    decimals = 3 if largest < 10 else 2 if largest < 100 else 1
    while decimals < 4 and len({f"{value:.{decimals}f}" for value in finite}) < different:
        decimals += 1
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" if math.isfinite(value) else MISSING for value in values]


def column_texts(board: Standings, column: str) -> list[tuple[str, bool]]:
    """The scores of a column, best backbone of the board first, and whether each is shown as the best of the column.

    Scores that look alike are marked alike, and none is where all look alike.

    Args:
        board: The result of a screen.
        column: One of its scores.
    """
    rows = board.ranked()
    texts = score_texts([row.score(column) for row in rows])
    seen = {text for text in texts if text != MISSING}
    ranks = board.ranks(column)
    best = {text for row, text in zip(rows, texts, strict=True) if ranks[row.backbone] == 1} if len(seen) > 1 else ()
    return [(text, text in best) for text in texts]


def costs_of(board: Standings) -> list[str]:
    """The costs that some row of a leaderboard has."""
    return [cost for cost in board.costs if any(getattr(row, cost) is not None for row in board.rows)]


def baseline_of(bound: Mapping[str, Any]) -> Baseline | None:
    """What random copies of the reference reach, of the content of a ``relatedness.json``; None without them."""
    found = bound.get("baseline")
    return None if found is None else Baseline.of(found)


def is_vacuous(value: float, bound: Mapping[str, Any]) -> bool:
    """Whether a bound says no more than guessing would, as far as the content beside it says what that costs."""
    guessing = bound.get("guessing")
    return guessing is not None and float(value) >= float(guessing)


def against_copies(bound: Mapping[str, Any]) -> str:
    """How far a bound is from random copies of the reference, and what that is worth.

    Example:
        >>> from lightning_transfer.report.text import against_copies
        >>> baseline = {"bound": 1.5, "copies": [2.0, 1.9, 2.1, 2.0, 2.0]}
        >>> against_copies({"guessing": 2.3, "baseline": baseline})
        '-0.5000 ± 0.0707'
        >>> against_copies({"guessing": 1.4, "baseline": baseline})
        '-0.5000 ± 0.0707 vacuous'
    """
    baseline = baseline_of(bound)
    if baseline is None:
        return MISSING
    doubt = " vacuous" if is_vacuous(baseline.bound, bound) else ""
    return f"{baseline.difference:+.4f} ± {baseline.spread:.4f}{'' if baseline.decided else ' ?'}{doubt}"


def undecided_places(board: Standings) -> set[str]:
    """Backbones that the sample does not tell from the one above them."""
    return {second for _, second in board.undecided()}


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence; of many the first ones and how many more.

    Example:
        >>> from lightning_transfer.report.text import listed
        >>> listed(["a", "b", "c"]), listed(list("abcdefgh"), 3)
        ('a, b and c', 'a, b, c and 5 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def error_text(score: str, error: float) -> str:
    """A standard error written like the score beside it; empty where there is none.

    Example:
        >>> from lightning_transfer.report.text import error_text
        >>> error_text("0.250", 0.0123), error_text("9.00", 1.7e-15), error_text("-", float("nan"))
        (' ±0.012', ' ±0.00', '')
    """
    if "e" in score and math.isfinite(error):
        return f" ±{error:.0e}"
    return f" ±{error:.{len(score.partition('.')[2])}f}" if math.isfinite(error) else ""


def size_places(board: Standings) -> dict[str, int | None]:
    """Places by size, as they are shown: none where all backbones are of one size, layers of one network say."""
    places = board.size_ranks()
    return places if any((place or 1) > 1 for place in places.values()) else dict.fromkeys(places)


def cost_text(column: str, value: float | None) -> str:
    """What a backbone costs, in the unit of its column."""
    if column == "seconds":
        return human_seconds(value)
    if column == "feature_dim":
        return MISSING if value is None else str(value)
    return human_number(value)


def sentences(board: Standings) -> list[str]:
    """What a reader of the leaderboard has to know, one sentence an item."""
    info: dict[str, Any] = board.info
    direction = "higher" if board.higher_is_better(board.rank_by) else "lower"
    sentence = f"Ranked by {title(board.rank_by)} ({direction} is better)"
    if info.get("target"):
        sentence += f" on {info['target']}"
    counts = [
        f"{info[key]:,} {unit}".replace(",", " ")
        for key, unit in (("num_samples", f"{info.get('split', '')} samples".strip()), ("num_classes", "classes"))
        if info.get(key)
    ]
    lines = [f"{sentence}: {', '.join(counts)}." if counts else f"{sentence}."]
    lines += [
        f"{title(column)}: lower is better."
        for column in board.columns
        if column != board.rank_by and not board.higher_is_better(column)
    ]
    relative = dict.fromkeys(title(column) for row in board.rows for column in row.parts)
    if relative and len(board) > 1:
        lines.append(f"{', '.join(relative)}: scaled over the backbones of this table.")
    sizes = {name: rank for name, rank in board.size_ranks().items() if rank is not None}
    largest = [name for name, rank in sizes.items() if rank == 1]
    if len(largest) < len(sizes):
        places = " and ".join(str(board.ranks()[name] or "last") for name in largest)
        lines.append(f"Static baseline (most parameters): {' and '.join(largest)}, ranked {places} here.")
    if board.has_errors(board.rank_by):
        pairs = board.undecided()
        shown = "; ".join(f"{i} ≈ {j}" for i, j in pairs[:_MOST_PAIRS]) or "none"
        more = f"; and {len(pairs) - _MOST_PAIRS} more" if len(pairs) > _MOST_PAIRS else ""
        lines.append(f"Neighbours that this sample does not tell apart (95 %): {shown}{more}.")
    elif sum(map(bool, board.ranks().values())) > 1 and not any(map(board.has_errors, board.columns)):
        lines.append("Without standard errors: `error_bars=true` says which neighbours this sample tells apart.")
    if cached := [row.backbone for row in board.ranked() if row.cached]:
        lines.append(f"{_names(cached, board)}: features from the cache; speed and time are those of their first pass.")
    lines += [str(note) for note in info.get("notes", ())]
    failures: dict[str, list[str]] = {}
    for row in board.ranked():
        if row.failed:
            failures.setdefault(row.status.replace(f"`{row.backbone}`", "it"), []).append(row.backbone)
    lines += [f"{listed(names)}: {status}" for status, names in failures.items()]
    remarks = {remark: [row.backbone for row in board.ranked() if remark in row.remarks] for remark in _remarks(board)}
    return lines + [f"{_names(names, board)}: {remark}" for remark, names in remarks.items()]


def _remarks(board: Standings) -> list[str]:
    return list(dict.fromkeys(remark for row in board.ranked() for remark in row.remarks))


def _names(names: list[str], board: Standings) -> str:
    screened = [row.backbone for row in board.ranked() if row.scores]
    everything = "All layers" if board.info.get("layers_of") else "All backbones"
    return everything if names == screened and len(names) > 1 else listed(names)


def _three_digits(value: float) -> str:
    return f"{value:.{2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"
