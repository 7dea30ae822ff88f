"""A disk that is really full costs lines of warning: rows are shown, no half file is left, and more room goes on."""

from __future__ import annotations

import os
import subprocess

import pytest
from attacks.runs import COMMANDS, NETS, Runs, into
from attacks.test_kills import check

NEEDS_ROOM = ("finetune", "sweep of finetune", "select")  # for checkpoints; others only show what they found


@pytest.fixture(scope="module")
def runs():
    server = Runs()
    yield server
    server.close()


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, left: int) -> None:
    """Leave so many KiB."""
    (disk / "others").unlink(missing_ok=True)
    free = os.statvfs(disk)
    (disk / "others").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left * 1024)))


def run_until_full(runs: Runs, kind: str, disk, left: int) -> None:
    runs.heat(kind, disk.with_name("first"))
    fill(disk, left)
    folder = disk / "run"
    code, shown = runs.run(into(kind, folder))
    allowed = (0, 1) if kind in NEEDS_ROOM else (0,)
    assert code in allowed, shown
    assert "Traceback" not in shown
    if code == 0:
        assert all(name in shown for name in (() if kind in ("relate", "finetune") else NETS)), shown
    else:
        assert "to go on" in shown or "No space left" in shown
    assert len([line for line in shown.splitlines() if "No space left" in line]) <= 8, shown
    if folder.is_dir():
        check(folder)
    fill(disk, 1024)
    code, shown = runs.run([*into(kind, folder), "resume=auto"])
    assert code == 0, shown
    assert check(folder)


@pytest.mark.parametrize("left", [0, 40])
def test_a_screen(runs, left, disk):
    run_until_full(runs, "screen", disk, left)


@pytest.mark.long
@pytest.mark.parametrize("left", [0, 8, 24, 70])
@pytest.mark.parametrize("kind", [kind for kind in COMMANDS if kind != "screen"])
def test_other_jobs(runs, kind, left, disk):
    run_until_full(runs, kind, disk, left)
