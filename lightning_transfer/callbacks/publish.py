"""Hand values and figures to everything that listens to a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from lightning_transfer._compat import current_step

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.loggers import Logger
    from matplotlib.figure import Figure


def publish_values(trainer: Trainer, values: Mapping[str, float], prefix: str, to_loggers: bool = True) -> None:
    """Put values where callbacks, sweepers and loggers find them.

    They go straight to ``trainer.callback_metrics``, unrounded: the hooks in which ``LightningModule.log`` is allowed
    come too late for step 0, and it would average a value logged at the start of training into the first epoch.

    Args:
        trainer: A Trainer inside ``fit``.
        values: Names without prefix, and finite numbers.
        prefix: Group of the names: ``prefix/name``, with each logger's own separator.
        to_loggers: Also write a row to every logger, at the current step.
    """
    device = trainer.strategy.root_device
    device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    metrics = {
        f"{prefix}/{name}": torch.tensor(value, dtype=torch.float64, device=device) for name, value in values.items()
    }
    trainer.callback_metrics.update(metrics)
    if not to_loggers or not values:
        return
    if trainer.loggers:
        trainer.logged_metrics.update(metrics)
    for logger in trainer.loggers:
        row = {f"{prefix}{logger.group_separator}{name}": value for name, value in values.items()}
        logger.log_metrics({**row, "epoch": trainer.current_epoch}, step=current_step(trainer))
        logger.save()


def publish_figures(trainer: Trainer, figures: Mapping[str, Callable[[], Figure]], prefix: str) -> None:
    """Draw figures for those loggers that take them, such as TensorBoard's, Weights & Biases' and MLflow's.

    Args:
        trainer: A Trainer inside ``fit``; only its first process draws.
        figures: Names without prefix, and what draws each one; not called where no logger wants a figure.
        prefix: Group of the names.
    """
    if not trainer.is_global_zero:
        return
    takers = [taker for taker in map(figure_taker, trainer.loggers) if taker is not None]
    if not takers:
        return
    for name, draw in figures.items():
        figure = draw()
        for take in takers:
            take(f"{prefix}/{name}", figure, current_step(trainer))


def figure_taker(logger: Logger) -> Callable[[str, Any, int], Any] | None:
    """What hands a figure to a logger, by its key, itself and the step; None for a logger that takes none.

    Args:
        logger: TensorBoard's, Weights & Biases' and MLflow's take figures.
    """
    if find_spec("matplotlib") is None:
        return None
    if hasattr(logger, "log_image"):  # Weights & Biases
        return lambda key, figure, step: logger.log_image(key=key, images=[figure], step=step)
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_figure"):  # TensorBoard
        return lambda key, figure, step: experiment.add_figure(key, figure, global_step=step, close=False)
    if hasattr(experiment, "log_figure") and hasattr(logger, "run_id"):  # MLflow
        return lambda key, figure, step: experiment.log_figure(logger.run_id, figure, f"{key}_{step}.png")
    return None
