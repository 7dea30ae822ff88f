"""Figures that belong to no window, and what they are as a file."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, Any

from lightning_transfer.utilities.imports import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """A figure that no window manager knows of, and that a notebook shows without pyplot.

    Args:
        options: Of ``matplotlib.figure.Figure``.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    figure._repr_png_ = partial(png_bytes, figure)  # type: ignore[attr-defined]
    return figure


def png_bytes(figure: Figure) -> bytes:
    """A figure as the content of a PNG file.

    Args:
        figure: Any matplotlib figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer, canvas = io.BytesIO(), figure.canvas
    try:  # ``savefig`` draws twice, the first time only for a layout that drawing makes anyway
        FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"compress_level": 4})
    finally:
        figure.set_canvas(canvas)
    return buffer.getvalue()
