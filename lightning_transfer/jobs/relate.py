"""The job ``relate``: from a config to the task-relatedness bound, shown and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_transfer.jobs.common import (
    earlier_folder,
    feature_cache,
    finished_result,
    output_dir,
    overrides,
    plain_part,
    trainer_arguments,
)
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

FILE = "relatedness.json"


def run(cfg: DictConfig) -> float:
    """Relate a reference to a target through a backbone, as a config describes.

    Args:
        cfg: ``conf/relate.yaml`` with its choices made.

    Returns:
        The bound: the objective of a sweep, lower is better.
    """
    from lightning_transfer.screening.candidates import check_relatedness
    from lightning_transfer.screening.relate import relate

    folder = output_dir()
    done = finished_result(earlier_folder(cfg.resume, FILE), folder / FILE, lambda done: float(done["bound"]))
    if done is not None:
        print(f"Taken over from an earlier run: bound {float(done['bound']):.4f}")
        return float(done["bound"])
    result = relate(
        plain_part(cfg, "backbone"),
        plain_part(cfg, "reference"),
        plain_part(cfg, "target"),
        split=cfg.split,
        evaluation_split=cfg.evaluation_split,
        max_samples=cfg.max_samples,
        input_key=cfg.input_key,
        label_key=cfg.label_key,
        cache=feature_cache(cfg) or False,
        cache_key=cfg.cache_key,
        trainer=trainer_arguments(cfg),
        output_dir=folder,
        info={"overrides": overrides()},
        **check_relatedness(plain_part(cfg, "relatedness")),
    )
    print(result)
    names = ", ".join(path.name for path in sorted(folder.glob("relatedness*")))
    if names:
        print(f"\nWritten to {plain(folder)}: {names}")
    return result.bound
