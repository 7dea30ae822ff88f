"""What the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lightning_transfer import cli

TINY = ("target=digits", "max_samples=60", "metrics=h_score")


def run(folder, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("HYDRA_FULL_ERROR", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-m", "lightning_transfer", *arguments],
        cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return stop.value.code
