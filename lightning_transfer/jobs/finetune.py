"""The job ``finetune``: from a config to a fine-tuned backbone, with what its monitors saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.model_helpers import is_overridden
from rich.table import Table

from lightning_transfer.callbacks.checkpoint import keep_checkpoints_whole
from lightning_transfer.callbacks.monitor import FeatureMonitor
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.data.loading import load_data
from lightning_transfer.extraction import quiet_lightning
from lightning_transfer.finetuning import MODES, FineTuningModule
from lightning_transfer.jobs.common import (
    console,
    earlier_folder,
    finished_result,
    gpu_of_job,
    output_dir,
    overrides,
    refuse_restarts,
    to_json,
)
from lightning_transfer.utilities.checks import check_one_of, check_positive_int, check_seed
from lightning_transfer.utilities.files import try_to_write, write_atomically
from lightning_transfer.utilities.instantiate import instantiate
from lightning_transfer.utilities.text import rich_markup

if TYPE_CHECKING:
    from omegaconf import DictConfig

FILE = "finetune.json"
_LAST = "checkpoints/last.ckpt"


def run(cfg: DictConfig) -> float:
    """Fine-tune what a config describes.

    Args:
        cfg: ``conf/finetune.yaml`` with its choices made.

    Returns:
        The objective of a sweep: the value of ``cfg.objective`` in the best epoch, if a checkpoint monitors it, else
        its last value; for a run that is stopped before its first epoch ends, that of the weights as they are.

    Raises:
        ValueError: If nothing was logged under that name (the message says what was), Lightning refuses the options, or
            ``-m`` is asked for with a strategy that starts the script again.
    """
    from omegaconf import OmegaConf

    folder = output_dir()
    earlier = earlier_folder(cfg.resume, FILE, _LAST)
    done = finished_result(earlier, folder / FILE, _as_shown)
    if done is not None:
        _show(done, folder)
        return objective_of(done)
    if cfg.epochs != -1 or all(
        cfg.trainer.get(limit) is None for limit in ("max_steps", "max_time")
    ):  # refused before data and weights are read
        check_positive_int(cfg.epochs, "epochs")
    check_one_of(cfg.mode, MODES, "mode")
    check_seed(cfg.seed, bits=32)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    with quiet_lightning(), _as_bad_input():
        target = load_data(cfg.target, "target")
        target.prepare_data()
        target.setup("fit")
        module = FineTuningModule.for_target(
            instantiate(cfg.backbone), target, optimizer=instantiate(cfg.optimizer), **instantiate(cfg.finetuning)
        )
        cfg.objective = cfg.objective or module.objective
        callbacks = {
            name: instantiate(node)
            for name, node in (cfg.get("callbacks") or {}).items()
            if cfg.get("reference") or not ("reference" in node and OmegaConf.is_interpolation(node, "reference"))
        }
        _refuse_equal(callbacks)
        checkpoints = [callback for callback in callbacks.values() if isinstance(callback, ModelCheckpoint)]
        best = next((checkpoint for checkpoint in checkpoints if checkpoint.monitor == cfg.objective), None)
        trainer: pl.Trainer = instantiate(
            cfg.trainer,
            callbacks=list(callbacks.values()),
            logger=list(instantiate(cfg.logger).values()) if cfg.get("logger") else False,
            enable_checkpointing=bool(checkpoints),
            **gpu_of_job(cfg.trainer),
        )
        refuse_restarts(trainer)
        keep_checkpoints_whole(trainer)
        start = cfg.ckpt_path or _last_checkpoint(earlier)
        trainer.fit(module, datamodule=target, ckpt_path=start, **_safely(trainer.fit))
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if cfg.objective not in logged and not trainer.interrupted:  # no epoch was left, or none came to its end
            logged |= dict(trainer.validate(module, datamodule=target, verbose=False)[0])
        objective = _objective(cfg.objective, logged, best)
        tested: Mapping[str, float] = {}
        if cfg.test and _has_test(target) and not trainer.interrupted:
            path = best.best_model_path or None if best is not None else None
            (tested,) = trainer.test(module, datamodule=target, ckpt_path=path, verbose=False, **_safely(trainer.test))
    if trainer.is_global_zero:
        summary = {
            "overrides": overrides(),
            "objective": {cfg.objective: objective},
            "direction": cfg.direction,
            "best_checkpoint": best.best_model_path if best is not None else "",
            "logged": logged,
            "test": dict(tested),
            "stopped": [why for callback in callbacks.values() if (why := getattr(callback, "stopped_reason", ""))],
            "history": {name: callback.history for name, callback in callbacks.items() if hasattr(callback, "history")},
        }
        try_to_write("The result", folder, lambda: write_atomically(folder / FILE, to_json(summary)))
        _show(summary, folder)
    return objective


def objective_of(summary: Mapping[str, Any]) -> float:
    """The objective that a ``finetune.json`` holds."""
    return float(next(iter(summary["objective"].values())))


def _has_test(target: pl.LightningDataModule) -> bool:
    if isinstance(target, TransferDataModule):
        return target.test_dataset is not None
    return is_overridden("test_dataloader", target)


def _last_checkpoint(earlier: Path | None) -> Path | None:
    path = None if earlier is None else earlier / _LAST
    return path if path is not None and path.is_file() else None


@contextmanager
def _as_bad_input() -> Iterator[None]:
    """Say what Lightning thinks of the options without its frames: the program makes one line of a ``ValueError``."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error


def _safely(method: Callable[..., Any]) -> dict[str, bool]:
    """Ask for checkpoints to be loaded as data only, where this version of Lightning can be asked."""
    return {"weights_only": True} if "weights_only" in signature(method).parameters else {}


def _refuse_equal(callbacks: Mapping[str, pl.Callback]) -> None:
    """Two monitors of one kind need names of their own, for their values and in checkpoints."""
    names: dict[str, str] = {}
    for name, callback in callbacks.items():
        if isinstance(callback, FeatureMonitor):
            other = names.setdefault(callback.state_key, name)
            if other != name:
                raise ValueError(
                    f"Expected the callbacks {other} and {name} to publish under different names: type "
                    f"callbacks.{name}.name={name}."
                )


def _objective(name: str, logged: Mapping[str, float], best: ModelCheckpoint | None) -> float:
    if best is not None and best.best_model_score is not None:
        return float(best.best_model_score)
    if name not in logged:
        raise ValueError(f"The objective `{name}` was not logged; available are {', '.join(sorted(logged))}.")
    return logged[name]


def _as_shown(summary: Mapping[str, Any]) -> tuple[Table, list[str]]:
    table = Table(title="Before fine-tuning, and after it")
    for column in ("value", "before", "after"):
        table.add_column(column, justify="left" if column == "value" else "right")
    for history in summary["history"].values():
        for name in history[-1] if history else ():
            if name not in ("epoch", "step"):
                table.add_row(rich_markup(name), f"{history[0].get(name, math.nan):.4f}", f"{history[-1][name]:.4f}")
    for name, value in {**summary["logged"], **summary["test"]}.items():
        if name.startswith(("val/", "test/")):
            table.add_row(rich_markup(name), "", f"{value:.4f}")
    lines = [f"Stopped: {rich_markup(reason)}" for reason in summary["stopped"]]
    lines += [f"Objective {rich_markup(name)}: {value:.4f}" for name, value in summary["objective"].items()]
    if summary["best_checkpoint"]:
        lines.append(f"Best epoch: {rich_markup(summary['best_checkpoint'])}")
    objective_of(summary)
    return table, lines


def _show(summary: Mapping[str, Any], folder: Path) -> None:
    table, lines = _as_shown(summary)
    terminal = console()
    terminal.print(table)
    for line in [*lines, f"Written to {rich_markup(folder)}: {FILE}"]:
        terminal.print(line, soft_wrap=True)
