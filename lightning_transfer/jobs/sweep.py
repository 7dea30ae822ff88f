"""What is shown and written when a sweep is over: the jobs side by side."""

from __future__ import annotations

import shlex
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf
from rich.table import Table

from lightning_transfer.jobs.arguments import override
from lightning_transfer.jobs.common import about_the_result, console, files_of_jobs, to_json
from lightning_transfer.jobs.finetune import objective_of
from lightning_transfer.jobs.screen import show
from lightning_transfer.report.console import bounds_table
from lightning_transfer.screening.comparing import across_targets
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.zoo import combine_zoo_scores
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.files import check_writable, read_json, safe_name, try_to_write, write_atomically
from lightning_transfer.utilities.text import csv_cell, plain, rich_markup

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lightning_transfer.screening.row import Row

JOINED = "jobs"  # entry of ``info`` of a table that was put together, with the number of the jobs
_ABOUT_THE_RUN = ("overrides", "interrupted", "num_samples", "notes", "versions")  # in which jobs of a table may differ


class CompareJobs(Callback):
    """A Hydra callback that shows and saves what the jobs of a sweep found, best first."""

    folder: ClassVar[Path | None] = None  # of the sweep or run that is under way
    sweeping: ClassVar[bool] = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note where a single run writes.

        Args:
            config: Hydra's config of the run; it leads elsewhere where its folder cannot be written.
        """
        type(self).folder, type(self).sweeping = _make_writable(config, "run"), False

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note where the sweep writes, and let sweepers go on after a job that fails.

        Args:
            config: Hydra's config of the sweep.
        """
        type(self).folder, type(self).sweeping = _make_writable(config, "sweep"), True
        asked = config.hydra.overrides.hydra
        if "max_failure_rate" in config.hydra.sweeper and not any("max_failure_rate" in item for item in asked):
            config.hydra.sweeper.max_failure_rate = 1.0

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Compare the leaderboards, bounds and fine-tuning runs that the jobs wrote.

        Args:
            config: Hydra's config of the sweep.
        """
        folder = Path(config.hydra.sweep.dir).absolute()
        asked = map(str, OmegaConf.select(config, "hydra.overrides.task") or ())
        job = OmegaConf.select(config, "hydra.job.config_name") or "screen"
        _compare_leaderboards(folder, shlex.join(["lightning-transfer", job, "-m", *asked]))
        _compare_bounds(folder)
        _compare_runs(folder)


def _make_writable(config: DictConfig, part: str) -> Path:
    """The folder of a run or a sweep, or a temporary one in its place if nothing can be written there."""
    from omegaconf import open_dict, read_write

    hydra = config.hydra
    folder = Path(hydra[part].dir).absolute()
    try:
        check_writable(folder)
        return folder
    except OSError as error:
        reason = f"`{plain(folder)}` cannot be written ({plain(error.strerror or error)})"
    with read_write(hydra), open_dict(hydra):
        try:
            folder = Path(tempfile.mkdtemp(prefix="lightning-transfer-"))
            check_writable(folder)
            warnings.warn(f"{reason}: results go to `{folder}`.", stacklevel=2)
        except OSError:
            folder = next(place for place in (folder, *folder.parents) if place.is_dir())  # Hydra wants one
            warnings.warn(f"{reason}, nor are temporary files: results are shown, not kept.", stacklevel=2)
            hydra.output_subdir = None
            hydra.job_logging = {"version": 1, "root": None, "disable_existing_loggers": False}
            hydra.overrides.hydra.append("hydra.output_subdir=null")  # of jobs of a sweep
        hydra[part].dir = str(folder)
        hydra.overrides.hydra.append(override(f"hydra.{part}.dir", str(folder)))
    return folder


def _compare_leaderboards(folder: Path, command: str) -> None:
    boards = [
        board for _, board in results_of(folder, "leaderboard.json", Leaderboard.load) if JOINED not in board.info
    ]
    if not boards:  # all jobs wrote to the one folder
        for path in sorted(folder.glob("leaderboard*.json")):
            if (board := _read(path, Leaderboard.load)) is not None:
                show(board, folder)
    groups: dict[str, list[Leaderboard]] = {}
    for board in boards:
        key = {name: value for name, value in board.info.items() if name not in _ABOUT_THE_RUN}
        groups.setdefault(repr(sorted(key.items())), []).append(board)
    labels = label_by_differences([_shared(group) for group in groups.values()])
    joined = list(map(join, groups.values()))
    for label, board in zip(labels, joined, strict=True):
        board.info["command"] = command
        if len(board) > 1:
            place = folder / safe_name(_value_alone(label)) if len(groups) > 1 else folder
            try_to_write("The table of the sweep", place, partial(board.save, place))
            show(board, place)
    _compare_targets(folder, {_value_alone(label): board for label, board in zip(labels, joined, strict=True)})


def _compare_targets(folder: Path, boards: Mapping[str, Leaderboard]) -> None:
    """Show and write which backbone is best over the targets, where there are several and the jobs share backbones."""
    try:
        across = across_targets(boards)
    except ValueError:
        return
    console().print(f"\n{across}", markup=False, soft_wrap=True)
    table = across.to_pandas().rename(columns=csv_cell).map(csv_cell)
    path = folder / "across_targets.csv"
    if try_to_write("The table over targets", folder, lambda: write_atomically(path, table.to_csv(index=False))):
        console().print(f"\nWritten to {plain(path)}", markup=False, soft_wrap=True)


def join(boards: Sequence[Leaderboard]) -> Leaderboard:
    """Put the rows of leaderboards of the same target into one.

    Args:
        boards: Leaderboards of screens of the same target.

    Returns:
        The leaderboard; rows of one name are told apart by the overrides in which their jobs differ, or by numbers.
    """
    overrides = [[str(override) for override in board.info.get("overrides", ())] for board in boards]
    names = [row.backbone for board in boards for row in board.rows]
    labels = label_by_differences(overrides, but=("backbone",) if len(set(names)) == len(names) else ())
    rows: dict[str, Row] = {}
    for label, board in zip(labels, boards, strict=True):
        for row in board.rows:
            first = name = f"{row.backbone} {_without_choice(label, row.backbone)}".strip()
            count = 1
            while name in rows:
                count += 1
                name = f"{first} ({count})"
            rows[name] = replace(row, backbone=name)
    first_board = boards[0]
    notes = list(dict.fromkeys(note for board in boards for note in board.info.get("notes", ())))
    same = all(board.settings == first_board.settings for board in boards)
    columns = {column for row in rows.values() for column in row.scores}
    return Leaderboard(
        combine_zoo_scores(list(rows.values())),
        rank_by=None if first_board.ranks_by_default or first_board.rank_by not in columns else first_board.rank_by,
        lower_is_better=first_board.lower_is_better,
        info={
            name: value
            for name, value in first_board.info.items()
            if name not in ("overrides", "notes") and all(board.info.get(name) == value for board in boards)
        }
        | ({"notes": notes} if notes else {})
        | {JOINED: len(boards)},
        settings=first_board.settings if same else None,
    )


def label_by_differences(asked: Sequence[Sequence[str]], but: Sequence[str] = ()) -> list[str]:
    """For each list of overrides those that are not in all lists.

    Args:
        asked: The overrides of each job.
        but: Keys that are left out.

    Example:
        >>> from lightning_transfer.jobs.sweep import label_by_differences
        >>> label_by_differences([["mode=head", "epochs=3"], ["mode=full", "epochs=3"]])
        ['mode=head', 'mode=full']
    """
    told = [about_the_result(overrides) for overrides in asked]
    shared = set(told[0]).intersection(*told[1:]) if told else set()
    return [
        " ".join(
            override.lstrip("+")
            for override in overrides
            if override not in shared and override.lstrip("+~").partition("=")[0] not in but
        )
        for overrides in told
    ]


def _shared(boards: Sequence[Leaderboard]) -> list[str]:
    """Overrides that all jobs of a table have, so that they tell it from other tables."""
    asked = [[str(override) for override in board.info.get("overrides", ())] for board in boards]
    shared = [override for override in asked[0] if all(override in other for other in asked)]
    return shared or [f"target={boards[0].info.get('target', '')}"]


def _value_alone(label: str) -> str:
    """``digits`` of ``target=digits``; several overrides stay as they are."""
    return label.partition("=")[2] if label.count("=") == 1 else label


def _without_choice(label: str, backbone: str) -> str:
    """A label without the choice of the backbone that the row is named after."""
    return " ".join(part for part in label.split() if part != f"backbone={backbone}")


def _compare_bounds(folder: Path) -> None:
    bounds = [result for _, result in results_of(folder, "relatedness.json", read_bound)]
    if len(bounds) > 1:
        _write(folder / "relatedness.json", {"results": bounds})
        console().print(bounds_table(bounds))


def _compare_runs(folder: Path) -> None:
    written = dict(results_of(folder, "finetune.json", read_run))
    if len(written) < 2:
        return
    runs = [{"job": job, **{key: run[key] for key in ("overrides", "objective")}} for job, run in written.items()]
    runs.sort(key=objective_of, reverse=next(iter(written.values()))["direction"] == "max")
    _write(folder / "finetune.json", {"runs": runs})
    table = Table(title="Fine-tuning runs, best first")
    for column in ("job", "choices", *runs[0]["objective"]):
        table.add_column(rich_markup(column), justify="left" if column == "choices" else "right", overflow="fold")
    for run, label in zip(runs, label_by_differences([run["overrides"] for run in runs]), strict=True):
        table.add_row(rich_markup(run["job"]), rich_markup(label), f"{objective_of(run):.4f}")
    console().print(table)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try_to_write("The table of the sweep", path.parent, lambda: write_atomically(path, to_json(content)))


def results_of(folder: Path, name: str, read: Callable[[Path], Any]) -> list[tuple[str, Any]]:
    """What the jobs of a sweep wrote, by the number of the job; a damaged file is named and left out.

    Args:
        folder: Of the sweep.
        name: Of the file in the folder of each job.
        read: What makes a result of a file.
    """
    jobs = {path.parent.relative_to(folder).as_posix(): path for path in files_of_jobs(folder, name)}
    jobs.pop(".", None)  # what an earlier comparison wrote
    results = [(job, _read(jobs[job], read)) for job in sorted(jobs, key=lambda job: (len(job), job))]
    return [(job, result) for job, result in results if result is not None]


def read_bound(path: Path) -> dict[str, Any]:
    """A ``relatedness.json`` with all that a table of bounds shows.

    Args:
        path: Of the file.

    Raises:
        ValueError: If something is missing; the message names the file.
    """
    content = read_json(path)
    try:
        bounds_table([content])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"Expected `{path}` to hold a bound, but got: {Failure.of(error)}.") from error
    return cast("dict[str, Any]", content)


def read_run(path: Path) -> dict[str, Any]:
    """A ``finetune.json`` with all that a table of runs shows.

    Args:
        path: Of the file.

    Raises:
        ValueError: If something is missing; the message names the file.
    """
    content = read_json(path)
    try:
        objective_of(content)
        if not isinstance(content["direction"], str) or not all(isinstance(o, str) for o in content["overrides"]):
            raise TypeError("no text")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration) as error:
        raise ValueError(f"Expected `{path}` to hold a fine-tuning run, but got: {Failure.of(error)}.") from error
    return cast("dict[str, Any]", content)


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        console().print(f"Left out: {plain(error)}", markup=False, soft_wrap=True)
        return None
