"""The jobs of a sweep side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

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
