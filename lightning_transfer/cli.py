"""The command ``lightning-transfer JOB [hydra overrides]``.

Only light modules are imported here: ``--help`` answers without torch, and Hydra imports this module in every job.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, NoReturn

from lightning_transfer.utilities.allocator import tune_allocator
from lightning_transfer.utilities.configs import CONF, known_configs
from lightning_transfer.utilities.errors import JobFailedError
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROGRAM = "lightning-transfer"
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_FULL_ERROR = "HYDRA_FULL_ERROR"
_WANTS_TRACEBACK = os.environ.get(_FULL_ERROR) == "1"
_MAIN_PROCESS = os.getpid()
_failures: list[_StoppedError] = []  # of the jobs of a sweep
_LAUNCHER_EXTRAS = {"joblib": "joblib", "ray": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}


class _StoppedError(SystemExit):
    """Ends the program with one line about what was wrong: Hydra adds its own to any other exception of a job."""

    def __init__(self, error: Exception) -> None:
        self.exit_code = FAILED if isinstance(error, JobFailedError) else BAD_INPUT
        self.line = explain(error)
        super().__init__(self.exit_code)


def _job(run: Callable[[DictConfig], float]) -> Callable[[DictConfig], float]:
    @wraps(run)
    def guarded(cfg: DictConfig) -> float:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return run(cfg)
        except _expected_errors() as error:
            if _WANTS_TRACEBACK or os.getpid() != _MAIN_PROCESS:  # a launcher's worker hands the error on
                raise
            stop = _StoppedError(error)
            if HydraConfig.get().mode is not RunMode.MULTIRUN:
                raise stop from error
            _print_error(f"job {HydraConfig.get().job.num}: {stop.line}")  # the other jobs of the sweep go on
            _failures.append(stop)
            return math.nan

    return guarded


@_job
def _screen(cfg: DictConfig) -> float:
    from lightning_transfer.screening.jobs import run_screen

    return run_screen(cfg)


@_job
def _relate(cfg: DictConfig) -> float:
    from lightning_transfer.screening.jobs import run_relate

    return run_relate(cfg)


@_job
def _finetune(cfg: DictConfig) -> float:
    from lightning_transfer.finetuning import run

    return run(cfg)


_JOBS = {"screen": _screen, "relate": _relate, "finetune": _finetune}
_SUMMARIES = {
    "screen": "rank backbones by how well they will transfer to a target",
    "relate": "bound the loss on a target by what a reference task tells about it",
    "finetune": "fine-tune a backbone on a target, with transferability scores along the way",
}
_GROUPS = {
    "screen": ("backbone", "zoo", "target", "reference", "metrics", "trainer", "logger", "experiment"),
    "relate": ("backbone", "reference", "target", "trainer", "experiment"),
    "finetune": ("backbone", "target", "reference", "callbacks", "optimizer", "trainer", "logger", "experiment"),
}
_EXAMPLES = {
    "screen": (
        ("", "six backbones on photo patches: table, CSV, JSON, HTML and figure"),
        ("target=digits metrics=all", "every score on another target"),
        ("backbone=efficientnet_lite0 metrics=[logme,h_score]", "one backbone, two scores"),
        ("target=digits reference=photo_patches error_bars=true", "standard errors and the relatedness bound too"),
        ("-m backbone=efficientnet_lite0,efficientnet_lite1 target=digits", "a sweep, one job a backbone"),
    ),
    "relate": (
        ("reference=photo_patches target=digits", "the bound of one pair of tasks"),
        ("-m reference=photo_patches,digits target=digits", "which reference is nearest"),
    ),
    "finetune": (
        ("backbone=efficientnet_lite0 target=digits", "one run"),
        ("-m backbone=efficientnet_lite0,efficientnet_lite1", "a sweep, one job a backbone"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a job and exit: 0 when it is done, 2 for bad input, 1 when it failed, 130 when it was interrupted.

    Args:
        arguments: What follows the program's name; taken from the command line by default.
    """
    tune_allocator()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    if given[0] == "--version":
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        sys.exit(0)
    job, *overrides = given
    if job not in _JOBS:
        _fail(f"unknown job {job!r}; known jobs are {', '.join(_JOBS)}. See {PROGRAM} --help.")
    if "-h" in overrides or "--help" in overrides:
        print(job_help(job))
        sys.exit(0)
    sys.exit(_run(job, overrides))


def overview() -> str:
    """The text of ``lightning-transfer --help``."""
    jobs = "\n".join(f"  {job:<10}{summary}" for job, summary in _SUMMARIES.items())
    return (
        "How well will a pre-trained backbone transfer to my task?\n\n"
        f"usage: {PROGRAM} JOB [OVERRIDES]\n\njobs:\n{jobs}\n\n"
        f"{PROGRAM} JOB --help shows the choices of a job, {PROGRAM} --version the version."
    )


def job_help(job: str) -> str:
    """The text of ``lightning-transfer JOB --help``: examples, choices and options, read from the packaged configs.

    Args:
        job: ``"screen"``, ``"relate"`` or ``"finetune"``.
    """
    examples = "\n".join(f"  {PROGRAM} {job} {line}".rstrip() + f"\n      {why}" for line, why in _EXAMPLES[job])
    choices = [f"  {group}={'|'.join(known_configs(group))}" for group in _GROUPS[job] if known_configs(group)]
    return (
        f"{PROGRAM} {job}: {_SUMMARIES[job]}\n\nexamples:\n{examples}\n\nchoices:\n" + "\n".join(choices) + "\n\n"
        "any value of the config can be changed: key=value, key.sub=value, +new=value, ~gone\n"
        "  --cfg job      print the config and stop\n"
        "  -m             sweep over comma-separated values, one job each\n"
        "  --config-dir   a folder with configs of your own beside the packaged ones\n"
        "  --hydra-help   what else Hydra understands\n\n"
        f"{_FULL_ERROR}=1 shows the whole traceback of an error."
    )


def _run(job: str, overrides: Sequence[str]) -> int:
    import hydra

    if any(override.startswith("--experimental-rerun") for override in overrides):
        _fail("--experimental-rerun reads a pickle, which can run any code; repeat the overrides instead.")
    os.environ[_FULL_ERROR] = "1"  # makes Hydra hand errors on instead of printing them
    sys.argv = [PROGRAM, *overrides]
    _failures.clear()
    try:
        hydra.main(config_path=f"pkg://{CONF}", config_name=job, version_base="1.3")(_JOBS[job])()
    except KeyboardInterrupt:
        return INTERRUPTED
    except _StoppedError as stop:
        _print_error(stop.line)
        return stop.exit_code
    except _expected_errors() as error:
        if _WANTS_TRACEBACK:
            raise
        _print_error(explain(error))
        return FAILED if isinstance(error, JobFailedError) else BAD_INPUT
    return max((stop.exit_code for stop in _failures), default=0)


def _expected_errors() -> tuple[type[Exception], ...]:
    """What a user can cause by a wrong name or value, and jobs without a result."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return ValueError, ModuleNotFoundError, FileNotFoundError, HydraException, OmegaConfBaseException, JobFailedError


def explain(error: BaseException) -> str:
    """One line that says what was wrong with the input and what is known instead.

    Args:
        error: What the job, Hydra or OmegaConf raised.
    """
    from hydra.errors import MissingConfigException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} has no value: add {error.full_key}=VALUE."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        known = error.options or known_configs(group)  # Hydra lists none for a member of a list
        extra = _LAUNCHER_EXTRAS.get(name, "")
        remedy = f" Install the launcher: pip install {PROGRAM}[{extra}]" if extra else ""
        return f"unknown {group} {name!r}; known are {', '.join(known)}.{remedy}"
    text = " ".join(str(error).split()) or type(error).__name__
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    return text if not cause or cause in text else f"{text} ({cause})"


def _fail(message: str) -> NoReturn:
    _print_error(message)
    sys.exit(BAD_INPUT)


def _print_error(message: str) -> None:
    print(f"{PROGRAM}: {plain(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()
