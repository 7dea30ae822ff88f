"""The jobs of the command line: from a Hydra config to a leaderboard or a bound, shown and written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.experimental.callback import Callback
from rich.console import Console

from lightning_transfer.report.console import bounds_table
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.zoo import combine_zoo_scores
from lightning_transfer.utilities.errors import JobFailedError
from lightning_transfer.utilities.files import write_atomically
from lightning_transfer.utilities.instantiate import instantiate
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WIDTH_OF_FILES = 160  # columns where output goes to a file or pipe


def run_screen(cfg: DictConfig) -> float:
    """Screen what a config describes.

    Args:
        cfg: ``conf/screen.yaml`` with its choices made.

    Returns:
        The best score in the column that ranks: the objective of a sweep.

    Raises:
        JobFailedError: If no backbone has that score.
        KeyboardInterrupt: After what was done has been shown and written, if the screen was interrupted.
    """
    from hydra.core.hydra_config import HydraConfig

    from lightning_transfer.screening.screen import screen

    output_dir = Path(HydraConfig.get().runtime.output_dir)
    loggers = instantiate(cfg.logger) if cfg.get("logger") else {}
    board = screen(
        _backbones(cfg, HydraConfig.get().runtime.choices),
        _plain(cfg, "target"),
        _plain(cfg, "metrics"),
        reference=_plain(cfg, "reference") if cfg.get("reference") else None,
        rank_by=cfg.rank_by,
        split=cfg.split,
        max_samples=cfg.max_samples,
        trainer=_trainer_arguments(cfg),
        output_dir=output_dir,
        error_bars=cfg.error_bars,
        relatedness=_plain(cfg, "relatedness"),
        resume=cfg.resume,
    )
    if all(row.failed and row.feature_dim is None for row in board.rows) and not board.info.get("interrupted"):
        first, *others = board.rows
        more = f" ({len(others)} more could not be built either)" if others else ""
        raise ValueError(f"{first.backbone}: {first.status.partition(': ')[2] or first.status}{more}")
    for logger in loggers.values():
        for row in board.rows:
            logger.log_metrics({f"{row.backbone}/{column}": score for column, score in row.scores.items()}, step=0)
        logger.finalize("success")
    show(board, output_dir)
    if board.info.get("interrupted"):
        raise KeyboardInterrupt
    try:
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
    names = ", ".join(path.name for path in sorted(folder.glob("leaderboard.*")))
    terminal.print(f"\nWritten to {plain(folder)}: {names}", soft_wrap=True, markup=False)


def console() -> Console:
    """Where jobs print: a terminal as wide as it is, or a file or pipe with room for a whole table."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False)


class CombineJobs(Callback):
    """A Hydra callback that shows and saves what all jobs of a sweep found, side by side."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Join the leaderboards of the jobs, one for each target, or their bounds.

        Args:
            config: Hydra's config of the sweep.
        """
        folder = Path(config.hydra.sweep.dir).absolute()
        boards = [Leaderboard.load(path.parent) for path in sorted(folder.glob("*/leaderboard.json"))]
        for board in combine(boards):
            if len(board) > 1:
                name = (
                    "" if len({str(other.info.get("target")) for other in boards}) == 1 else str(board.info["target"])
                )
                board.save(folder / name)
                show(board, folder / name)
        bounds = [json.loads(path.read_text()) for path in sorted(folder.glob("*/relatedness.json"))]
        if len(bounds) > 1:
            write_atomically(folder / "relatedness.json", json.dumps(bounds, indent=2).encode())
            console().print(bounds_table(bounds))


def combine(boards: list[Leaderboard]) -> list[Leaderboard]:
    """Join leaderboards of the same target and samples.

    Args:
        boards: Leaderboards of screens.

    Returns:
        One leaderboard for each target; a backbone that comes twice is numbered.
    """
    groups: dict[str, list[Leaderboard]] = {}
    for board in boards:
        groups.setdefault(repr(sorted(board.info.items(), key=str)), []).append(board)
    return [_join(group) for group in groups.values()]


def _join(boards: list[Leaderboard]) -> Leaderboard:
    rows: dict[str, Any] = {}
    for row in (row for board in boards for row in board.rows):
        name, count = row.backbone, 1
        while name in rows:
            count += 1
            name = f"{row.backbone} ({count})"
        rows[name] = replace(row, backbone=name)
    first = boards[0]
    same = all(board.settings == first.settings for board in boards)
    columns = {column for row in rows.values() for column in row.scores}
    return Leaderboard(
        combine_zoo_scores(list(rows.values())),
        rank_by=first.rank_by if first.rank_by in columns else None,
        lower_is_better=first.lower_is_better,
        info=first.info,
        settings=first.settings if same else None,
    )


def run_relate(cfg: DictConfig) -> float:
    """Relate a reference to a target through a backbone, as a config describes.

    Args:
        cfg: ``conf/relate.yaml`` with its choices made.

    Returns:
        The bound: the objective of a sweep, lower is better.
    """
    from hydra.core.hydra_config import HydraConfig

    from lightning_transfer.screening.relate import relate

    output_dir = Path(HydraConfig.get().runtime.output_dir)
    result = relate(
        _plain(cfg, "backbone"),
        _plain(cfg, "reference"),
        _plain(cfg, "target"),
        split=cfg.split,
        evaluation_split=cfg.evaluation_split,
        max_samples=cfg.max_samples,
        trainer=_trainer_arguments(cfg),
        output_dir=output_dir,
        **_plain(cfg, "relatedness"),
    )
    print(result)
    names = ", ".join(path.name for path in sorted(output_dir.glob("relatedness*")))
    print(f"\nWritten to {plain(output_dir)}: {names}")
    return result.bound


def _backbones(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen backbone under the name of its config, or the zoo."""
    if cfg.get("backbone") is None:
        return _plain(cfg, "zoo")
    if "backbone" not in choices:  # a list, whose configs Hydra merges into one
        raise ValueError("backbone takes one name; to screen several use a zoo, or -m backbone=NAME,NAME.")
    return {str(choices["backbone"]): _plain(cfg, "backbone")}


def _plain(cfg: DictConfig, key: str) -> dict[str, Any]:
    """A part of the config as plain containers, every value known."""
    from omegaconf import OmegaConf

    if cfg.get(key) is None:
        raise ValueError(f"{key} has no value: add {key}=NAME.")
    part: Any = OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
    return cast("dict[str, Any]", part)


def _trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """The arguments of the Trainer that is made for each pass."""
    arguments = _plain(cfg, "trainer")
    arguments.pop("_target_", None)
    built: dict[str, Any] = instantiate(arguments)
    return built
