"""Runs that are killed at random moments lose no finished row, leave no unreadable file, and go on with ``resume``."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from attacks.runs import Runs, after, into

from lightning_transfer.screening import Leaderboard
from lightning_transfer.selection import StudyTable

KILLS = {"screen": 60, "sweep": 20, "finetune": 20, "select": 12, "study": 12}


@pytest.fixture(scope="module")
def runs():
    server = Runs()
    yield server
    server.close()


def check(folder: Path) -> dict[str, object]:
    """Open every file that lies there under its final name, and return what was finished."""
    finished: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file() or ".hydra" in path.parts:
            continue
        if path.name.startswith("leaderboard") and path.suffix == ".json":
            for row in Leaderboard.load(path).rows:
                if not row.failed:
                    finished[f"{path.parent.name}/{row.backbone}"] = dict(row.scores)
        elif path.name == "study.jsonl":
            for row in StudyTable.load(path).rows:
                finished[f"{row.target}/{row.backbone}"] = row.to_dict()["outcomes"]
        elif path.name == "select.json":
            for name, curve in json.loads(path.read_text())["curves"].items():
                for epoch, value in enumerate(curve["values"]):
                    finished[f"{name}/epoch {epoch}"] = value
        elif path.name == "selection.json":
            content = json.loads(path.read_text())
            finished[path.name] = content["best"], content["value"], content["curves"]
        elif path.suffix == ".json":
            finished[f"{path.parent.name}/{path.name}"] = json.loads(path.read_text())
        elif path.name == "leaderboard.csv":
            pd.read_csv(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True, map_location="cpu")
    return finished


def kill_often(runs: Runs, kind: str, folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    runs.heat(kind, folder / "first")
    start = time.monotonic()
    code, shown = runs.run(into(kind, folder / "whole"))
    assert code == 0, shown
    longest = time.monotonic() - start
    moments = [longest * (part + draw.random()) / kills for part in range(kills)]  # spread over the life of a run
    draw.shuffle(moments)
    whole, killed, begun = check(folder / "whole"), 0, 0
    while killed < kills:
        begun += 1
        place, before = folder / str(begun), {}
        words = [*into(kind, place), "resume=auto"]
        code = -9
        while code == -9 and killed < kills:
            code, shown = runs.run(words, after(moments[killed]))
            assert code in (0, -9), shown
            if code == 0:  # it ended before its moment came, as most that go on do
                moments[killed] = draw.uniform(0.0, longest)
            killed += code == -9
            found = check(place) if place.is_dir() else {}
            lost = {name for name, value in before.items() if found.get(name) != value}
            assert not lost, f"{kind} lost {lost} after {killed} kills"
            before = found
    code, shown = runs.run(words)
    assert code == 0, shown
    found = check(place)
    assert all(found.get(name) == value for name, value in before.items())
    assert {name.rpartition("/")[2] for name in found} == {name.rpartition("/")[2] for name in whole}


def test_a_screen_that_is_killed_three_times(runs, tmp_path):
    kill_often(runs, "screen", tmp_path, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("kind", "kills"), [("screen", 60), ("sweep", 20), ("finetune", 20), ("select", 12), ("study", 12)]
)
def test_runs_that_are_killed_a_hundred_times(runs, kind, kills, tmp_path):
    kill_often(runs, kind, tmp_path, kills, seed=2)
