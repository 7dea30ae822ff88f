"""The job ``select``: from a config to a fine-tuned backbone and its price."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lightning_transfer.jobs.common import (
    console,
    earlier_folder,
    output_dir,
    overrides,
    plain_part,
    to_json,
    trainer_arguments,
)
from lightning_transfer.jobs.screen import chosen_backbones
from lightning_transfer.selection.select import FILE, select, tell
from lightning_transfer.utilities.files import try_to_write, write_atomically
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

RESULT = "selection.json"


def run(cfg: DictConfig) -> float:
    """Select and fine-tune what a config describes.

    Args:
        cfg: ``conf/select.yaml`` with its choices made.

    Returns:
        The value on test data: the objective of a sweep.
    """
    from hydra.core.hydra_config import HydraConfig

    folder = earlier_folder(cfg.resume, FILE, "leaderboard.json") or output_dir()
    found = select(
        chosen_backbones(cfg, HydraConfig.get().runtime.choices),
        plain_part(cfg, "target"),
        budget=cfg.budget,
        metrics=plain_part(cfg, "metrics"),
        rank_by=cfg.rank_by,
        epochs=cfg.epochs,
        learning_rate=cfg.learning_rate,
        max_samples=cfg.max_samples,
        trainer=trainer_arguments(cfg),
        output_dir=folder,
        seed=cfg.seed,
    )
    content = {
        "overrides": overrides(),
        "best": found.best,
        "checkpoint": str(found.checkpoint),
        "measure": found.measure,
        "value": found.value,
        "interval": [found.lower, found.upper],
        "runner_up": found.runner_up and asdict(found.runner_up),
        "price": dict(found.price),
        "curves": {name: list(values) for name, values in found.curves.items()},
    }
    try_to_write("The selection", folder, lambda: write_atomically(folder / RESULT, to_json(content)))
    terminal = console()
    terminal.print(tell(found), soft_wrap=True, markup=False)
    terminal.print(f"\nThe fine-tuned backbone: {plain(found.checkpoint)}", soft_wrap=True, markup=False)
    return found.value
