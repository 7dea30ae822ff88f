"""The job ``study``: from a config to rows of scores and outcomes, judged and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.configs import load_config
from lightning_transfer.jobs.common import console, earlier_folder, output_dir, plain_part, trainer_arguments
from lightning_transfer.jobs.screen import chosen_backbones
from lightning_transfer.selection.study import study
from lightning_transfer.selection.study_table import FILE, REFERENCES, StudyTable
from lightning_transfer.utilities.errors import JobFailedError
from lightning_transfer.utilities.files import lock_folder, try_to_write, write_atomically
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> float:
    """Run the study that a config describes.

    Args:
        cfg: ``conf/study.yaml`` with its choices made.

    Returns:
        The mean regret of the best score.

    Raises:
        ValueError: If an argument is wrong.
        JobFailedError: If no pair gives an outcome that can be judged.
        KeyboardInterrupt: After what was done has been shown and written, if the study was interrupted.
    """
    from hydra.core.hydra_config import HydraConfig

    folder = output_dir()
    _take_over(earlier_folder(cfg.resume, FILE), folder)
    names = [cfg.targets] if isinstance(cfg.targets, str) else cfg.targets
    targets = {str(name): _target(str(name), plain_part(cfg, "target_options")) for name in names}
    table = study(
        chosen_backbones(cfg, HydraConfig.get().runtime.choices),
        targets,
        plain_part(cfg, "metrics"),
        trainer=trainer_arguments(cfg),
        output_dir=folder,
        **plain_part(cfg, "study"),
    )
    truth = next(iter(table.modes), "full")
    try_to_write("The judgement of the study", folder, lambda: table.save(folder, truth))
    names = ", ".join(path.name for path in sorted(folder.glob("study.*")))
    terminal = console()
    terminal.print(plain(str(table)) if truth == "full" else "\n".join(table.headline(truth)), soft_wrap=True)
    if names:
        terminal.print(f"\nWritten to {plain(folder)}: {names}", soft_wrap=True, markup=False)
    if table.info.get("interrupted"):
        raise KeyboardInterrupt
    try:
        return float(table.judge(truth).drop(index=list(REFERENCES), errors="ignore")["top1_regret"].min())
    except ValueError as error:
        if cfg.study.part is not None:
            return float("nan")  # other parts have the rest
        raise JobFailedError(f"{table.headline(truth)[0]} {error}") from error


def _target(name: str, options: dict[str, Any]) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.merge(load_config("target", name), options)


def _take_over(earlier: Path | None, folder: Path) -> None:
    """Put the rows of an earlier run into the folder of this one."""
    if earlier is None or earlier.resolve() == folder.resolve():
        return
    rows = StudyTable.load(earlier).to_text()
    with lock_folder(folder):
        write_atomically(folder / FILE, rows)
