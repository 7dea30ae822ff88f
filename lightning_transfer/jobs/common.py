"""What the jobs share: parts of the config as plain values, and where results are shown."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from lightning_transfer._compat import starts_script_again
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.files import is_first_process, read_json, try_to_write, write_atomically
from lightning_transfer.utilities.instantiate import instantiate

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from omegaconf import DictConfig

    from lightning_transfer.cache import FeatureCache

FORMAT = 2  # of finetune.json and relatedness.json; files of version 1 carry no number
_FAILURE = "failure"  # name of the file of a job of a sweep that failed, with the job's number in a shared folder
_JOB_IN_NAME = ("job.num", "job.id", "override_dirname")  # what makes `hydra.sweep.subdir` another one for each job
AUTO = "auto"  # the value of ``resume`` that means the run's own folder
_WIDTH_OF_FILES = 160  # columns where output goes to a file or pipe
_NOT_ABOUT_THE_RESULT = ("resume=", "cache=", "hydra.", "hydra/")  # beginnings of overrides


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line how to end, in place of an exit code of Rich's."""
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def console() -> Console:
    """Where jobs print: a terminal as wide as it is, or a file or pipe with room for a whole table.

    Only the first of the processes that share a run prints.
    """
    width = None if sys.stdout.isatty() else _WIDTH_OF_FILES
    return _Console(width=width, highlight=False, quiet=not is_first_process())


def output_dir() -> Path:
    """The folder of the run that Hydra is at."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def is_shared() -> bool:
    """Whether ``hydra.sweep.subdir`` may give the folder of this job of a sweep to other jobs too."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    hydra = HydraConfig.get()
    subdir = str(cast("dict[str, Any]", OmegaConf.to_container(hydra.sweep, resolve=False)).get("subdir"))
    return hydra.mode is RunMode.MULTIRUN and not any(part in subdir for part in _JOB_IN_NAME)


def take_own_folder() -> None:
    """Let a job of a sweep whose folder is shared write to the folder of its number inside."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    if is_shared():
        hydra = cast("Any", HydraConfig.get())
        with read_write(hydra):
            hydra.runtime.output_dir = str(output_dir() / str(hydra.job.num))


def overrides() -> list[str]:
    """What the command line of the run says, one override an item."""
    from hydra.core.hydra_config import HydraConfig

    return [str(override) for override in HydraConfig.get().overrides.task]


def plain_part(cfg: DictConfig, key: str) -> dict[str, Any]:
    """A part of the config as plain containers.

    Raises:
        ValueError: If it is missing, or a value where a choice belongs.
        omegaconf.errors.MissingMandatoryValue: If a value in it is.
    """
    from omegaconf import OmegaConf

    if cfg.get(key) is None:
        raise ValueError(f"{key} has no value: add {key}=NAME.")
    if not OmegaConf.is_config(cfg[key]):
        raise ValueError(
            f"Expected `{key}` to be a choice, but got the value {cfg[key]!r}: type {key}={cfg[key]}, or in a file of "
            f"configs `- override /{key}: {cfg[key]}` among its defaults."
        )
    part: Any = OmegaConf.to_container(cfg[key], resolve=True, throw_on_missing=True)
    return cast("dict[str, Any]", part)


def trainer_arguments(cfg: DictConfig) -> dict[str, Any]:
    """The arguments of the Trainer that is made for each pass.

    Raises:
        ValueError: If it would start a sweep again in each of its processes.
    """
    arguments = plain_part(cfg, "trainer")
    arguments.pop("_target_", None)
    built: dict[str, Any] = instantiate(arguments)
    if _number_in_sweep() is not None and str(built.get("devices", 1)) != "1":
        from lightning.pytorch import Trainer

        from lightning_transfer.extraction import quiet_lightning

        places = {name: built[name] for name in ("accelerator", "devices", "num_nodes", "strategy") if name in built}
        with quiet_lightning():
            refuse_restarts(Trainer(**places, logger=False, enable_checkpointing=False, enable_progress_bar=False))
    return built | gpu_of_job(built)


def _number_in_sweep() -> int | None:
    """Number of this job in its sweep, None where there is none."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return None
    return int(HydraConfig.get().job.num)


def refuse_restarts(trainer: Trainer) -> None:
    """Refuse a Trainer whose processes each begin the program anew where that is a sweep.

    Raises:
        ValueError: If it is one.
    """
    if _number_in_sweep() is not None and trainer.num_devices > 1 and starts_script_again(trainer):
        raise ValueError(
            "Each process of this strategy would start the whole sweep again: use ++trainer.strategy=ddp_spawn with -m."
        )


def gpu_of_job(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """What to change in the arguments of a Trainer so that a job of a sweep has a GPU of its own, if it uses one.

    Args:
        trainer: The arguments.
    """
    from lightning_transfer.utilities.devices import own_gpu

    number = _number_in_sweep()
    return {} if number is None else own_gpu(trainer, number)


def feature_cache(cfg: DictConfig) -> FeatureCache | None:
    """The cache of features that a config asks for; None for none.

    Raises:
        ValueError: If it asks for something else.
    """
    from lightning_transfer.cache import FeatureCache

    asked = FeatureCache.of(cfg.cache)
    return None if asked is None else FeatureCache(asked.folder, dtype=cfg.cache_dtype)


def earlier_folder(resume: Any, *files: str) -> Path | None:
    """The folder that a run goes on from.

    Args:
        resume: A folder or file, ``"auto"`` for the run's own folder if it holds one of the files, or None.
        files: What an earlier run leaves behind.
    """
    if resume is None:
        return None
    if resume == AUTO:
        folder = output_dir()
        return folder if any((folder / name).is_file() for name in files) else None
    return check_path(resume, "resume")


def finished_result(
    folder: Path | None, destination: Path, check: Callable[[dict[str, Any]], Any]
) -> dict[str, Any] | None:
    """What an earlier run with the same overrides found; written to the folder of this run too.

    Args:
        folder: Folder of the earlier run, if there is one.
        destination: The file that this run writes.
        check: Uses what the file holds.

    Returns:
        The content of its file; None if there is no such run, it did not end or was asked for something else.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If its file is damaged.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder `{folder}` to resume from.")
    file = folder / destination.name
    content = read_json(file) if file.is_file() else {}
    asked = content.get("overrides") if isinstance(content, dict) else None
    if not isinstance(asked, list) or about_the_result(asked) != about_the_result(overrides()):
        return None
    try:
        check(cast("dict[str, Any]", content))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration, OverflowError) as error:
        raise ValueError(f"Expected `{file}` to be of a run that ended, but got: {Failure.of(error)}.") from error
    if file.resolve() != destination.resolve():
        try_to_write("The result", destination.parent, lambda: write_atomically(destination, to_json(content)))
    return cast("dict[str, Any]", content)


def about_the_result(asked: Sequence[Any]) -> list[str]:
    """Overrides without those that say where a run writes or goes on from."""
    return [str(override) for override in asked if not str(override).startswith(_NOT_ABOUT_THE_RESULT)]


def to_json(content: Mapping[str, Any]) -> bytes:
    """A result as the content of a file."""
    return (json.dumps({"format": FORMAT, **content}, indent=2) + "\n").encode()


def files_of_jobs(folder: Path, pattern: str) -> list[Path]:
    """What the jobs of a sweep wrote into its folder, into folders in it and into folders in these.

    Args:
        folder: Of the sweep.
        pattern: Of the names of files.
    """
    return sorted(path for level in ("", "*/", "*/*/") for path in folder.glob(level + pattern))


def failure_file() -> Path:
    """Where a job of a sweep says why it failed."""
    from hydra.core.hydra_config import HydraConfig

    number = f"-{HydraConfig.get().job.num}" if is_shared() else ""
    return output_dir() / f"{_FAILURE}{number}.json"


def write_failure(path: Path, failure: Failure, exit_code: int) -> None:
    """Leave behind why a job of a sweep failed.

    Args:
        path: The file.
        failure: What ended it.
        exit_code: What the program would end with.
    """
    content = {"kind": failure.kind, "message": failure.message, "exit_code": exit_code}
    with suppress(OSError):
        write_atomically(path, to_json(content))


def forget_failure(path: Path) -> None:
    """Take away what an earlier run of a job left behind.

    Args:
        path: The file.
    """
    with suppress(OSError):
        path.unlink()


def read_failures(folder: Path) -> list[int]:
    """The exit codes of the jobs of a sweep that failed.

    Args:
        folder: Of the sweep.
    """
    return [_exit_code_in(path) for path in files_of_jobs(folder, f"{_FAILURE}*.json")]


def _exit_code_in(path: Path) -> int:
    """The exit code that a file tells; 1 if it tells none, since a job that ends well leaves no such file."""
    with suppress(ValueError, OSError, KeyError, TypeError):
        if 0 < (code := int(read_json(path)["exit_code"])) < 256:
            return code
    return 1
