"""Checkpoints that are there as a whole or not at all."""

from __future__ import annotations

import pytest
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_transfer.callbacks.checkpoint import WholeCheckpoints, keep_checkpoints_whole


def test_checkpoints_are_whole(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"epoch": 1}, path)
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        WholeCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert WholeCheckpoints().load_checkpoint(path) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_trainer_writes_whole_checkpoints_unless_it_has_a_way_of_its_own(tmp_path):
    options = {"accelerator": "cpu", "logger": False, "max_steps": 1, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "limit_val_batches": 0, "default_root_dir": tmp_path}
    trainer = Trainer(**options)
    keep_checkpoints_whole(trainer)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpoints)
    assert WholeCheckpoints().load_checkpoint(tmp_path / "x.ckpt")["global_step"] == 1

    class Own(WholeCheckpoints):
        pass

    trainer = Trainer(**options, plugins=[own := Own()])
    keep_checkpoints_whole(trainer)
    assert trainer.strategy.checkpoint_io is own
    assert isinstance(own, CheckpointIO)
