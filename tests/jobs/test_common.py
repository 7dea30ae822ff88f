"""What the jobs share."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lightning_transfer.jobs import common
from lightning_transfer.utilities.errors import Failure


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """A run in a folder, with what was typed."""
    (tmp_path / "run").mkdir()
    words = ["epochs=3", "target=digits"]
    monkeypatch.setattr(common, "overrides", lambda: words)
    monkeypatch.setattr(common, "output_dir", lambda: tmp_path / "run")
    return words


def test_parts_of_the_config_are_plain_and_complete():
    cfg = OmegaConf.create({"size": 4, "target": {"n": "${size}", "names": ["a"]}, "gap": {"n": "???"}, "none": None})
    assert common.plain_part(cfg, "target") == {"n": 4, "names": ["a"]}
    assert type(common.plain_part(cfg, "target")["names"]) is list
    with pytest.raises(ValueError, match="none has no value: add none=NAME"):
        common.plain_part(cfg, "none")
    with pytest.raises(MissingMandatoryValue, match="gap"):
        common.plain_part(cfg, "gap")


def test_the_class_of_a_trainer_is_no_argument():
    cfg = OmegaConf.create({"trainer": {"_target_": "lightning.pytorch.Trainer", "devices": 1}})
    assert common.trainer_arguments(cfg) == {"devices": 1}


def test_jobs_of_a_sweep_take_gpus_of_their_own_and_single_runs_the_first(monkeypatch):
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": 1}})
    monkeypatch.setattr("lightning_transfer.utilities.devices.own_gpu", lambda _, number: {"devices": [number]})
    hydra = SimpleNamespace(mode=RunMode.MULTIRUN, job=SimpleNamespace(num=3))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    assert common.trainer_arguments(cfg) == {"accelerator": "auto", "devices": [3]}
    hydra.mode = RunMode.RUN
    assert common.trainer_arguments(cfg) == {"accelerator": "auto", "devices": 1}


def test_a_sweep_of_screens_on_several_devices_spawns_its_processes(monkeypatch):
    trainer = {"accelerator": "cpu", "devices": 2}
    hydra = SimpleNamespace(mode=RunMode.MULTIRUN, job=SimpleNamespace(num=0))
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: hydra)
    with pytest.raises(ValueError, match=r"start the whole sweep again: use \+\+trainer.strategy=ddp_spawn"):
        common.trainer_arguments(OmegaConf.create({"trainer": trainer}))
    spawned = {**trainer, "strategy": "ddp_spawn"}
    assert common.trainer_arguments(OmegaConf.create({"trainer": spawned})) == spawned
    hydra.mode = RunMode.RUN
    assert common.trainer_arguments(OmegaConf.create({"trainer": trainer})) == trainer


def test_where_a_run_goes_on_from(typed, tmp_path):
    assert common.earlier_folder(None, "a.json") is None
    assert common.earlier_folder("auto", "a.json", "b.ckpt") is None
    (tmp_path / "run/b.ckpt").touch()
    assert common.earlier_folder("auto", "a.json", "b.ckpt") == tmp_path / "run"
    assert common.earlier_folder(str(tmp_path), "a.json") == tmp_path


def test_a_finished_result_is_that_of_the_same_overrides(typed, tmp_path):
    earlier, here = tmp_path / "earlier", tmp_path / "run/out.json"

    def use(content):
        return float(content["value"])

    assert common.finished_result(None, here, use) is None
    with pytest.raises(FileNotFoundError, match="earlier"):
        common.finished_result(earlier, here, use)
    earlier.mkdir()
    assert common.finished_result(earlier, here, use) is None
    written = {"overrides": [*typed, "resume=elsewhere", "hydra.run.dir=there"], "value": 7}
    (earlier / "out.json").write_bytes(common.to_json(written))
    assert common.finished_result(earlier, here, use) == {"format": common.FORMAT, **written}
    assert json.loads(here.read_text()) == {"format": common.FORMAT, **written}
    (earlier / "out.json").write_bytes(common.to_json({**written, "overrides": ["epochs=4", "target=digits"]}))
    assert common.finished_result(earlier, here, use) is None
    (earlier / "out.json").write_text("{")
    with pytest.raises(ValueError, match=r"out\.json"):
        common.finished_result(earlier, here, use)


def test_failures_of_a_sweep(tmp_path):
    for job, code in (("0", 1), ("1", 2), ("2", 1)):
        common.write_failure(tmp_path / job / "failure.json", Failure("ValueError", "bad"), code)
    common.write_failure(tmp_path / "failure-3.json", Failure("ValueError", "bad"), 2)  # of a folder of several jobs
    common.forget_failure(tmp_path / "2/failure.json")
    common.forget_failure(tmp_path / "9/failure.json")
    assert sorted(common.read_failures(tmp_path)) == [1, 2, 2]


def test_a_table_in_a_file_has_room(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert common.console().width == 160


@pytest.mark.parametrize("harm", [{"value": "x"}, {"value": None}, {"value": []}])
def test_a_finished_result_that_cannot_be_shown_is_named(typed, tmp_path, harm):
    (tmp_path / "out.json").write_bytes(common.to_json({"overrides": typed, **harm}))
    with pytest.raises(ValueError, match=r"out\.json"):
        common.finished_result(tmp_path, tmp_path / "run/out.json", lambda content: float(content["value"]))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"exit_code": "x"}', '{"exit_code": 256}', '{"exit_code": 0}'])
def test_a_damaged_note_of_a_failure_counts_as_one(tmp_path, content):
    (tmp_path / "0").mkdir()
    (tmp_path / "0/failure.json").write_text(content)
    (tmp_path / "1/failure.json").mkdir(parents=True)
    common.write_failure(tmp_path / "2/failure.json", Failure("ValueError", "x"), 2)
    assert common.read_failures(tmp_path) == [1, 1, 2]
