"""All that takes too long for every change: ``python tests/long.py`` in an environment with the extra ``long``.

It runs the tests marked ``long`` (many networks, kills, launchers, simulations) and the whole suite with the oldest
versions that ``pyproject.toml`` names, and writes what came of it to ``tests/LONG.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUMMARY = Path(__file__).with_name("LONG.md")
LIBRARIES = ("torch", "torchvision", "lightning", "torchmetrics", "timm", "transformers", "numpy", "scikit-learn")
COUNTS = re.compile(r"\d+ (?:passed|failed|skipped|errors?|xfailed)")


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """Run a command, show what it prints, and return its exit code and output."""
    print("$", " ".join(command), flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return process.wait(), "".join(lines)


def marked(workers: int) -> tuple[int, str]:
    """The tests marked ``long``."""
    return run([sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-m", "long"], LIGHTNING_TRANSFER_LONG="1")


def oldest(workers: int) -> tuple[int, str]:
    """The whole suite with the lower bounds of every dependency."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder) / "bin" / "python")
        for command in (
            [sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, folder],
            [
                sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, "--resolution", "lowest-direct",
                "-e", ".[test]",
            ],
        ):  # fmt: skip
            code, output = run(command)
            if code:
                return code, output
        code, output = run([python, "-m", "pytest", "-q", "-n", str(workers)])
    return code, output


STAGES = {"marked": marked, "oldest": oldest}


def main() -> int:
    """Run the stages, or those that are named, and rewrite their rows of the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="which to run; all by default")
    parser.add_argument("-n", "--workers", type=int, default=2)
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    dirty = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    rows, worst = [], 0
    for name in arguments.stages or STAGES:
        start = time.perf_counter()
        code, output = STAGES[name](arguments.workers)
        counts = COUNTS.findall(output.strip().splitlines()[-1]) if output.strip() else []
        minutes = (time.perf_counter() - start) / 60
        failures = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        rows.append(f"| {name} | {', '.join(counts) or 'no count'} | {code} | {minutes:.1f} |")
        rows += [f"| | `{line.split(' - ')[0]}` | | |" for line in failures[:20]]
        worst = max(worst, code)
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    SUMMARY.write_text(
        f"# The long suite\n\nWritten by `python tests/long.py`.\n\n"
        f"- date: {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC\n"
        f"- commit: {commit.stdout.strip()}{' with changes' if dirty.stdout.strip() else ''}\n"
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n"
        f"- versions of the stage `marked`: {versions}\n\n"
        "| stage | tests | exit code | minutes |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    return worst


if __name__ == "__main__":
    sys.exit(main())
