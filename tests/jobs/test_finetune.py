"""The job ``finetune``."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
from _training import make_trainer
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import LightningDataModule
from omegaconf import open_dict
from torch.utils.data import DataLoader

from lightning_transfer import cli
from lightning_transfer.jobs.common import refuse_restarts
from lightning_transfer.jobs.finetune import run


def _job(folder, *overrides):
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        cfg = compose("finetune", list(overrides), return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        cfg.backbone = {
            "_target_": "lightning_transfer.backbones.ModuleBackbone",
            "module": {"_target_": "torch.nn.Sequential", "_args_": [
                {"_target_": "torch.nn.Flatten"},
                {"_target_": "torch.nn.Linear", "in_features": 64, "out_features": 16},
                {"_target_": "torch.nn.ReLU"},
                {"_target_": "torch.nn.Linear", "in_features": 16, "out_features": 5},
            ]},
            "input_shape": [1, 8, 8],
        }  # fmt: skip
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg.hydra
    return cfg


SMALL = (
    "target=digits", "target.max_samples=200", "reference=digits_0_4", "trainer=cpu",
    "+trainer.enable_progress_bar=false", "callbacks.relatedness.reference_samples=100",
    "callbacks.relatedness.max_samples=60", "+callbacks.relatedness.options.rounds=1",
    "callbacks.relatedness.ground_cost=feature", "+callbacks.relatedness.options.tau=0.5",
)  # fmt: skip


def test_job_with_both_monitors(tmp_path, capsys):
    value = run(_job(tmp_path, *SMALL, "epochs=2", "mode=head_then_full"))
    summary = json.loads((tmp_path / "finetune.json").read_text())
    assert summary["objective"] == {"val/accuracy": value}
    assert {"transfer/logme", "transfer/leep", "transfer/task_relatedness", "val/loss"} <= set(summary["logged"])
    assert "test/accuracy" in summary["test"]
    assert [record["epoch"] for record in summary["history"]["relatedness"]] == [0, 0, 1]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert "distribution_mismatch" in capsys.readouterr().out
    rows = (tmp_path / "csv/metrics.csv").read_text().splitlines()
    assert "transfer/task_relatedness" in rows[0]


def test_job_resumes_and_still_knows_its_best_epoch(tmp_path):
    def job(folder, epochs, *overrides):
        (tmp_path / folder).mkdir()
        value = run(_job(tmp_path / folder, *SMALL[:2], *SMALL[3:5], f"epochs={epochs}", *overrides))
        return value, json.loads((tmp_path / folder / "finetune.json").read_text())

    value, first = job("first", 2, "~reference")
    best, last = (tmp_path / f"first/checkpoints/{name}.ckpt" for name in ("best", "last"))
    state = torch.load(last, weights_only=True)
    (kept,) = (kept for key, kept in state["callbacks"].items() if "Checkpoint" in key and kept["monitor"])
    kept["best_model_score"] = kept["kth_value"] = kept["best_k_models"][str(best)] = torch.tensor(0.99)
    torch.save(state, last)  # as if the first run had been lucky

    resumed, second = job("second", 4, "~reference", "~logger", f"ckpt_path={last}")
    assert list(second["history"]) == ["transferability"]
    assert [record["epoch"] for record in second["history"]["transferability"]] == [0, 0, 1, 2, 3]
    assert second["history"]["transferability"][:3] == first["history"]["transferability"]
    assert value < resumed == pytest.approx(0.99)
    assert second["best_checkpoint"] == str(best)
    assert best.exists()

    again, third = job("third", 2, "~reference", "~logger", f"ckpt_path={last}")  # nothing is left to do
    assert again == pytest.approx(0.99)
    assert third["test"] == first["test"]


def test_a_job_that_is_stopped_before_its_first_step_says_why_and_what_it_is_worth(tmp_path, capsys):
    overrides = [*SMALL[:2], *SMALL[3:5], "~reference", "~logger", "callbacks.transferability.metrics=logme"]
    value = run(_job(tmp_path, *overrides, "epochs=1", "callbacks.transferability.stop_below=1e9"))
    summary = json.loads((tmp_path / "finetune.json").read_text())
    assert summary["objective"] == {"val/accuracy": value}
    assert summary["logged"].keys() == {"transfer/logme", "val/accuracy", "val/loss"}
    (reason,) = summary["stopped"]
    assert f"Stopped: {reason}" in capsys.readouterr().out
    assert "1e+09" in reason


@pytest.mark.parametrize(("option", "message"), [("direction=up", "up"), ("objective=val/f1", r"val/f1.*val/accuracy")])
def test_what_lightning_refuses_is_bad_input(option, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(_job(tmp_path, *SMALL[:2], *SMALL[3:5], "epochs=1", "~reference", "~logger", option))


def test_what_ends_a_run_may_be_the_clock_alone(tmp_path):
    limits = ("epochs=-1", "+trainer.max_time={milliseconds: 50}")
    assert 0 < run(_job(tmp_path, *SMALL, "~reference", "~logger", *limits)) < 1


def test_equal_monitors_are_told_to_take_names(tmp_path):
    cfg = _job(tmp_path, *SMALL, "~reference", "~logger", "epochs=1")
    with open_dict(cfg):
        cfg.callbacks.again = cfg.callbacks.transferability
    with pytest.raises(ValueError, match=r"transferability and again .* type callbacks.again.name=again\."):
        run(cfg)


@pytest.mark.parametrize(("strategy", "mode", "refused"), [
    ("ddp", "MULTIRUN", True), ("ddp_spawn", "MULTIRUN", False), ("ddp", "RUN", False),
])  # fmt: skip
def test_a_sweep_refuses_strategies_that_start_the_script_again(strategy, mode, refused, tmp_path):
    _job(tmp_path, f"hydra.mode={mode}", "hydra.job.num=0")
    trainer = make_trainer(devices=2, strategy=strategy)
    trainer.strategy._configure_launcher()
    with pytest.raises(ValueError, match="ddp_spawn") if refused else nullcontext():
        refuse_restarts(trainer)


def test_a_sweep_compares_its_runs(in_process, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["finetune", "-m", "backbone=efficientnet_lite0_random", "++backbone.input_size=32", "mode=head",
                  "optimizer.lr=1e-6,1e-2", "epochs=2", "~reference", "~logger",
                  "callbacks.transferability.metrics=logme", "finetuning.warmup=0",
                  *SMALL[:2], *SMALL[3:5]])  # fmt: skip
    assert stop.value.code == 0
    (folder,) = in_process.glob("multirun/finetune/*/*")
    runs = json.loads((folder / "finetune.json").read_text())["runs"]
    values = [run["objective"]["val/accuracy"] for run in runs]
    assert values == sorted(values, reverse=True)
    assert {run["job"] for run in runs} == {"0", "1"}
    for entry in runs:
        own = json.loads((folder / entry["job"] / "finetune.json").read_text())
        assert own["objective"] == entry["objective"]
        assert f"optimizer.lr={('1e-06', '0.01')[int(entry['job'])]}" in own["overrides"]
    _, _, table = capsys.readouterr().out.rpartition("Fine-tuning runs")
    assert "optimizer.lr=0.01" in table
    assert "mode=head" not in table


def test_job_names_what_is_there_when_the_objective_is_missing(tmp_path):
    overrides = [*SMALL[:2], *SMALL[3:5], "epochs=1", "~reference", "callbacks=none", "optimizer=sgd"]
    with pytest.raises(ValueError, match=r"`val/f1` was not logged; available are .*val/accuracy"):
        run(_job(tmp_path, *overrides, "objective=val/f1", "~logger", "test=false"))


@pytest.mark.parametrize("name", ["default", "none", "early_stopping", "[default,early_stopping]"])
def test_callback_configs_compose(name, tmp_path):
    cfg = _job(tmp_path, f"callbacks={name}")
    assert cfg.callbacks is None or all("_target_" in node for node in cfg.callbacks.values())


def _result(folder):
    return json.loads((folder / "finetune.json").read_text())


def test_a_finished_run_is_taken_over_and_a_stopped_one_goes_on(tmp_path, monkeypatch):
    overrides = [*SMALL[:2], *SMALL[3:5], "~reference", "~logger", "callbacks.transferability.metrics=logme"]

    def job(name, *more):
        (tmp_path / name).mkdir(exist_ok=True)
        return run(_job(tmp_path / name, *overrides, *more))

    value = job("first", "epochs=1")
    monkeypatch.setattr("lightning_transfer.jobs.finetune.FineTuningModule.for_target", None)  # nothing runs again
    assert job("second", "epochs=1", f"resume={tmp_path / 'first'}") == value
    assert job("first", "epochs=1", "resume=auto") == value
    assert _result(tmp_path / "second") == _result(tmp_path / "first")
    monkeypatch.undo()
    (tmp_path / "first/finetune.json").unlink()  # as if it had been killed after its last epoch
    job("first", "epochs=2", "resume=auto")
    history = _result(tmp_path / "first")["history"]["transferability"]
    assert [record["epoch"] for record in history] == [0, 0, 1]
    job("fresh", "epochs=1", "resume=auto")  # nothing to go on from
    with pytest.raises(FileNotFoundError, match="nowhere"):
        job("third", "epochs=1", f"resume={tmp_path / 'nowhere'}")


def test_ctrl_c_is_an_interrupt_and_what_to_type_is_said(in_process, monkeypatch, capsys):
    def interrupted(self, trainer, module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(
        "lightning_transfer.callbacks.ContinuedCheckpoint.on_train_epoch_start", interrupted, raising=False
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["finetune", "epochs=3", "~reference", "~logger", "hydra.run.dir=out", *SMALL[:2], *SMALL[3:5],
                  "backbone=efficientnet_lite0_random", "backbone.input_size=32", "mode=head"])  # fmt: skip
    assert stop.value.code == 130
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "to go on" in line]
    assert line.startswith(
        "lightning-transfer: interrupted; to go on: lightning-transfer finetune epochs=3 '~reference'"
    )
    assert line.endswith(f"resume={in_process / 'out'}")
    assert (in_process / "out/checkpoints/last.ckpt").is_file()


class Plain(LightningDataModule):
    """Labelled pictures of somebody who does not know this package."""

    num_classes = 3

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        rows = [{"inputs": torch.rand(1, 8, 8, generator=generator), "labels": torch.tensor(i % 3)} for i in range(48)]
        return DataLoader(rows, batch_size=16)

    val_dataloader = predict_dataloader = train_dataloader


def test_a_datamodule_of_ones_own(tmp_path, monkeypatch):
    overrides = [SMALL[3], SMALL[4], "~reference", "~logger", "epochs=1", "callbacks.transferability.metrics=logme"]
    cfg = _job(tmp_path, *overrides)
    monkeypatch.setattr("lightning_transfer.jobs.finetune.load_data", lambda data, group: Plain())
    assert 0 <= run(cfg) <= 1
    assert _result(tmp_path)["test"] == {}
    monkeypatch.setattr(Plain, "num_classes", None)
    with pytest.raises(ValueError, match=r"`Plain` to say `num_classes`.*finetuning.num_outputs=N"):
        run(_job(tmp_path, *overrides))
