"""Figures of a leaderboard, drawn without a window system and without touching pyplot's state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_transfer.report.text import human_number, short_names, title
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.figures import new_figure
from lightning_transfer.utilities.imports import require
from lightning_transfer.utilities.scores import equal_scores
from lightning_transfer.utilities.text import figure_text, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_transfer.screening.row import Row
    from lightning_transfer.screening.standings import Standings

_COLORS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#EE7733", "#009988", "#332288")
_MARKERS = "osD^vP"
_MAIN_WIDTH, _SMALL_WIDTH = 6.4, 2.7  # inches
_CAP = 6  # width of the ends of an error bar in points
_LINE = 0.14  # height of a line of text in inches
_LONGEST_NAME = 32  # characters
_INK = 0.75  # share of the light of a mark that its name has


def draw_leaderboard(board: Standings, *, cost: str = "parameters", columns: Sequence[str] | None = None) -> Figure:
    """Draw scores against cost: the one that ranks large and with names, the others as small panels.

    Args:
        board: The result of a screen.
        cost: One of the board's ``costs``.
        columns: The scores to draw; all by default.

    Returns:
        The figure.

    Raises:
        ValueError: If a name is unknown or there is nothing to draw.
    """
    require("matplotlib", "plot")
    check_one_of(cost, board.costs, "cost")
    for column in columns or ():
        check_one_of(column, board.columns, "columns")
    shown = sorted(columns or board.columns, key=lambda column: column != board.rank_by)
    rows = [row for row in board.ranked() if getattr(row, cost) and any(math.isfinite(row.score(c)) for c in shown)]
    if not rows:
        raise ValueError(f"Expected the leaderboard to hold a backbone with a score and `{cost}`, but got none.")
    small_rows = max(1, math.ceil(math.sqrt(len(shown) - 1)))
    small_columns = math.ceil((len(shown) - 1) / small_rows)
    widths = (_MAIN_WIDTH, _SMALL_WIDTH * small_columns)
    height = max(4.4, 2.2 * small_rows, min(1 + 1.5 * _LINE * len(rows), 12))
    figure = new_figure(figsize=(sum(widths), height), dpi=150)
    halves: Any = figure.subfigures(1, 2, width_ratios=widths) if small_columns else [figure]
    main = halves[0].subplots()
    _draw_panel(main, board, rows, shown[0], cost, large=True)
    if small_columns:
        panels = halves[1].subplots(small_rows, small_columns, squeeze=False).ravel()
        for axes, column in zip(panels, shown[1:], strict=False):
            _draw_panel(axes, board, rows, column, cost, large=False)
        for axes in panels[len(shown) - 1 :]:
            axes.set_visible(False)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # names are placed when the panels have their final sizes, which then stay
    figure.set_layout_engine("none")
    names = short_names([plain(row.backbone) for row in rows], _LONGEST_NAME)
    points = [
        (getattr(row, cost), row.score(shown[0]), names[plain(row.backbone)], _color(i)) for i, row in enumerate(rows)
    ]
    _label_points(main, [point for point in points if math.isfinite(point[1])])
    return figure


def _draw_panel(axes: Axes, board: Standings, rows: Sequence[Row], column: str, cost: str, *, large: bool) -> None:
    _draw_points(axes, board, rows, column, cost, size=8 if large else 5)
    if large and len(front := board.pareto(cost, column)) > 1:
        places = [(getattr(board[name], cost), board[name].score(column)) for name in front]
        axes.plot(*zip(*places, strict=True), color="#999999", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_xscale("log")
    axes.margins(x=0.25 if large else 0.15, y=0.12)
    low, high = axes.dataLim.intervaly
    if equal_scores(low, high):
        axes.set_ylim(low - 0.1 * max(1.0, abs(low)), high + 0.1 * max(1.0, abs(high)))
    axes.ticklabel_format(axis="y", useOffset=False)
    values = sorted({float(getattr(row, cost)) for row in rows})
    shown = values if large and len(values) <= 5 else [values[0], values[-1]] if len(values) > 1 else values
    axes.set_xticks(shown, [human_number(value) for value in shown])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    direction = "" if board.higher_is_better(column) else " (lower is better)"
    if large:
        axes.set_xlabel(_cost_label(cost))
        axes.set_ylabel(figure_text(title(column) + direction))
        heading = f"{title(column)} on {board.info.get('target', 'the target')}"
        axes.set_title(figure_text(heading), loc="left", fontweight="bold")
    else:
        axes.locator_params(axis="y", nbins=4)
        axes.set_title(figure_text(title(column) + direction), loc="left", fontsize=8)
        axes.tick_params(labelsize=7)


def _draw_points(axes: Axes, board: Standings, rows: Sequence[Row], column: str, cost: str, size: float) -> None:
    """One mark a row, with its error bar: three artists for any number of rows, since each artist costs time."""
    from matplotlib.colors import to_rgba_array

    places = np.array([(getattr(row, cost), row.score(column)) for row in rows], dtype=float)
    errors = np.array([row.standard_error(column) for row in rows])
    colors, numbers = to_rgba_array(_COLORS), np.arange(len(rows))
    colors = colors[numbers % len(_COLORS)]
    (shown,) = np.isfinite(places[:, 1]).nonzero()
    (barred,) = np.isfinite(places[:, 1] + errors).nonzero()
    ends = np.stack([places[barred], places[barred]], axis=1)
    ends[:, :, 1] += errors[barred, None] * np.array([-1, 1])
    if len(ends):
        _draw_bars(axes, ends, barred % len(_COLORS))
        _draw_marks(axes, ends.reshape(-1, 2), colors[barred].repeat(2, axis=0), "_", numbers[:0], _CAP)
    if len(shown):
        _draw_marks(axes, places[shown], colors[shown], _MARKERS, shown // len(_COLORS) % len(_MARKERS), size)


def _draw_bars(axes: Axes, ends: Any, kinds: Any) -> None:
    """Lines between two places each, ``(n, 2, 2)``: those of a colour are one path, since each path costs time."""
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path

    used = np.unique(kinds)
    paths = [
        Path(some.reshape(-1, 2), [Path.MOVETO, Path.LINETO] * len(some)) for some in (ends[kinds == k] for k in used)
    ]
    colors = [_COLORS[kind] for kind in used]
    _add_inside(axes, PathCollection(paths, facecolors="none", edgecolors=colors, linewidths=1.5))


def _draw_marks(axes: Axes, places: Any, colors: Any, markers: str, kinds: Any, size: float) -> None:
    """Marks at some places, of the shapes that their numbers say; all of the first shape where there are none."""
    from matplotlib.collections import PathCollection
    from matplotlib.markers import MarkerStyle
    from matplotlib.transforms import IdentityTransform

    shapes = [style.get_path().transformed(style.get_transform()) for style in map(MarkerStyle, markers)]
    marks = PathCollection(
        [shapes[kind] for kind in kinds] or shapes,
        [size**2],
        offsets=places,
        offset_transform=axes.transData,
        facecolors=colors,
        edgecolors=colors,
        linewidths=1,
        transform=IdentityTransform(),
    )
    _add_inside(axes, marks)


def _add_inside(axes: Axes, artists: Any) -> None:
    """Add artists that are cut off at the edge of the panel, so that the layout need not measure them."""
    axes.add_collection(artists).set_in_layout(False)


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _cost_label(cost: str) -> str:
    return {"flops": "FLOPs a sample", "feature_dim": "feature dimension"}.get(cost, cost.replace("_", " "))


def _label_points(axes: Axes, points: Sequence[tuple[Any, float, str, str]]) -> None:
    """Write the names that find room beside their points, the first ones first, moved where they would overlap."""
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    line, panel = _LINE * axes.figure.dpi, axes.get_window_extent()
    clear = [withStroke(linewidth=3, foreground=axes.get_facecolor())]  # names stay legible over error bars
    named = sorted(points[: int(panel.height / line)], key=lambda point: point[1])
    places = [tuple(map(float, axes.transData.transform((x, y)))) for x, y, _, _ in named]
    heights = _place_apart([up for _, up in places], line, panel.y0, panel.y1)
    for (x, y, name, color), (across, up), height in zip(named, places, heights, strict=True):
        on_the_left = across < panel.x0 + panel.width / 2
        label = axes.annotate(
            figure_text(name),
            (x, y),
            xytext=(9 if on_the_left else -9, (height - up) * 72 / axes.figure.dpi),
            textcoords="offset points",
            ha="left" if on_the_left else "right",
            va="center",
            color=[_INK * part for part in to_rgb(color)],
            fontsize=8,
            path_effects=clear,
        )
        label.set_in_layout(False)  # the panels keep the sizes for which the names were placed


def _place_apart(wanted: Sequence[float], line: float, low: float, high: float) -> list[float]:
    """Ascending heights between two limits, at least a line apart and as near to the wanted ones as that allows."""
    from sklearn.isotonic import isotonic_regression

    if not wanted:
        return []
    lines = line * np.arange(len(wanted))
    heights: list[float] = (isotonic_regression(wanted - lines).clip(low, high - lines[-1]) + lines).tolist()
    return heights
