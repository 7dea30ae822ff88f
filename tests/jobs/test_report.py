"""The job ``report``: any folder that a job wrote, files of earlier versions included."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from lightning_transfer.jobs.report import report_of, run
from lightning_transfer.screening import Leaderboard, Row

OLD = Path(__file__).parents[1] / "_fixtures/formats/44bc5e4"


@pytest.mark.parametrize("folder", ["screen", "screen_reference", "relate", "finetune", "sweep"])
def test_folders_of_earlier_versions(folder, tmp_path, capsys):
    shutil.copytree(OLD / folder, tmp_path / "a folder")
    run([str(tmp_path / "a folder")])
    assert "report.html" in capsys.readouterr().out
    text = (tmp_path / "a folder/report.html").read_text()
    assert "<h1>a folder" not in text  # a page is about its targets, not about where it lies
    assert text.count("Transferability to") <= text.count("<h2>Transferability to") + 2  # <title> and <h1>
    wanted = {"relate": "What the bound is made of", "finetune": "transferability", "sweep": "finetune"}
    assert wanted.get(folder, "To repeat it") in text.replace("val/accuracy", "transferability")


def test_a_sweep_without_a_table_and_another_place(tmp_path):
    for i, name in enumerate("ab"):
        Leaderboard([Row(name, {"logme": 1.0})], info={"target": f"t{i}"}).save(tmp_path / str(i), figure=False)
    run([str(tmp_path), f"output={tmp_path / 'else/where.html'}"])
    text = (tmp_path / "else/where.html").read_text()
    assert "<h1>Transferability to t0 and t1</h1>" in text
    assert "<h2>Transferability to t0</h2>" in text
    assert "<h2>Transferability to t1</h2>" in text
    assert "Over all targets" not in text  # they share no backbone


def test_targets_side_by_side(tmp_path):
    for target in ("t0", "<t1>"):
        Leaderboard([Row("a", {"logme": 1.0}), Row("b", {"logme": 2.0})], info={"target": target}).save(
            tmp_path / target[1], figure=False
        )
    text = report_of(tmp_path)
    assert "Best on average: b, mean rank 1.0 over 2 targets by LogME." in text
    assert "<th>&lt;t1&gt;</th>" in text


def test_the_newest_run_below_a_folder(tmp_path):
    for day, name in (("1", "old"), ("2", "new")):
        Leaderboard([Row(name, {"logme": 1.0})]).save(tmp_path / "day" / f"run {day}", figure=False)
        os.utime(tmp_path / "day" / f"run {day}" / "leaderboard.json", (int(day), int(day)))
    run([str(tmp_path)])
    assert "new" in (tmp_path / "day/run 2/report.html").read_text()
    for target in ("x", "y"):  # a sweep over targets has a folder for the table of each
        board = Leaderboard([Row("a", {"logme": 1.0})], info={"target": target})
        board.save(tmp_path / "over targets/one" / target, figure=False)
    (tmp_path / "over targets/one/multirun.yaml").touch()
    run([str(tmp_path / "over targets")])
    assert (tmp_path / "over targets/one/report.html").is_file()
    shutil.copytree(OLD / "sweep", tmp_path / "sweeps/one")
    (tmp_path / "sweeps/one/finetune.json").unlink()
    run([str(tmp_path / "sweeps"), f"output={tmp_path}/all.html"])
    assert (tmp_path / "all.html").read_text().count("lightning-transfer finetune") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Expected one folder"),
        (["a", "b"], "for several results the one that holds them all"),
        (["a", "outptu=x.html"], "`output=FILE` for another place, but got 'outptu=x.html'"),
        (["--open"], "`output=FILE` for another place, but got '--open'"),
        ([str(OLD / "screen"), "output="], r"`output` to be a file, but `\.` is a folder: output=report\.html"),
        (["nowhere"], "there is no `nowhere`"),
        (["."], "to hold leaderboard.json, relatedness.json or finetune.json"),
    ],
)
def test_wrong_words(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(words)


def test_damaged_files_are_named(tmp_path):
    content = json.loads((OLD / "finetune/finetune.json").read_text())
    (tmp_path / "finetune.json").write_text(json.dumps(content | {"history": 5}))
    with pytest.raises(ValueError, match=tmp_path.name):
        report_of(tmp_path)
    (tmp_path / "leaderboard.json").write_text("{")
    with pytest.raises(ValueError, match=r"leaderboard\.json"):
        report_of(tmp_path)
