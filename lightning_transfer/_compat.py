"""The one place that reaches into private parts of Lightning, torchmetrics and PyTorch's loaders.

Each function names the versions that it was tried with. Where a later version breaks one, this file alone changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import MetricCollection

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from torch.utils.data import DataLoader
    from torchmetrics import Metric
    from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

    AxesType = _AX_TYPE  # what `Metric.plot` takes and gives; torchmetrics 1.8.0, 1.9.0
    PlotType = _PLOT_OUT_TYPE


def current_step(trainer: Trainer) -> int:
    """The step under which Lightning logs what happens now; lightning 2.6.0, 2.6.1, 2.6.6."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def request_loaders(trainer: Trainer, split: str) -> Any:
    """Ask for the loaders of ``"train"`` or ``"val"`` anew; lightning 2.6.0, 2.6.1, 2.6.6.

    Loaders that were handed to ``fit`` and hooks alike are asked. Nothing of them is iterated, nor does the Trainer use
    what comes.

    Args:
        trainer: A Trainer inside ``fit``.
        split: ``"train"`` or ``"val"``.

    Returns:
        A loader or a collection of them, ``None`` where the source defines none.
    """
    loop = trainer.fit_loop if split == "train" else trainer.fit_loop.epoch_loop.val_loop
    source = loop._data_source
    return source.dataloader() if source.is_defined() and source.instance is not None else None


def validates_in_turn(trainer: Trainer) -> bool:
    """Whether batches of the validation come from one loader after the other; lightning 2.6.0, 2.6.1, 2.6.6.

    A ``CombinedLoader`` of another mode gives batches of all loaders at once.

    Args:
        trainer: A Trainer whose validation has been set up.
    """
    combined = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return combined is None or combined._mode == "sequential"


def datamodule_of(module: LightningModule) -> LightningDataModule | None:
    """The datamodule that a module is run on, if it is run by a Trainer and on one; lightning 2.6.0, 2.6.1, 2.6.6."""
    return getattr(module._trainer, "datamodule", None)


def before_batch_transfer(trainer: Trainer, batch: Any, dataloader_idx: int) -> Any:
    """Run the hook before a batch is moved, of module or datamodule; lightning 2.6.0, 2.6.1, 2.6.6."""
    return trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=dataloader_idx)


def spawns_processes(trainer: Trainer) -> bool:
    """Whether a Trainer forks or spawns its processes; lightning 2.6.0, 2.6.1, 2.6.6."""
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def starts_script_again(trainer: Trainer) -> bool:
    """Whether a Trainer starts the program once more for each process; lightning 2.6.0, 2.6.1, 2.6.6."""
    from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

    return isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)


def stop_workers(loader: DataLoader[Any]) -> None:
    """End the processes of a loader whose workers persist, if they run; torch 2.11.0, 2.14.1."""
    iterator, loader._iterator = loader._iterator, None
    if iterator is not None:
        iterator._shutdown_workers()  # type: ignore[attr-defined]


def mark_updated(metric: Metric) -> None:
    """Let a metric whose states were set from outside know that it has data; torchmetrics 1.8.0, 1.9.0."""
    metric._update_count = 1


def default_states(metric: Metric) -> dict[str, Tensor | list[Any]]:
    """The states that a metric starts from, by name; torchmetrics 1.8.0, 1.9.0."""
    return metric._defaults


@contextmanager
def callbacks_of_packages_sought_once() -> Iterator[None]:
    """Let Trainers made meanwhile remember which installed packages add callbacks; lightning 2.6.0, 2.6.1, 2.6.6.

    Each Trainer reads the metadata of every installed package, which takes longer than all else that it does at first.
    """
    from lightning.fabric.utilities import registry as module

    registry: Any = module
    original = registry.entry_points
    registry.entry_points = _entry_points_once
    try:
        yield
    finally:
        registry.entry_points = original


_entry_points_once = cache(entry_points)


class LinkedCollection(MetricCollection):
    """A collection that links shared states again only where one was replaced; torchmetrics 1.8.0, 1.9.0.

    Linking all of them after every batch takes a fifth of the time of an update on a GPU.
    """

    def _compute_groups_create_state_ref(self, copy: bool = False) -> None:
        if copy or self._state_is_copy or not self._share_states():
            super()._compute_groups_create_state_ref(copy)

    def _share_states(self) -> bool:
        """Whether all groups do, with the number of updates noted."""
        for names in self._groups.values():
            first, *others = (vars(getattr(self, name)) for name in names)
            for states in others:
                if not all(name in states and states[name] is first.get(name) for name in first["_defaults"]):
                    return False
                states["_update_count"] = first["_update_count"]
        return True
