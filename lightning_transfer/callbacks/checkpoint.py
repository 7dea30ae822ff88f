"""Checkpoints that a resumed run goes on with."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override

from lightning_transfer.backbones.pickles import check_file
from lightning_transfer.utilities.files import write_atomically

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class ContinuedCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` that goes on where a resumed run stopped when it writes to another folder too."""

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there as a whole or not at all, and are looked at before they are read.

    Lightning writes to the folder for temporary files and moves from there: between two disks that is a copy, of which
    a kill or a full disk leaves a part.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if _is_elsewhere(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())

    @override
    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if not _is_elsewhere(path):
            check_file(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)


def keep_checkpoints_whole(trainer: Trainer) -> None:
    """Let a Trainer write and read its checkpoints by :class:`WholeCheckpoints`, where it does as Lightning does.

    Args:
        trainer: Before it is used; strategies and plugins with a way of their own keep it.
    """
    with suppress(NotImplementedError):  # strategies whose checkpoints are folders
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()


def _is_elsewhere(path: Any) -> bool:
    return "://" in str(path)
