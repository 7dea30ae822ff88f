"""The jobs of a sweep side by side."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from attacks.runs import FINETUNE, RELATE, SCREEN
from omegaconf import OmegaConf

from lightning_transfer import cli
from lightning_transfer.jobs.sweep import CompareJobs, join, label_by_differences
from lightning_transfer.screening import Leaderboard, Row

OLD = Path(__file__).parents[1] / "_fixtures/formats/44bc5e4"


def board(*overrides: str, name: str = "mine", score: float = 1.0, **info) -> Leaderboard:
    return Leaderboard(
        [Row(name, {"logme": score})], info={"target": "digits", "split": "train", **info, "overrides": list(overrides)}
    )


def end(folder: Path) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    CompareJobs().on_multirun_end(config)


def names(board: Leaderboard) -> list[str]:
    return [row.backbone for row in board.rows]


def test_rows_are_told_apart_by_the_overrides():
    boards = [board("backbone=mine", f"++backbone.layer={layer}") for layer in ("blocks.1", "blocks.2")]
    assert names(join(boards)) == ["mine backbone.layer=blocks.1", "mine backbone.layer=blocks.2"]


def test_a_sweep_over_backbones_keeps_their_names():
    boards = [board(f"backbone={name}", "target=digits", name=name) for name in ("one", "two")]
    assert names(join(boards)) == ["one", "two"]


def test_backbones_and_something_else():
    boards = [
        board(f"backbone={name}", f"max_samples={count}", name=name, num_samples=count)
        for name in ("one", "two")
        for count in (50, 100)
    ]
    joined = join(boards)
    assert names(joined) == [f"{name} max_samples={count}" for name in ("one", "two") for count in (50, 100)]
    assert "num_samples" not in joined.info  # not the same for all


def test_rows_that_nothing_tells_apart_are_numbered():
    assert names(join([board("x=1"), board("x=1"), board("x=1")])) == ["mine", "mine (2)", "mine (3)"]
    old = [Leaderboard([Row("mine", {"logme": 1.0})], info={"target": "digits"}) for _ in range(2)]
    assert names(join(old)) == ["mine", "mine (2)"]  # before overrides were kept


def test_labels_leave_out_where_a_run_writes():
    asked = [["a=1", "b=1", "hydra.run.dir=x"], ["a=1", "b=2", "hydra.run.dir=y", "resume=auto"]]
    assert label_by_differences(asked) == ["b=1", "b=2"]
    assert label_by_differences([]) == []


def test_one_table_for_each_target_and_split(tmp_path, capsys):
    number = 0
    for target in ("digits", "photo_patches"):
        for split in ("train", "test"):
            for name in ("one", "two"):
                job = board(f"backbone={name}", f"target={target}", f"split={split}", name=name)
                job.info |= {"target": target, "split": split}
                job.save(tmp_path / str(number), figure=False)
                number += 1
    (tmp_path / "3" / "leaderboard.json").write_text("{")
    end(tmp_path)
    assert "Left out: " in capsys.readouterr().out
    folders = {path.parent.name for path in tmp_path.glob("*/leaderboard.csv") if not path.parent.name.isdigit()}
    assert len(folders) == 3  # the damaged job leaves its table with one row
    for folder in folders:
        assert names(Leaderboard.load(tmp_path / folder)) == ["one", "two"]


def test_backbones_are_compared_over_targets(tmp_path, capsys):
    for number, (target, name) in enumerate(
        (target, name) for target in ("digits", "emoji") for name in ("one", "two")
    ):
        job = board(f"backbone={name}", f"target={target}", name=name)
        job.info |= {"target": target}
        job.save(tmp_path / str(number), figure=False)
    end(tmp_path)
    printed = capsys.readouterr().out
    assert "mean rank" in printed
    assert printed.endswith(f"Written to {tmp_path / 'across_targets.csv'}\n")
    table = (tmp_path / "across_targets.csv").read_text().splitlines()
    assert table[0] == "backbone,digits,emoji,mean_rank"
    assert Leaderboard.load(tmp_path / "digits").info["command"].startswith("lightning-transfer screen -m")


def test_results_of_an_older_version_are_compared(tmp_path, capsys):
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        shutil.copy(OLD / f"sweep/{job}/finetune.json", tmp_path / job)
    end(tmp_path)
    written = json.loads((tmp_path / "finetune.json").read_text())
    assert written["format"] == 2
    assert [run["job"] for run in written["runs"]] == ["0", "1"]
    assert "mode=full" in capsys.readouterr().out


def test_bounds_of_an_older_version_are_compared(tmp_path, capsys):
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        shutil.copy(OLD / "relate/relatedness.json", tmp_path / job)
    end(tmp_path)
    assert len(json.loads((tmp_path / "relatedness.json").read_text())["results"]) == 2
    assert "digits_0_4" in capsys.readouterr().out


@pytest.mark.parametrize(("asked", "rate"), [([], 1.0), (["hydra.sweeper.max_failure_rate=0.5"], 0.5)])
def test_sweepers_go_on_after_a_failure_unless_told_otherwise(asked, rate, tmp_path):
    hydra = {"sweep": {"dir": str(tmp_path)}, "sweeper": {"max_failure_rate": rate if asked else 0.0}}
    config = OmegaConf.create({"hydra": {**hydra, "overrides": {"hydra": asked}}})
    CompareJobs().on_multirun_start(config)
    assert config.hydra.sweeper.max_failure_rate == rate


def run(monkeypatch, folder: Path, *words: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("LIGHTNING_TRANSFER_ALLOCATOR", "system")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "hydra.sweep.dir=out", "hydra.sweep.subdir=."])
    return stop.value.code


def test_fine_tuning_jobs_of_one_folder_get_folders_of_their_own(tmp_path, monkeypatch):
    words = [*FINETUNE, "-m", "backbone=net4,net6", "epochs=1", "test=false", "callbacks=checkpoint", "~logger"]
    assert run(monkeypatch, tmp_path, *words) == 0
    runs = json.loads((tmp_path / "out/finetune.json").read_text())["runs"]
    assert sorted(run["job"] for run in runs) == ["0", "1"]
    for job in ("0", "1"):
        written = json.loads((tmp_path / f"out/{job}/finetune.json").read_text())
        assert written["best_checkpoint"] == str(tmp_path / f"out/{job}/checkpoints/best.ckpt")
        assert Path(written["best_checkpoint"]).is_file()
    monkeypatch.setattr("lightning_transfer.jobs.finetune.FineTuningModule.for_target", None)  # nothing runs again
    assert run(monkeypatch, tmp_path, *words, "resume=auto") == 0
    assert len(json.loads((tmp_path / "out/finetune.json").read_text())["runs"]) == 2


@pytest.mark.long
def test_bounds_of_one_folder_get_folders_of_their_own(tmp_path, monkeypatch):
    assert run(monkeypatch, tmp_path, *RELATE, "-m", "backbone=net4,net6") == 0
    results = json.loads((tmp_path / "out/relatedness.json").read_text())["results"]
    alone = [json.loads((tmp_path / f"out/{job}/relatedness.json").read_text()) for job in (0, 1)]
    assert len({result["bound"] for result in alone}) == 2
    assert sorted(result["bound"] for result in results) == sorted(result["bound"] for result in alone)


@pytest.mark.long
@pytest.mark.parametrize("launcher", [(), ("experiment=parallel",)])
def test_screens_of_one_folder_come_together(tmp_path, monkeypatch, capsys, launcher):
    words = [*SCREEN, "-m", "backbone=net4,net6,net8", *launcher]
    assert run(monkeypatch, tmp_path, *words) == 0
    assert {row.backbone for row in Leaderboard.load(tmp_path / "out").rows} == {"net4", "net6", "net8"}
    table = capsys.readouterr().out.rpartition("Backbone")[2]
    assert all(name in table for name in ("net4", "net6", "net8"))


def test_a_job_that_fails_in_a_folder_of_several_is_not_forgotten(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path, *SCREEN, "-m", "backbone=timm,net4") == 2
    assert [path.name for path in (tmp_path / "out").glob("failure*")] == ["failure-0.json"]
    assert "job 0: backbone.model_name has no value" in capsys.readouterr().err


def test_tables_that_were_put_together_are_no_jobs(tmp_path, capsys):
    for number, target in enumerate(("digits", "letters") * 2):
        job = board(f"backbone=net{number}", f"target={target}", name=f"net{number}")
        job.info["target"] = target
        job.save(tmp_path / str(number), figure=False)
    for _ in range(2):  # as when a sweep goes on
        end(tmp_path)
        assert sorted(names(Leaderboard.load(tmp_path / "digits"))) == ["net0", "net2"]
    capsys.readouterr()
