"""Runs that are killed at random moments lose no finished row, leave no unreadable file, and go on with ``resume``."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from lightning_transfer.screening import Leaderboard

SCRIPT = Path(__file__).with_name("kills.py")


class Runs:
    """The process that forks the runs."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment,
        )  # fmt: skip

    def run(self, kind: str, folder: Path, seconds: float | None = None) -> tuple[int, str]:
        """Run one and kill it after some time.

        Returns:
            Its exit code, -9 if it was killed, and what it printed.
        """
        print(f"{kind} {folder}", file=self.process.stdin, flush=True)
        child, _ = self._read("@child ")
        timer = None if seconds is None else threading.Timer(seconds, _kill, (child,))
        if timer is not None:
            timer.start()
        code, shown = self._read("@code ")
        if timer is not None:
            timer.cancel()
        return code, shown

    def _read(self, mark: str) -> tuple[int, str]:
        shown = []
        for line in self.process.stdout:
            if line.startswith(mark):
                return int(line.removeprefix(mark)), "".join(shown)
            shown.append(line)
        raise AssertionError("".join(shown))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


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
        elif path.suffix == ".json":
            finished[f"{path.parent.name}/{path.name}"] = json.loads(path.read_text())
        elif path.name == "leaderboard.csv":
            pd.read_csv(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True, map_location="cpu")
    return finished


def kill_often(runs: Runs, kind: str, folder: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    start = time.monotonic()
    code, shown = runs.run(kind, folder / "whole")
    assert code == 0, shown
    longest = time.monotonic() - start
    whole, killed, begun = check(folder / "whole"), 0, 0
    while killed < kills:
        begun += 1
        place, before = folder / str(begun), {}
        code = -9
        while code == -9 and killed < kills:
            code, shown = runs.run(kind, place, draw.uniform(0.0, longest))
            assert code in (0, -9), shown
            killed += code == -9
            after = check(place) if place.is_dir() else {}
            lost = {name for name, value in before.items() if after.get(name) != value}
            assert not lost, f"{kind} lost {lost} after {killed} kills"
            before = after
    code, shown = runs.run(kind, place)
    assert code == 0, shown
    after = check(place)
    assert all(after.get(name) == value for name, value in before.items())
    assert {name.rpartition("/")[2] for name in after} == {name.rpartition("/")[2] for name in whole}


@pytest.mark.timeout(600)
def test_a_screen_that_is_killed_three_times(runs, tmp_path):
    kill_often(runs, "screen", tmp_path, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "kills"), [("screen", 60), ("sweep", 20), ("finetune", 20)])
def test_runs_that_are_killed_a_hundred_times(runs, kind, kills, tmp_path):
    kill_often(runs, kind, tmp_path, kills, seed=2)
