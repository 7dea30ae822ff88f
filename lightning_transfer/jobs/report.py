"""The job ``report``: what a folder holds, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.jobs.sweep import JOINED, read_bound, read_run, results_of
from lightning_transfer.report.html import (
    across_section,
    board_heading,
    board_section,
    bound_section,
    page,
    run_section,
)
from lightning_transfer.report.text import listed
from lightning_transfer.screening.comparing import across_targets
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.files import read_json, write_atomically
from lightning_transfer.utilities.text import plain

_OUTPUT = "output="
_FILE = "report.html"
_OF_SWEEP = "multirun.yaml"  # what Hydra leaves in the folder of a sweep
_RESULTS = ("leaderboard.json", "relatedness.json", "finetune.json")
_HOLDS_JOBS = ("results", "runs")  # keys of the summaries that a sweep leaves beside those of its jobs


def run(words: Sequence[str]) -> None:
    """Write the report of a folder.

    Args:
        words: The folder of a run or of a sweep, or one above them (the newest run in it is taken), and ``output=FILE``
            for another place than ``report.html`` in it.

    Raises:
        ValueError: If there is no such folder, or nothing in it to report.
    """
    outputs = [word.removeprefix(_OUTPUT) for word in words if word.startswith(_OUTPUT)]
    folders = [word for word in words if not word.startswith(_OUTPUT)]
    if strange := [word for word in folders if word.startswith("-") or ("=" in word and not Path(word).exists())]:
        raise ValueError(f"Expected a folder, and `{_OUTPUT}FILE` for another place, but got {strange[0]!r}.")
    if len(folders) != 1:
        raise ValueError(
            "Expected one folder, as in `lightning-transfer report outputs/screen/...` (for several results the one "
            f"that holds them all), but got {folders}."
        )
    folder = Path(folders[0]).expanduser()
    if folder.is_file():
        raise ValueError(f"Expected a folder with results, but `{folder}` is a file: `{folder.parent}` is its folder.")
    if not folder.is_dir():
        raise ValueError(f"Expected a folder with results, but there is no `{folder}`.")
    folder = _newest(folder)
    path = Path(outputs[-1]).expanduser() if outputs else folder / _FILE
    if path.is_dir():
        raise ValueError(f"Expected `output` to be a file, but `{path}` is a folder: {_OUTPUT}{path / _FILE}.")
    write_atomically(path, report_of(folder).encode())
    print(f"Written to {plain(path)}")


def report_of(folder: Path) -> str:
    """What a folder holds, as an HTML document.

    Args:
        folder: Of a run or a sweep: leaderboards, bounds and fine-tuning runs; those of the jobs of a sweep where the
            sweep has no table of them.

    Raises:
        ValueError: If there is nothing, or a file is damaged; the message names it.
    """
    paths = sorted(folder.glob("leaderboard*.json")) or sorted(folder.glob("*/leaderboard*.json"))
    boards = [Leaderboard.load(path) for path in paths]
    boards = [board for board in boards if JOINED in board.info] or boards  # not the jobs beside it
    bounds = _alone(folder, "relatedness.json", read_bound)
    runs = _alone(folder, "finetune.json", read_run)
    if not (boards or bounds or runs):
        raise ValueError(
            f"Expected `{folder}` to hold leaderboard.json, relatedness.json or finetune.json, but found none of them."
        )
    try:
        sections = [across_section(across_targets(boards))] if _of_several_targets(boards) else []
        alone = len(boards) == 1 and not bounds and not runs
        sections += [board_section(board, heading=not alone) for board in boards]
        if bounds:
            ordered = sorted(bounds, key=lambda bound: float(bound["bound"]))
            named = [(f"{b['reference']} to {b['target']}, {b['backbone']}", b) for b in ordered]
            sections.append(f"<section>{bound_section(named)}</section>")
        sections += [run_section(" ".join(summary["overrides"]) or "Fine-tuning", summary) for summary in runs]
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise ValueError(f"Expected the files in `{folder}` to be results, but got: {Failure.of(error)}.") from error
    return page(_title(boards, bounds, runs), sections)


def _title(boards: Sequence[Leaderboard], bounds: Sequence[Any], runs: Sequence[Any]) -> str:
    """What a page is about, in the words of its targets."""
    if targets := list(dict.fromkeys(str(board.info.get("target", "the target")) for board in boards)):
        return board_heading(boards[0]) if len(boards) == 1 else f"Transferability to {listed(targets)}"
    if targets := list(dict.fromkeys(str(bound["target"]) for bound in bounds)):
        return f"Task relatedness to {listed(targets)}"
    return "Fine-tuning" if len(runs) == 1 else f"{len(runs)} fine-tuning runs"


def _newest(folder: Path) -> Path:
    """The folder itself if it holds results, else that of the newest run below it."""
    if any(next(folder.glob(f"{depth}{name}"), None) for name in _RESULTS for depth in ("", "*/")):
        return folder
    found = [path for name in _RESULTS for path in folder.rglob(name)]
    if not found:
        return folder
    place = max(found, key=lambda path: path.stat().st_mtime).parent
    return place.parent if place.name.isdigit() or (place.parent / _OF_SWEEP).is_file() else place


def _of_several_targets(boards: Sequence[Leaderboard]) -> bool:
    try:
        across_targets(boards)
    except ValueError:
        return False
    return True


def _alone(folder: Path, name: str, read: Any) -> list[Mapping[str, Any]]:
    path = folder / name
    content = read_json(path) if path.is_file() else None
    if isinstance(content, dict) and not any(key in content for key in _HOLDS_JOBS):
        return [read(path)]
    return [result for _, result in results_of(folder, name, read)]
