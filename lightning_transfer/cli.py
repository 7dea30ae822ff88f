"""The command ``lightning-transfer JOB [hydra overrides]``.

Only light modules are imported here: ``--help`` answers without torch, and Hydra imports this module in every job.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import select
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightning_transfer.configs import CONF, known_configs, read_config
from lightning_transfer.jobs.arguments import (
    arrange,
    config_folders,
    data_words,
    find_mistake,
    override,
    resume_command,
)
from lightning_transfer.jobs.record import JOBS
from lightning_transfer.utilities.allocator import tune_allocator
from lightning_transfer.utilities.errors import Failure, JobFailedError
from lightning_transfer.utilities.files import is_first_process
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROGRAM = "lightning-transfer"
BAD_INPUT, FAILED, INTERRUPTED, UNREAD = 2, 1, 130, 141
_SAFE_PATH = "PYTHONSAFEPATH"
_FULL_ERROR = "HYDRA_FULL_ERROR"
_WANTS_TRACEBACK = os.environ.get(_FULL_ERROR) == "1"
_NO_SUCH_KEY = re.compile(r"Could not override '(?P<key>[^'@]+)")
_NO_NAME = "Config group override must be a string or a list. Got NoneType"
_NULL = re.compile(r"[=,\[]\s*null\s*(?:$|[,\]])", re.IGNORECASE)
_SEVERAL = re.compile(r"[\w.@/+~]+=\S+(\s+[\w.@/+~]+=\S+)+")
_TWO_BUILDS = "operator torchvision::nms does not exist"
_OF_PATHS = ("target/", "reference/", "backbone/", "zoo/")
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '(?P<override>(?P<key>[^=']+)=(?P<value>[^']*))'")
_LAUNCHER_EXTRAS = {
    "joblib": "joblib",
    "ray": "ray",
    "submitit_local": "slurm",
    "submitit_slurm": "slurm",
    "optuna": "optuna",
}


class _StoppedError(SystemExit):
    """Ends the program with one line about what was wrong: Hydra adds its own to any other exception of a job."""

    def __init__(self, error: Exception) -> None:
        self.exit_code = _exit_code(error)
        self.line = explain(error)
        super().__init__(self.exit_code)


class _Task:
    """A job as Hydra calls it, here or in a process of a launcher."""

    def __init__(self, name: str, command: Sequence[str] = ()) -> None:
        self.name = name
        self.command = list(command)
        self.wants_traceback = _WANTS_TRACEBACK  # a launcher's process does not know what its parent was told

    def __call__(self, cfg: DictConfig) -> float:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from lightning_transfer.jobs.common import failure_file, forget_failure, take_own_folder, write_failure
        from lightning_transfer.utilities.interrupts import interruptible

        sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
        if self.command and not sweeping:
            sys.argv = self.command  # what a strategy starts once more for each further device
        if not is_first_process():
            warnings.simplefilter("ignore")  # the first process says it
        if not JOBS[self.name].merges:
            take_own_folder()
        forget_failure(failure_file())
        try:
            with interruptible():
                value: float = JOBS[self.name].load()(cfg)
                return value
        except Exception as error:
            if _is_unread(error):
                _end_unread()
            expected = isinstance(error, (*_expected_errors(), OSError))
            if self.wants_traceback or not (expected or sweeping):
                raise
            if not sweeping:
                raise _StoppedError(error) from error
            if not expected:
                traceback.print_exc()
            line = explain(error)
            _print_error(f"job {HydraConfig.get().job.num}: {line}")  # the other jobs of the sweep go on
            write_failure(failure_file(), Failure(type(error).__name__, line), _exit_code(error))
            if "max_failure_rate" in HydraConfig.get().sweeper:
                raise  # Optuna's takes no NaN; it counts the job as failed and goes on
            return math.nan


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a job and exit: 0 when it is done, 2 for bad input, 1 when it failed, 130 when it was interrupted.

    Where nobody reads what is printed any more (``| head``), it ends without a word and with 141, as if by SIGPIPE.

    Args:
        arguments: What follows the program's name; taken from the command line by default.
    """
    try:
        try:
            _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        if not _is_unread(error):
            raise
        _end_unread()


def _is_unread(error: BaseException) -> bool:
    """Whether an error says that whoever read standard output is gone; other pipes break for other reasons."""
    if not isinstance(error, BrokenPipeError) or not hasattr(select, "poll"):  # Windows has none
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _end_unread() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still writes when it ends
    sys.exit(UNREAD)


def _main(arguments: Sequence[str] | None) -> NoReturn:
    tune_allocator()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0)
    if "--version" in given:
        from importlib.metadata import version

        print(f"{PROGRAM} {version(PROGRAM)}")
        sys.exit(0)
    if given[0] in ("--complete", "--completion"):
        print(_completion(*given[:2]), end="")
        sys.exit(0)
    job, *overrides = given
    if job not in JOBS:
        _fail(f"unknown job {job!r}; {_did_you_mean(job, JOBS)}known jobs are {', '.join(JOBS)}. See {PROGRAM} --help.")
    if JOBS[job].plain and not {"-h", "--help"} & set(overrides):
        sys.exit(_run_plain(job, overrides))
    if mistake := find_mistake(overrides):
        _fail(mistake)
    typed, overrides = overrides, arrange(overrides)
    if "-h" in overrides or "--help" in overrides:
        print("\n".join(map(plain, job_help(job, overrides).split("\n"))))
        sys.exit(0)
    sys.exit(_run(job, overrides, typed))


def _completion(option: str, argument: str = "") -> str:
    from lightning_transfer.jobs.completion import SCRIPTS, complete

    if option == "--complete":
        return "".join(f"{word}\n" for word in complete(argument))
    if argument not in SCRIPTS:
        _fail(f"unknown shell {argument!r}; type {PROGRAM} --completion {'|'.join(SCRIPTS)}.")
    return SCRIPTS[argument]


def _run_plain(job: str, words: Sequence[str]) -> int:
    try:
        JOBS[job].load()(words)
    except (ValueError, ModuleNotFoundError, FileNotFoundError) as error:
        if _WANTS_TRACEBACK:
            raise
        _print_error(explain(error))
        return BAD_INPUT
    except OSError as error:
        if _WANTS_TRACEBACK or _is_unread(error):
            raise
        _print_error(explain(error))
        return FAILED
    return 0


def overview() -> str:
    """The text of ``lightning-transfer --help``."""
    jobs = "\n".join(f"  {job.name:<10}{job.summary}" for job in JOBS.values())
    return (
        "How well will a pre-trained backbone transfer to my task?\n\n"
        f"usage: {PROGRAM} JOB [OVERRIDES]\n\njobs:\n{jobs}\n\n"
        f"{PROGRAM} JOB --help shows the choices of a job, {PROGRAM} --version the version.\n"
        f'eval "$({PROGRAM} --completion bash)" completes what is typed; zsh and fish are known too.'
    )


def job_help(name: str, arguments: Sequence[str] = ()) -> str:
    """The text of ``lightning-transfer JOB --help``: examples, choices and options, read from the configs.

    Args:
        name: Name of a job.
        arguments: What else was typed: ``--config-dir`` adds choices, and a choice shows the values of its config.
    """
    job, folders = JOBS[name], config_folders(arguments)
    chosen = [argument.partition("=")[::2] for argument in arguments if argument.partition("=")[0] in job.groups]
    if chosen:
        return "\n\n".join(_choice_help(group, option, folders) for group, option in chosen)
    examples = "\n".join(f"  {PROGRAM} {name} {line}".rstrip() + f"\n      {why}" for line, why in job.examples)
    if job.plain:
        return f"{PROGRAM} {name}: {job.summary}\n\nexamples:\n{examples}"
    options = {group: known_configs(group, *folders) for group in job.groups}
    choices = [f"  {group}={'|'.join(names)}" for group, names in options.items() if names]
    return (
        f"{PROGRAM} {name}: {job.summary}\n\nexamples:\n{examples}\n\nchoices:\n" + "\n".join(choices) + "\n\n"
        f"{PROGRAM} {name} GROUP=NAME --help shows the values of a choice.\n"
        "any value of the config can be changed: key=value, key.sub=value, +new=value, ~gone\n"
        "  --cfg job      print the config and stop\n"
        "  -m             sweep over comma-separated values, one job each\n"
        "  --config-dir   a folder with configs of your own beside the packaged ones\n"
        "  --hydra-help   what else Hydra understands\n\n"
        f"{_FULL_ERROR}=1 shows the whole traceback of an error."
    )


def _choice_help(group: str, option: str, folders: Sequence[Path]) -> str:
    texts = [read_config(group, name, *folders) for name in option.strip("[]").split(",")]
    if any(text is None for text in texts):
        names = known_configs(group, *folders)
        _fail(f"unknown {group} {option!r}; {_did_you_mean(option, names)}known are {', '.join(names)}.")
    whole = "\n".join(text.rstrip() for text in texts if text)
    return f"{group}={option}: change a value by {group}.KEY=VALUE\n\n{whole}"


def _run(job: str, overrides: Sequence[str], typed: Sequence[str]) -> int:
    if any(override.startswith("--e") for override in overrides):  # abbreviations are understood too
        _fail("--experimental-rerun reads a pickle, which can run any code; repeat the overrides instead.")
    if (unread := _find_unread(job, overrides)) is not None:
        _fail(_no_option(unread, job, overrides))
    if folders := config_folders(overrides):
        importlib.import_module(CONF).fill_store(*folders)
    os.environ[_FULL_ERROR] = "1"  # makes Hydra hand errors on instead of printing them
    command = [os.path.abspath(sys.argv[0]), job, *overrides]
    sys.argv = [PROGRAM, *overrides]
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk say, is no result
    try:
        with _one_line_warnings(), _sigterm_as_interrupt(), _safe_path():
            _compose_and_run(job, overrides, command)
    except KeyboardInterrupt:
        if is_first_process():  # of those that a strategy started
            _print_error(f"interrupted; to go on: {resume_command(PROGRAM, job, typed, _folder())}")
        return INTERRUPTED
    except _StoppedError as stop:
        _print_error(stop.line + _remedy(stop.__cause__, job, typed))
        return stop.exit_code
    except _expected_errors() as error:
        if _WANTS_TRACEBACK:
            raise
        _print_error(_explain_key(error, job, overrides) or explain(error))
        return _exit_code(error)
    except OSError as error:
        if _WANTS_TRACEBACK or _is_unread(error):
            raise
        _print_error(explain(error) + _remedy(error, job, typed))
        return FAILED
    except RuntimeError as error:
        if _WANTS_TRACEBACK or _TWO_BUILDS not in str(error):
            raise
        _print_error(f"{error}: torch and torchvision are of different builds; install both in one command.")
        return FAILED
    return _exit_code_of_sweep()


def _remedy(error: BaseException | None, job: str, typed: Sequence[str]) -> str:
    """What to type once the disk has room again, or whatever else the system refused."""
    if not isinstance(error, OSError) or isinstance(error, _expected_errors()):
        return ""
    return f"; to go on when that is mended: {resume_command(PROGRAM, job, typed, _folder())}"


def _compose_and_run(job: str, overrides: Sequence[str], command: Sequence[str]) -> None:
    import hydra

    from lightning_transfer.utilities.composition import checked_configs

    with checked_configs(overrides):
        hydra.main(config_path=f"pkg://{CONF}", config_name=job, version_base="1.3")(_Task(job, command))()


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let the processes of launchers and loaders take no library from where we stand."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = before or "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = before


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let a request to end (SIGTERM) be an interrupt, but under SLURM, where it may mean that the job is put off."""
    if threading.current_thread() is not threading.main_thread() or "SLURM_JOB_ID" in os.environ:
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Show warnings without the place in the code where they come from."""
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: _print_error(str(message))
    try:
        yield
    finally:
        warnings.showwarning = before


def _folder() -> Path | None:
    """Where the sweep or the run that was under way writes; none before it is known."""
    module = sys.modules.get("lightning_transfer.jobs.sweep")
    return module.CompareJobs.folder if module is not None else None


def _exit_code_of_sweep() -> int:
    from lightning_transfer.jobs.common import read_failures
    from lightning_transfer.jobs.sweep import CompareJobs

    folder = CompareJobs.folder
    return max(read_failures(folder), default=0) if CompareJobs.sweeping and folder is not None else 0


def _exit_code(error: BaseException) -> int:
    return BAD_INPUT if isinstance(error, _expected_errors()) and not isinstance(error, JobFailedError) else FAILED


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
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue

    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} has no value: add {error.full_key}=VALUE."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if group.startswith(_OF_PATHS):  # a path in place of a name
            group, _, name = error.missing_cfg_file.partition("/")
        if group == "backbone" and name.startswith(("/", "./", "../", "~")):
            return f"there is no file or folder {name} with a backbone."
        names = error.options or known_configs(group)  # Hydra lists none for a member of a list
        extra = _LAUNCHER_EXTRAS.get(name, "")
        remedy = f" Install the launcher: pip install {PROGRAM}[{extra}]" if extra else ""
        meant = _what_lies_there(group, name) or _in_the_other_group(group, name) or _did_you_mean(name, names)
        if group == "backbone" and not meant:
            remedy = f" Names in a library begin with that of the library: backbone=timm/{name}"
        return f"unknown {group} {name!r}; {meant}known are {', '.join(names)}.{remedy}"
    if isinstance(error, OverrideParseException) and _SEVERAL.fullmatch(error.override):
        return f"{error.override!r} are several values: type each by itself, {' '.join(error.override.split())}"
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        whole = f": if all of it is one value, type {_for_shell(override(key, value))}" if equals and value else ""
        return f"{error.override!r} is not understood{whole}. ({str(error).splitlines()[0]})"
    if several := _AMBIGUOUS.search(str(error)):
        one = f", for one table 'zoo=[{several['value']}]'" if several["key"] == "backbone" else ""
        return f"{several['override']!r} gives several values: for a job each type -m too{one}."
    text = " ".join(str(error).split()) or type(error).__name__
    cause = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    return text if not cause or cause in text else f"{text} ({cause})"


def _for_shell(word: str) -> str:
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _explain_key(error: BaseException, job: str, overrides: Sequence[str]) -> str | None:
    """What is wrong with an override of something that is not there, or that is no name; None for any other error."""
    if _NO_NAME in str(error) and (entry := next((entry for entry in overrides if _NULL.search(entry)), "")):
        group = entry.partition("=")[0]
        return (
            f"{entry!r} has null in the place of a name: type names alone, or ~{group} in its stead to choose nothing."
        )
    missing = _NO_SUCH_KEY.search(str(error))
    return None if missing is None else _no_option(missing["key"], job, overrides)


def _find_unread(job: str, overrides: Sequence[str]) -> str | None:
    """The first key that ``+`` adds beside the options of a job and that nothing reads; None without one."""
    from lightning_transfer.jobs.completion import keys_of

    folders = config_folders(overrides)
    for entry in overrides:
        key = re.split("[./@=]", entry.lstrip("+"), maxsplit=1)[0]
        if not entry.startswith("+") or key in ("hydra", *keys_of(job, key, {})):
            continue
        texts = (path.read_text(encoding="utf-8", errors="ignore") for d in folders for path in d.rglob("*.yaml"))
        named = any(f"${{{key}" in text for text in (*overrides, *texts))
        if not named and not any((folder / key).is_dir() for folder in folders):
            return key
    return None


def _no_option(key: str, job: str, overrides: Sequence[str]) -> str:
    from lightning_transfer.jobs.completion import inner_keys, keys_of

    values = dict(entry.lstrip("+").partition("=")[::2] for entry in overrides)
    value, folders, groups = values.get(key, "VALUE"), config_folders(overrides), JOBS[job].groups
    group, dot, rest = key.partition(".")
    if key in groups:
        return f"{key}={value} gives a value where a name belongs: type {key}=NAME, or {key}.KEY=VALUE for its options."
    known = keys_of(job, key, values, folders)
    owners = [] if dot else [name for of in groups if (name := f"{of}.{key}") in keys_of(job, name, values, folders)]
    close = (
        inner_keys(job, key)
        or owners
        or [name for name in known if rest and rest in name.partition(".")[2].split("_")]
        or get_close_matches(key, known, n=1, cutoff=0.6 if not dot else 0.75)
    )
    if dot and not close and group not in groups and (near := get_close_matches(group, groups, n=1)):
        close = [f"{near[0]}.{rest}"]
    meant = f"did you mean {close[0]!r}? " if close else ""
    if dot and not close:
        others = [name for name in known_configs(group, *folders) if key in keys_of(job, key, {group: name}, folders)]
        needy = [name for name in others if f"\n{rest}: ???" in f"\n{read_config(group, name, *folders)}"]
        if others := needy or others:
            words = data_words(value, group) or f"{group}={others[0] if len(others) < 2 else 'NAME'} {key}={value}"
            return f"no option {key!r} of this {group}, but of {', '.join(others)}: type {words}."
    elsewhere = [name for name in JOBS if not (dot or close or JOBS[name].plain) and key in keys_of(name, key, {})]
    if elsewhere:
        return f"no option {key!r} of {job}, but of {', '.join(elsewhere)}; {PROGRAM} {job} --help shows its choices."
    add = f"Type +{key}={value} to add a new one." if dot else ""
    follows = meant + (add or f"{PROGRAM} {job} --cfg job shows those there are.")
    return f"no option {key!r}{'. ' if follows.startswith('Type') else '; '}{follows}"


def _in_the_other_group(group: str, name: str) -> str:
    """One backbone in place of a zoo, or the other way round."""
    if group == "zoo" and ("/" in name or name in known_configs("backbone")):
        return f"for one backbone type backbone={name}, for several 'zoo=[{name},NAME]'; "
    return f"type zoo={name}; " if group == "backbone" and name in known_configs("zoo") else ""


def _what_lies_there(group: str, name: str) -> str:
    words = data_words(name, group) if group in ("target", "reference") else None
    return f"for what lies there type {words}; " if words else ""


def _did_you_mean(word: str, names: Iterable[str]) -> str:
    names = list(names)
    close = get_close_matches(word, names, n=1) or get_close_matches(word.lower().replace("-", "_"), names, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _fail(message: str) -> NoReturn:
    _print_error(message)
    sys.exit(BAD_INPUT)


def _print_error(message: str) -> None:
    print(f"{PROGRAM}: {plain(message)}", file=sys.stderr)


if __name__ == "__main__":
    main()
