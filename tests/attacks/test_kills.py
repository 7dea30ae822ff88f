"""Runs that are killed at random moments lose no finished row, leave no unreadable file, and go on with ``resume``."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from lightning_transfer.screening import Leaderboard

SCRIPT = Path(__file__).with_name("kills.py")


def start(kind: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), kind, str(folder), "resume"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    while "begin" not in process.stdout.readline():
        assert process.poll() is None
    return process


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
        elif path.suffix == ".json":
            finished[f"{path.parent.name}/{path.name}"] = json.loads(path.read_text())
        elif path.name == "leaderboard.csv":
            pd.read_csv(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True, map_location="cpu")
    return finished


def kill_often(kind: str, folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    before: dict[str, object] = {}
    killed = begun = 0
    longest = 4.0
    while killed < kills:
        begun += 1
        run = folder / str(begun)
        before = {}
        while killed < kills:
            process = start(kind, run)
            began = time.monotonic()
            try:
                process.wait(draw.uniform(0.0, longest))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.communicate()
            assert process.returncode in (0, -9), (kind, process.returncode)
            after = check(run) if run.is_dir() else {}
            lost = {name for name in before if after.get(name) != before[name]}
            assert not lost, f"{kind} lost {lost} after {killed} kills"
            before = after
            if process.returncode == 0:
                longest = max(1.0, 1.2 * (time.monotonic() - began))
                break
            longest *= 1.3
    process = start(kind, run)
    shown = process.communicate()[0]
    assert process.returncode == 0, shown
    after = check(run)
    assert all(after.get(name) == value for name, value in before.items())
    if kind == "screen":
        assert len(Leaderboard.load(run)) == 12


@pytest.mark.timeout(250)
def test_a_screen_that_is_killed_three_times(tmp_path):
    kill_often("screen", tmp_path, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "kills"), [("screen", 60), ("sweep", 20), ("finetune", 20)])
def test_runs_that_are_killed_a_hundred_times(kind, kills, tmp_path):
    kill_often(kind, tmp_path, kills, seed=2)
