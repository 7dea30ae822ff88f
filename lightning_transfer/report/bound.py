"""Figures of the bound: what it is made of, and which reference class stands for which target class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_transfer.utilities.figures import new_figure
from lightning_transfer.utilities.text import figure_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_transfer.relatedness.result import TaskRelatednessResult

_TERMS = (
    ("reweighted_reference_loss", "re-weighted reference loss", "#4477aa"),
    ("label_mismatch", "label mismatch", "#ccbb44"),
    ("distribution_mismatch", "distribution mismatch", "#ee6677"),
)


def draw_bound(result: TaskRelatednessResult) -> Figure:
    """Draw the decomposition beside the label map.

    Args:
        result: What to draw.

    Returns:
        A figure that no window manager knows of: nothing is left open.
    """
    reference, target = result.class_names()
    wide = min(12.0, max(4.0, 0.35 * len(reference)))
    high = min(12.0, max(4.0, 0.3 * len(target)))
    figure = new_figure(figsize=(4 + wide, high))
    bars, heat = figure.subplots(1, 2, width_ratios=(3.2, wide))
    _draw_bars(bars, result)
    _draw_label_map(heat, result, reference, target)
    return figure


def _draw_bars(axes: Axes, result: TaskRelatednessResult) -> None:
    columns, guessing = result.certificates(), result.certificate.guessing
    if math.isinf(guessing):  # of an early version, which did not keep it
        guessing = math.log(len(result.target_classes))
    tallest = max(guessing, *(figures.bound for figures in columns.values()))
    for place, (_, figures) in enumerate(columns.items()):
        bottom = 0.0
        for key, title, color in _TERMS:
            height = getattr(figures, key)
            axes.bar(place, height, 0.6, bottom, color=color, label=title if place == 0 else None)
            if height > 0.06 * tallest:
                axes.text(place, bottom + height / 2, f"{height:.2f}", ha="center", va="center", color="white")
            bottom += height
        axes.text(place, bottom, f"{bottom:.3f}", ha="center", va="bottom", fontweight="bold")
        axes.plot(place, figures.target_loss, "kD", markersize=5, label="loss it bounds" if place == 0 else None)
    if result.margin_mismatch is not None:
        certificate = result.certificate
        height = certificate.bound - certificate.distribution_mismatch + result.margin_mismatch
        axes.plot(0, height, "k_", markersize=14, label="with the mismatch as a distance")
    axes.axhline(guessing, color="grey", linestyle=":", label="guessing")
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylim(top=1.08 * max(axes.get_ylim()[1], guessing))
    axes.set_ylabel("nats")
    axes.set_title("bound on the target loss")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, fontsize=8)


def _draw_label_map(axes: Axes, result: TaskRelatednessResult, reference: list[str], target: list[str]) -> None:
    image = axes.imshow(result.label_map.cpu().numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for size, names, put in (
        (len(reference), reference, axes.set_xticks),
        (len(target), target, axes.set_yticks),
    ):
        step = -(-size // 40)
        put(range(0, size, step), list(map(figure_text, names[::step])))
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("reference class")
    axes.set_ylabel("target class")
    axes.set_title("label map: P(target class | reference class)")
    axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
