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
from collections.abc import Callable
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


def marked(*where: str) -> Callable[[int], tuple[int, str]]:
    """The tests marked ``long`` of some rooms."""

    def stage(workers: int) -> tuple[int, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-m", "long", *where]
        return run(command, LIGHTNING_TRANSFER_LONG="1")

    return stage


def oldest(workers: int) -> tuple[int, str]:
    """The whole suite with the lower bounds of every dependency."""
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder) / "bin" / "python")
        for command in (
            [sys.executable, "-m", "uv", "venv", "-q", "--seed", "--python", sys.executable, folder],
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


ROOMS = {"networks": "tests/backbones", "kills": "tests/attacks", "bounds": "tests/relatedness"}
STAGES = {
    **{name: marked(room) for name, room in ROOMS.items()},
    "others": marked(*(f"--ignore={room}" for room in ROOMS.values())),
    "oldest": oldest,
}


HEADER = ("stage", "tests", "exit code", "minutes", "date (UTC)", "commit", "failed")


def git(*arguments: str) -> str:
    """What git says about this tree."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def write(name: str, cells: tuple[str, ...]) -> None:
    """Put the row of a stage into the summary; the rows of other stages stay."""
    lines = SUMMARY.read_text().splitlines() if SUMMARY.exists() else []
    kept = {
        line.split("|")[1].strip(): line for line in lines if line.startswith("| ") and not line.startswith("| stage")
    }
    kept[name] = "| " + " | ".join(cells) + " |"
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    head = [
        "# The long suite",
        "",
        "Written by `python tests/long.py`; each stage says when and on which commit it ran.",
        "",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        f"- versions: {versions}; those of `oldest` are the lower bounds in `pyproject.toml`", "",
        "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER),
    ]  # fmt: skip
    rows = [kept[stage] for stage in STAGES if stage in kept]
    SUMMARY.write_text("\n".join([*head, *rows]) + "\n")


def main() -> int:
    """Run the stages, or those that are named, and rewrite their rows of the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="which to run; all by default")
    parser.add_argument("-n", "--workers", type=int, default=2)
    arguments = parser.parse_args()
    commit = git("rev-parse", "--short", "HEAD") + (
        " with changes" if git("status", "--porcelain", "--", ".", f":!{SUMMARY.relative_to(ROOT)}") else ""
    )
    worst = 0
    for name in arguments.stages or STAGES:
        start = time.perf_counter()
        code, output = STAGES[name](arguments.workers)
        counts = COUNTS.findall(output.strip().splitlines()[-1]) if output.strip() else []
        minutes = (time.perf_counter() - start) / 60
        failures = [line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        cells = (
            name, ", ".join(counts) or "no count", str(code), f"{minutes:.1f}",
            f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M}", commit, "; ".join(f"`{line}`" for line in failures[:20]),
        )  # fmt: skip
        write(name, cells)
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
