"""The job screen from the command line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from _cli import TINY, exit_code, run

from lightning_transfer.screening import Leaderboard


def test_screen_prints_a_table_and_writes_files(tmp_path):
    done = run(tmp_path, "screen", "backbone=efficientnet_lite0", "backbone.input_size=32", *TINY)
    assert done.returncode == 0, done.stderr
    assert "Ranked by H-score (higher is better) on digits: 60 train samples, 10 classes." in done.stdout
    folder = next(tmp_path.glob("outputs/screen/*/*"))
    assert f"Written to {folder}" in done.stdout
    assert {path.suffix for path in folder.glob("leaderboard.*")} == {".csv", ".html", ".json", ".png"}
    table = pd.read_csv(folder / "leaderboard.csv")
    assert {"backbone", "h_score", "parameters", "flops", "seconds", "status"} <= set(table.columns)
    assert table["backbone"].tolist() == ["efficientnet_lite0"]
    assert table["status"].tolist() == ["ok"]


def test_a_screen_goes_on_from_the_folder_of_another(in_process, capsys):
    backbone = ("backbone=efficientnet_lite0_random", "backbone.input_size=32")
    assert exit_code("screen", *backbone, *TINY) == 0
    first = next(in_process.glob("outputs/screen/*/*"))
    assert exit_code("screen", *backbone, *TINY, f"resume={first}", "hydra.run.dir=again") == 0
    assert Leaderboard.load(in_process / "again").rows == Leaderboard.load(first).rows
    capsys.readouterr()
    assert exit_code("screen", *backbone, *TINY, f"resume={first}", "max_samples=20") == 2
    assert "its `max_samples` is" in capsys.readouterr().err


def test_unknown_names_as_a_process(tmp_path):
    done = run(tmp_path, "screen", "target=nope")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_multirun_ranks_the_jobs_together(in_process, capsys):
    backbones = "backbone=efficientnet_lite0,efficientnet_lite0_random"
    assert exit_code("screen", "-m", backbones, "++backbone.input_size=32", *TINY) == 0
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert [Leaderboard.load(sweep / str(number)).rows[0].status for number in (0, 1)] == ["ok", "ok"]
    both = Leaderboard.load(sweep)
    assert {row.backbone for row in both.rows} == {"efficientnet_lite0", "efficientnet_lite0_random"}
    said = capsys.readouterr().out
    assert f"Written to {sweep}: leaderboard.csv" in said.replace("\n", "")
    assert said.count("efficientnet_lite0_random on digits: H-score ") == 1  # a line a job, and one table
    assert said.count("Backbone") == 1
    assert "nothing to choose" not in said


def test_joblib_launcher_goes_on_after_a_job_that_fails(in_process, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    backbones = "backbone=efficientnet_lite0_random,timm,efficientnet_lite1_random"
    assert exit_code("screen", "-m", "experiment=parallel", backbones, "++backbone.input_size=32", *TINY) == 2
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert len(Leaderboard.load(sweep)) == 2
    failure = json.loads((sweep / "1/failure.json").read_text())
    assert failure["message"] == "backbone.model_name has no value: add backbone.model_name=VALUE."


@pytest.mark.long
@pytest.mark.parametrize(
    ("launcher", "library"), [("experiment=ray", "ray"), ("hydra/launcher=submitit_local", "submitit")]
)
def test_launchers_of_clusters_run_the_same_jobs(tmp_path, launcher, library):
    pytest.importorskip(library)
    backbones = "backbone=efficientnet_lite0_random,efficientnet_lite1_random"
    sweep = tmp_path / "sweep"
    done = run(
        tmp_path, "screen", "-m", launcher, backbones, "++backbone.input_size=32", f"hydra.sweep.dir={sweep}", *TINY
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both = Leaderboard.load(sweep)
    assert {row.backbone for row in both.rows} == {"efficientnet_lite0_random", "efficientnet_lite1_random"}
    assert [row.status for row in both.rows] == ["ok", "ok"]


@pytest.mark.long
def test_an_optuna_sweep_goes_on_after_a_job_that_fails(in_process, capsys):
    assert exit_code(
        "screen", "max_samples=choice(-5,60)", "-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0",
        "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize",
        "backbone=efficientnet_lite0_random", "++backbone.input_size=32", "target=digits", "metrics=h_score",
    ) == 2  # fmt: skip
    sweep = next(in_process.glob("multirun/screen/*/*"))
    assert "max_samples: 60" in (sweep / "optimization_results.yaml").read_text()
    assert list(sweep.glob("*/failure.json"))
    assert "to be an integer of at least 1, but got -5" in capsys.readouterr().err


def test_every_backbone_failing_is_a_failed_job(in_process, capsys):
    assert exit_code("screen", "backbone=efficientnet_lite0", "target=diabetes") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert "No backbone of this leaderboard has a score in `logme` (efficientnet_lite0: ValueError" in lines[0]


def test_a_sweep_goes_on_after_a_job_with_bad_input(in_process, capsys):
    backbones = "backbone=efficientnet_lite0,timm,efficientnet_lite0_random"
    assert exit_code("screen", "-m", backbones, "++backbone.input_size=32", *TINY) == 2
    error = "lightning-transfer: job 1: backbone.model_name has no value: add backbone.model_name=VALUE."
    assert error in capsys.readouterr().err.splitlines()
    both = Leaderboard.load(next(in_process.glob("multirun/screen/*/*")))
    assert {row.backbone for row in both.rows} == {"efficientnet_lite0", "efficientnet_lite0_random"}


@pytest.mark.parametrize("aggregate", ["null", "best"])
def test_layers_from_the_command_line(in_process, aggregate):
    backbone = ("backbone=efficientnet_lite0_random", "backbone.input_size=32")
    layers = ("layers=all", f"aggregate={aggregate}", "hydra.run.dir=result")
    assert exit_code("screen", *backbone, *layers, *TINY) == 0
    names = [row.backbone for row in Leaderboard.load(in_process / "result").rows]
    if aggregate == "best":
        assert names == ["efficientnet_lite0_random"]
    else:
        assert len(names) > 2
        assert names[-1] == "efficientnet_lite0_random:features"
    assert (in_process / "result" / "leaderboard_layers.png").exists() == (aggregate == "null")
