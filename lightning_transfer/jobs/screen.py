"""The job ``screen``: from a config to a leaderboard, shown and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.jobs.common import (
    console,
    earlier_folder,
    feature_cache,
    output_dir,
    overrides,
    plain_part,
    trainer_arguments,
)
from lightning_transfer.report.console import one_line
from lightning_transfer.report.loggers import log_leaderboard
from lightning_transfer.screening.layers import plot_layers
from lightning_transfer.screening.screen import screen
from lightning_transfer.utilities.errors import JobFailedError
from lightning_transfer.utilities.figures import png_bytes
from lightning_transfer.utilities.files import try_to_write, write_atomically
from lightning_transfer.utilities.instantiate import instantiate
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lightning_transfer.screening.leaderboard import Leaderboard


def run(cfg: DictConfig) -> float:
    """Screen what a config describes.

    Args:
        cfg: ``conf/screen.yaml`` with its choices made.

    Returns:
        The best score in the column that ranks: the objective of a sweep.

    Raises:
        ValueError: If no backbone could be built, by names or values that are wrong.
        JobFailedError: If no backbone has that score.
        KeyboardInterrupt: After what was done has been shown and written, if the screen was interrupted.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    folder = output_dir()
    loggers = instantiate(cfg.logger) if cfg.get("logger") else {}
    board = screen(
        chosen_backbones(cfg, HydraConfig.get().runtime.choices),
        plain_part(cfg, "target"),
        plain_part(cfg, "metrics"),
        reference=plain_part(cfg, "reference") if cfg.get("reference") else None,
        rank_by=cfg.rank_by,
        split=cfg.split,
        max_samples=cfg.max_samples,
        input_key=cfg.input_key,
        label_key=cfg.label_key,
        groups=cfg.groups,
        picture_memory=cfg.picture_memory,
        optimize=cfg.optimize,
        cache=feature_cache(cfg) or False,
        cache_key=cfg.cache_key,
        layers=list(cfg.layers) if OmegaConf.is_list(cfg.layers) else cfg.layers,
        aggregate=cfg.aggregate,
        trainer=trainer_arguments(cfg),
        output_dir=folder,
        error_bars=cfg.error_bars,
        relatedness=plain_part(cfg, "relatedness"),
        resume=earlier_folder(cfg.resume, "leaderboard.json"),
        info={"overrides": overrides()},
        race=cfg.race,
    )
    _refuse_unbuilt(board)
    for logger in loggers.values():
        try_to_write(f"What {type(logger).__name__} takes", folder, partial(log_leaderboard, board, logger))
    if any(row.layer for row in board.rows) and find_spec("matplotlib") is not None:
        file = folder / "leaderboard_layers.png"
        try_to_write("The figure of the layers", folder, lambda: write_atomically(file, png_bytes(plot_layers(board))))
    if HydraConfig.get().mode is RunMode.MULTIRUN and len(board) == 1:  # the table comes at the end of the sweep
        console().print(f"{one_line(board)} ({plain(folder)})", soft_wrap=True, markup=False)
    else:
        show(board, folder)
    if board.info.get("interrupted"):
        raise KeyboardInterrupt
    try:
        if board.ranks_by_default and any(math.isfinite(row.score("logme")) for row in board.rows):
            board.rank_by = "logme"  # jobs of a search must be comparable, whether their backbones have heads or not
        return board.best_score
    except ValueError as error:
        raise JobFailedError(str(error)) from error


def show(board: Leaderboard, folder: Path) -> None:
    """Print a leaderboard and where its files are.

    Args:
        board: The result of a screen.
        folder: Where it was saved.
    """
    terminal = console()
    terminal.print(board)
    names = ", ".join(path.name for path in sorted(folder.glob("leaderboard*.*")))
    if names:
        terminal.print(f"\nWritten to {plain(folder)}: {names}", soft_wrap=True, markup=False)


def _refuse_unbuilt(board: Leaderboard) -> None:
    failures = [(row.backbone, row.failure) for row in board.rows if row.failure is not None and row.parameters is None]
    if not failures or len(failures) < len(board):
        return
    (name, failure), *others = failures
    more = f" ({len(others)} more could not be built either)" if others else ""
    kind = ValueError if failure.bad_input else JobFailedError
    raise kind(f"{name}: {failure.message or failure.kind}{more}")


def chosen_backbones(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any] | list[Any]:
    """The chosen backbone under the name of its config, or the zoo.

    Args:
        cfg: The config.
        choices: What was chosen from each group of configs.
    """
    if cfg.get("backbone") is None:
        zoo = plain_part(cfg, "zoo")
        return _expand(zoo) if choices.get("zoo") == "named" else zoo
    if choices.get("backbone") == "named":
        return {str(cfg.backbone.backbone): plain_part(cfg, "backbone")}
    return {str(choices["backbone"]): plain_part(cfg, "backbone")}


def _expand(zoo: Mapping[str, Any]) -> dict[str, Any] | list[Any]:
    from lightning_transfer.backbones import expand_names

    names = expand_names(zoo["names"], zoo["max_parameters"])
    if not names:
        raise ValueError("Expected `zoo` to name a backbone or more, such as 'zoo=[timm/resnet*]', but got none.")
    if zoo["pretrained"]:
        return names
    builder = "lightning_transfer.backbones.load_backbone"
    return {f"{name}_random": {"_target_": builder, "backbone": name, "pretrained": False} for name in names}
