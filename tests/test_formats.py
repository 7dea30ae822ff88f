"""Files of older versions open in this one; see ``_fixtures/formats/*/README.md`` for what they are."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from _cli import exit_code
from torch import nn

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.data import Digits
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.jobs.common import FORMAT
from lightning_transfer.screening import Leaderboard

OLD = Path(__file__).parent / "_fixtures/formats/44bc5e4"
SCORES = ["h_score", "logme", "etran", "leep"]


def fixed_backbone(width: int) -> ModuleBackbone:
    """A small network whose weights are the same on every machine."""
    layers = nn.Linear(64, width), nn.Linear(width, 3)
    with torch.no_grad():
        for parameter in (parameter for layer in layers for parameter in layer.parameters()):
            parameter.copy_(((torch.arange(parameter.numel()) * 37) % 101).reshape(parameter.shape) / 128 - 0.375)
    net = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])
    return ModuleBackbone(net, input_shape=(1, 8, 8), name=f"net{width}")


def small_backbone() -> ModuleBackbone:
    """The network of the checkpoints."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    return ModuleBackbone(net, input_shape=(1, 8, 8))


def test_a_leaderboard_opens(tmp_path):
    board = Leaderboard.load(OLD / "screen")
    assert board.rank_by == "logme"
    assert board.columns == tuple(SCORES)
    assert [row.backbone for row in board.ranked()] == ["net12", "net8", "broken"]
    assert "no such layer" in board["broken"].status
    written = json.loads((OLD / "screen/leaderboard.json").read_text())["rows"]
    for row, record in zip(board.rows, written, strict=True):
        assert dict(row.scores) == record["scores"]
        assert dict(row.standard_errors) == record["standard_errors"]
        assert row.parts == record["parts"]
        assert row.parameters == record["parameters"]
    board.save(tmp_path)
    assert Leaderboard.load(tmp_path).rows == board.rows


def test_a_leaderboard_with_the_bound_opens():
    board = Leaderboard.load(OLD / "screen_reference")
    assert board.info["reference"] == "digits_5_9"
    assert board.columns == ("h_score", "task_relatedness")
    assert not board.higher_is_better("task_relatedness")


def test_a_screen_goes_on_from_an_old_folder(tmp_path):
    earlier = Leaderboard.load(OLD / "screen")
    zoo = {"net8": fixed_backbone(8), "net12": fixed_backbone(12), "net5": fixed_backbone(5)}
    board = screen(
        zoo, Digits(max_samples=60), SCORES, error_bars=4, resume=OLD / "screen", output_dir=tmp_path
    )  # fmt: skip
    assert [row.status for row in board.rows] == ["ok"] * 3
    for name in ("net8", "net12"):
        assert board[name].seconds == earlier[name].seconds  # taken over
        assert board[name].score("logme") == earlier[name].score("logme")
    assert board["net5"].seconds != earlier["net8"].seconds
    assert math.isfinite(board["net5"].score("logme"))
    with pytest.raises(ValueError, match="leaderboard of the same screen"):
        screen(zoo, Digits(max_samples=61), SCORES, error_bars=4, resume=OLD / "screen")


def test_a_screen_of_the_command_line_goes_on_from_an_old_folder(in_process):
    written = json.loads((OLD / "finetune/finetune.json").read_text())
    backbone = [override for override in written["overrides"] if "backbone" in override]
    assert not exit_code(
        "screen", *backbone, "target=digits", "max_samples=60", "error_bars=4",
        "metrics=[logme,h_score,leep,knn_accuracy,etran]", f"resume={OLD / 'screen_cli'}", "hydra.run.dir=again",
    )  # fmt: skip
    assert Leaderboard.load(in_process / "again").columns == Leaderboard.load(OLD / "screen_cli").columns


def test_a_run_goes_on_from_an_old_checkpoint_with_both_monitors():
    scores = TransferabilityMonitor(["logme", "leep"])
    bound = TaskRelatednessMonitor(Digits(), reference_samples=60, max_samples=60)
    trainer = pl.Trainer(
        max_epochs=1, callbacks=[scores, bound], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = Digits(max_samples=120)
    module = FineTuningModule(small_backbone(), 10)
    trainer.fit(module, datamodule=data, ckpt_path=OLD / "finetune/last.ckpt", weights_only=True)
    written = json.loads((OLD / "finetune/finetune.json").read_text())["history"]
    assert scores.history == written["transferability"]
    assert len(bound.history) == len(written["relatedness"]) == 2
    for record, old in zip(bound.history, written["relatedness"], strict=True):
        assert record["distribution_mismatch"] == old["distribution_mismatch"]
        assert record["step"] == old["step"]
    (result,) = bound.results.values()
    assert result.bound == written["relatedness"][-1]["bound"]


def test_a_finished_fine_tuning_of_old_is_taken_over(in_process):
    written = json.loads((OLD / "finetune/finetune.json").read_text())
    assert not exit_code("finetune", *written["overrides"], f"resume={OLD / 'finetune'}", "hydra.run.dir=again")
    assert json.loads((in_process / "again/finetune.json").read_text()) == {"format": FORMAT, **written}


def test_a_fine_tuning_goes_on_from_an_old_folder(in_process):
    written = json.loads((OLD / "finetune/finetune.json").read_text())
    (in_process / "old/checkpoints").mkdir(parents=True)
    shutil.copy(OLD / "finetune/last.ckpt", in_process / "old/checkpoints")
    overrides = [override for override in written["overrides"] if not override.startswith("epochs")]
    assert not exit_code(
        "finetune", *overrides, "epochs=2", "resume=old", "hydra.run.dir=again", "test=false", "~logger"
    )
    history = json.loads((in_process / "again/finetune.json").read_text())["history"]
    for name, before in written["history"].items():
        assert [record["epoch"] for record in history[name]] == [0, 0, 1]
        assert history[name][:2] == before
