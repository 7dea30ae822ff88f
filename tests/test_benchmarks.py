"""Benchmarks that run where no test looks otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.parametrize("part", ["updates", "computes", "agreement", "extraction", "options"])
def test_the_script_for_a_gpu_runs_at_small_sizes(part):
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), part, "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (" = " if part != "agreement" else "largest relative difference to the CPU") in done.stdout
