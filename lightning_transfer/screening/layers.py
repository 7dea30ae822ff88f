"""Every stage of a backbone scored in one pass: which depth transfers best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_transfer.report.text import title
from lightning_transfer.screening.layer_scores import choose_layers
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.screen import screen
from lightning_transfer.utilities.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def screen_layers(
    backbone: Any,
    target: Any,
    metrics: Any = "default",
    *,
    layers: str | Sequence[str] = "all",
    **options: Any,
) -> Leaderboard:
    """Score the layers of one backbone on a target, all from one forward pass over the data.

    Args:
        backbone: As for :func:`~lightning_transfer.screen`, one of them.
        target: As there.
        metrics: As there.
        layers: ``"all"`` for the stages of the network, or names of modules and patterns; see
            :class:`~lightning_transfer.backbones.LayeredBackbone`. The backbone's own features are the last row.
        options: As there.

    Returns:
        A row a layer, in the order of depth; ``backbone`` of a row is the layer's name.

    Raises:
        ValueError: If a name or argument is unknown or wrong, or the backbone fails.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.screening import aggregate_layers, screen_layers
        >>> body = [nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()]
        >>> net = nn.Sequential(*body, nn.Linear(8, 4))
        >>> board = screen_layers(ModuleBackbone(net, (1, 8, 8)), Digits(max_samples=100), "logme")
        >>> [row.backbone for row in board.rows]
        ['module.1', 'module.3', 'features']
        >>> aggregate_layers(board, "best")["logme"] == max(row.score("logme") for row in board.rows)
        True
    """
    board = screen(backbone, target, metrics, layers=layers, **options)
    for row in board.rows:
        if not row.layer and row.failure is not None:
            raise ValueError(f"{row.backbone}: {row.failure.message}")
    rows = [replace(row, backbone=row.layer or row.backbone) for row in board.rows]
    info = {**board.info, "layers_of": board.rows[0].network}
    return Leaderboard(rows, rank_by=board.rank_by, lower_is_better=board.lower_is_better, info=info)


def aggregate_layers(board: Leaderboard, how: str = "best") -> dict[str, float]:
    """One value a score from a value a layer.

    Args:
        board: What :func:`screen_layers` gave.
        how: ``"best"`` layer of each score, ``"mean"`` over the layers, or the ``"last"`` layer.

    Returns:
        The values by column; layers whose score could not be computed are left out.

    Raises:
        ValueError: If ``how`` is unknown.
    """
    chosen = choose_layers(board.rows, board.columns, board.lower_is_better, how)
    return {column: value for column, (value, _) in chosen.items()}


def plot_layers(board: Leaderboard, column: str | None = None) -> Figure:
    """Draw a score by depth, a line for each backbone.

    Args:
        board: What :func:`screen_layers` gave, or a screen with ``layers``.
        column: The score; by default the one that ranks.

    Returns:
        A matplotlib figure; it belongs to no window.

    Raises:
        ValueError: If no row is of a layer, or there is no such score.
    """
    column = column or board.rank_by
    networks: dict[str, list[Any]] = {}
    for row in board.rows:
        if row.layer:
            networks.setdefault(board.info.get("layers_of", row.network), []).append(row)
    if not networks or column not in board.columns:
        raise ValueError(
            f"Expected a leaderboard with a score of each layer, one of {board.columns}, but got {column!r}."
        )
    figure = new_figure(figsize=(6, 3.5))
    axes = figure.add_subplot()
    for name, rows in networks.items():
        depths = [place / max(1, len(rows) - 1) for place in range(len(rows))]
        errors = [0.0 if math.isnan(error := row.standard_error(column)) else error for row in rows]
        axes.errorbar(depths, [row.score(column) for row in rows], yerr=errors, marker="o", label=_shown(name))
    if len(networks) == 1:
        axes.set_xticks(depths, [_shown(row.layer) for row in rows], rotation=60, ha="right")
    else:
        axes.set_xlabel("depth, from the first of the layers to the features")
        axes.legend(fontsize="small")
    axes.set_ylabel(_shown(title(column)))
    return figure


def _shown(name: str) -> str:
    return name.replace("$", r"\$")
