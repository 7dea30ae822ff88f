from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lightning_transfer.utilities import allocator

PROBE = (
    "import os; from lightning_transfer.utilities.allocator import tune_allocator;"
    "print(tune_allocator(), os.environ.get('MALLOC_MMAP_THRESHOLD_'), tune_allocator())"
)


def run_probe(**variables: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=clean | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "True 4294967296 False" if allocator._uses_glibc() else "False None False"),
        ({"LIGHTNING_TRANSFER_ALLOCATOR": "system"}, "False None False"),
        ({"MALLOC_MMAP_THRESHOLD_": "65536"}, "False 65536 False"),
    ],
)
def test_applies_once_and_leaves_the_users_choice(variables, expected):
    assert run_probe(**variables) == expected


def test_nothing_happens_on_other_platforms(monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.tune_allocator()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", lambda name: "musl 1.2")
    assert not allocator.tune_allocator()
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ
