"""Hydra's command line with a check between composing a config and using it.

Hydra builds callbacks, launchers and sweepers from its own section of the config, and Python's logging builds handlers
from it, before a job starts. All configs of a run, those of a sweep's jobs included, come from one loader; the one
below checks each as a whole before it hands it out.
"""

from __future__ import annotations

import os
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import yaml
from hydra._internal import hydra as hydra_application
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core import utils as hydra_utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.instantiate import (
    EXTRA_VARIABLE,
    allowed_by_environment,
    check_config,
    check_target,
    trust_program_of,
    walk,
)

_BUILT_BY_HYDRA = {
    "launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
    "sweeper": (
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
        "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        "optuna.samplers.CmaEsSampler",
        "optuna.samplers.GridSampler",
        "optuna.samplers.NSGAIISampler",
        "optuna.samplers.RandomSampler",
        "optuna.samplers.TPESampler",
    ),
    "callbacks": ("hydra.experimental.callbacks.LogJobReturnCallback",),
}
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
_QUEUE = (
    "name", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "max_num_timeout",
)  # fmt: skip
_FROM_FILES = {  # what a config file may set; the rest reaches scripts, other programs or places of pickles
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": (
        "n_jobs", "verbose", "timeout", "prefer", "pre_dispatch", "batch_size", "max_nbytes", "mmap_mode",
    ),
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": (
        *(f"ray.init.{name}" for name in ("num_cpus", "num_gpus", "resources.*", "object_store_memory")),
        *(f"ray.init.{name}" for name in ("include_dashboard", "ignore_reinit_error", "log_to_driver")),
        *(f"ray.remote.{name}" for name in ("num_cpus", "num_gpus", "resources.*", "memory", "accelerator_type")),
        *(f"ray.remote.{name}" for name in ("max_calls", "max_retries")),
    ),
    f"{_SUBMITIT}.LocalLauncher": _QUEUE,
    f"{_SUBMITIT}.SlurmLauncher": (
        *_QUEUE, "partition", "qos", "comment", "constraint", "exclude", "nodelist", "exclusive", "gres", "account",
        "cpus_per_gpu", "gpus_per_task", "mem_per_gpu", "mem_per_cpu", "signal_delay_s", "array_parallelism",
    ),
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": ("max_batch_size", "params.*"),
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": (
        "sampler.*", "direction", "direction.*", "study_name", "n_trials", "n_jobs", "max_failure_rate",
        "search_space.*", "params.*",
    ),
}  # fmt: skip
_PICKLES = "submitit_folder"  # of what jobs and their starter tell each other, by numbers that can be guessed
_DEFAULT_PICKLES = "${hydra.sweep.dir}/.submitit/%j"
_INDEX = re.compile(r"(\.\d+)+$")  # of a member of a list
_LOG_CLASSES = (
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.NullHandler",
    "logging.Formatter",
    "colorlog.ColoredFormatter",
)
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_ENVIRONMENT = frozenset({  # of variables that nothing loads code by
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MKL_NUM_THREADS",
    "NCCL_DEBUG", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "SLURM_JOB_NAME",
    "TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE", "WANDB_MODE",
})  # fmt: skip
_NEEDS_TYPING = {"trust_program": (False, None)}  # values that a file may give; others are for the command line
_LARGEST_FILE, _MOST_VALUES, _DEEPEST = 2**20, 20_000, 50  # of a config: bytes, values, and how deep they nest
_REFERENCES = re.compile(r"[\w.\[\]-]+(?![\w.\[\]-]*:)")  # in an interpolation; before a colon stands a function
_PACKAGES = ("hydra.conf", "lightning_transfer.conf")


@contextmanager
def checked_configs(overrides: Sequence[str]) -> Iterator[None]:
    """Let every config that Hydra composes meanwhile be checked before anything is built from it.

    Args:
        overrides: What the user typed; such values are the user's own decisions.
    """
    loader: Callable[..., ConfigLoaderImpl] = partial(CheckedLoader, typed=tuple(overrides))
    with (
        patch.object(hydra_application, "ConfigLoaderImpl", loader),
        patch.object(hydra_utils, "_save_config", partial(_save_if_possible, said=set())),
    ):
        yield


_save_config = hydra_utils._save_config


def _save_if_possible(cfg: DictConfig, filename: str, output_dir: Path, *, said: set[Path]) -> None:
    """Hydra's notes on a job, which are no result: a full disk costs a line a job, not the job."""
    try:
        _save_config(cfg, filename, output_dir)
    except OSError as error:
        with suppress(OSError):
            (output_dir / filename).unlink()
        if output_dir not in said:
            said.add(output_dir)
            warnings.warn(f"The config of the job is not written to `{output_dir}`: {Failure.of(error)}", stacklevel=2)


class CheckedLoader(ConfigLoaderImpl):
    """A loader of configs that refuses those that name code.

    Args:
        config_search_path: Where configs are.
        typed: Overrides of the command line.
    """

    def __init__(self, config_search_path: Any, typed: Sequence[str] = ()) -> None:
        super().__init__(config_search_path)
        self.repository = _CheckedRepository(config_search_path)
        self.typed = frozenset(path for override in typed for path in _typed_paths(override))

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        """Compose and check.

        Raises:
            ValueError: If something in the config may not be there.
        """
        hydra_utils._save_config = partial(_save_if_possible, said=set())  # in processes of launchers too
        try:
            config = super().load_configuration(config_name, overrides, *args, **kwargs)
        except RecursionError as error:
            raise ValueError(
                "Expected configs to end, but one names itself among its defaults, or is too deep."
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"Expected configs to be YAML, but got: {error}") from error
        check_composed(config, self.typed)
        return config


def _typed_paths(override: str) -> Iterator[str]:
    """Keys of the values that an override gives: those inside, if it gives a dict, since others may lie beside them."""
    key = override.partition("=")[0].lstrip("+")
    value: Any = None
    with suppress(HydraException):
        value = OverridesParser.create().parse_override(override).value() if "={" in override else None
    if isinstance(value, dict):
        yield from (path for path, _, inner in walk(value, key) if not isinstance(inner, dict))
    else:
        yield key


class _CheckedRepository(ConfigRepository):
    """Configs of files, each looked at before it is built, from places that are not imported for that."""

    def initialize_sources(self, config_search_path: Any) -> None:
        """Look at the places as they are when all names in them are resolved."""
        for place in config_search_path.get_path():
            scheme, _, package = str(place.path).partition("://")
            named = str(place.provider).startswith("hydra.searchpath") and scheme == "pkg"
            if named and package.replace("/", ".") not in (*_PACKAGES, *allowed_by_environment()):
                raise ValueError(
                    f"`hydra.searchpath: pkg://{package}` is not allowed: looking for configs in a package imports it. "
                    f"Set {EXTRA_VARIABLE}={package} to trust it."
                )
        super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> Any:
        for source in self.sources:
            if source.scheme() == "file" and source.is_config(config_path):
                path = Path(source.path, config_path.removesuffix(".yaml") + ".yaml")
                try:
                    _check_yaml(path)
                except (yaml.YAMLError, UnicodeDecodeError) as error:
                    raise ValueError(f"Expected `{path}` to be YAML, but got: {error}") from error
                break
        return super().load_config(config_path)


def _check_yaml(path: Path) -> None:
    """Refuse a file that becomes much more than it is: aliases of aliases of aliases.

    Raises:
        ValueError: If it is larger than any config, or becomes so.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise ValueError(f"Expected `{path}` to be a config of at most {_LARGEST_FILE} bytes.")
    total, anchored, open_nodes = 0, dict[str, int](), list[tuple[str | None, int]]()
    for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader):
        begins = isinstance(event, yaml.NodeEvent)
        total += anchored.get(str(event.anchor), 1) if isinstance(event, yaml.AliasEvent) else begins
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                anchored[anchor] = total - before + 1
        if total > _MOST_VALUES or len(open_nodes) > _DEEPEST:
            raise ValueError(
                f"Expected `{path}` to hold at most {_MOST_VALUES} values, aliases resolved, {_DEEPEST} deep."
            )


def check_composed(config: DictConfig, typed: frozenset[str] = frozenset()) -> None:
    """Check a composed config as a whole, Hydra's own section included.

    Args:
        config: As Hydra composed it. Of what Hydra builds itself the interpolations are resolved in place, so that what
            is built is what was checked.
        typed: Keys of the overrides that the user typed.

    Raises:
        ValueError: If something in it is not allowed.
    """
    _check_interpolations(OmegaConf.to_container(config, resolve=False))
    job = {key: OmegaConf.to_container(node) for key, node in config.items_ex(resolve=False) if _is_node(key, node)}
    for path, key, value in walk(job):
        if value not in _NEEDS_TYPING.get(str(key), (value,)):
            if path not in typed:
                raise ValueError(
                    f"`{path}: {str(value).lower()}` is for the command line, not for a config file: {path}=true."
                )
            node = OmegaConf.select(config, path.rpartition(".")[0])
            for resolve in (False, True):
                trust_program_of(cast("dict[str, Any]", OmegaConf.to_container(node, resolve=resolve)))
    check_config(job)
    if "hydra" not in config:
        return
    for part, targets in _BUILT_BY_HYDRA.items():
        _check_built(config.hydra, part, targets, typed)
    for part in ("job_logging", "hydra_logging"):
        _check_logging(OmegaConf.to_container(_plain_node(config.hydra, part) or OmegaConf.create()), f"hydra.{part}")
    if config.hydra.sweep.get("mode") is not None and "hydra.sweep.mode" not in typed:
        raise ValueError("`hydra.sweep.mode` is for the command line, not for a config file: it opens the folder.")
    copied = config.hydra.job.env_copy
    for name, value in config.hydra.job.env_set.items():
        is_chosen = f"hydra.job.env_set.{name}" in typed or (name in copied and os.environ.get(name) == value)
        if name not in _ENVIRONMENT and not is_chosen:
            raise ValueError(
                f"`hydra.job.env_set.{name}` is for the command line, not for a config file: such variables can bring "
                f"code into a process. Those that a file may set are {', '.join(sorted(_ENVIRONMENT))}."
            )


def _check_interpolations(config: Any) -> None:
    """Refuse values that name values that name values, each several times: resolved, they would fill the memory."""
    known: dict[tuple[str, ...], tuple[int, int]] = {}

    def measure(path: tuple[str, ...], node: Any, depth: int = 0) -> tuple[int, int]:
        """Signs of a value, and the steps to its last part."""
        if path in known:  # also one that is under way, whose circle OmegaConf will refuse
            return known[path]
        known[path] = (0, 0)
        parts: list[tuple[tuple[str, ...], Any]] = []
        if isinstance(node, (Mapping, list)):
            items = node.items() if isinstance(node, Mapping) else enumerate(node)
            parts = [((*path, str(key)), value) for key, value in items]
        elif isinstance(node, str) and "${" in node:
            parts = [found for name in _REFERENCES.findall(node) if (found := _look_up(config, path, name))]
        measured = [measure(*part, depth + 1) for part in parts] if depth <= _DEEPEST else [(0, depth)]
        total = 1 + sum(size for size, _ in measured) + (len(node) if isinstance(node, str) else 0)
        steps = 1 + max((steps for _, steps in measured), default=0)
        if total > _LARGEST_FILE or steps > _DEEPEST:
            raise ValueError(
                f"Expected `{'.'.join(path)}` to come to at most {_LARGEST_FILE} signs in {_DEEPEST} steps, all names "
                "resolved."
            )
        known[path] = total, steps
        return known[path]

    measure((), config)


def _look_up(config: Any, path: tuple[str, ...], name: str) -> tuple[tuple[str, ...], Any] | None:
    """Path and node of what an interpolation at a path names, if it is there."""
    inner = name.lstrip(".")
    steps = path[: -(len(name) - len(inner))] if name != inner else ()
    node = config
    steps = (*steps, *(part for part in re.split(r"[.\[\]]+", inner) if part))
    for step in steps:
        if isinstance(node, Mapping) and step in node:
            node = node[step]
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return steps, node


def _is_node(key: Any, node: Any) -> bool:
    return key != "hydra" and OmegaConf.is_config(node) and not node._is_none() and not node._is_interpolation()


def _check_built(hydra: DictConfig, part: str, targets: Sequence[str], typed: frozenset[str]) -> None:
    """Check a part of Hydra's section from which Hydra builds objects."""
    node = _plain_node(hydra, part)
    if node is None:
        return
    raw = cast("dict[str, Any]", OmegaConf.to_container(node)) if OmegaConf.is_dict(node) else {}
    place = None if f"hydra.{part}.{_PICKLES}" in typed else raw.get(_PICKLES)
    try:
        with open_dict(hydra):
            if place == _DEFAULT_PICKLES:
                node[_PICKLES] = ""
            OmegaConf.resolve(node)
    except OmegaConfBaseException as error:
        raise ValueError(
            f"Expected `hydra.{part}` to be plain values, but got: {str(error).splitlines()[0]}"
        ) from error
    plain = OmegaConf.to_container(node, resolve=False)
    target = str(plain.get("_target_")) if isinstance(plain, dict) else ""
    is_chosen = place == _DEFAULT_PICKLES or f"hydra.{part}.{_PICKLES}" in typed
    guarded = "" if is_chosen else f"hydra.{part}.{_PICKLES}"  # even an empty one is a place: the working directory
    trusted = any(target.startswith(f"{package}.") for package in allowed_by_environment())
    for path, key, value in walk({"hydra": {part: plain}}):
        if isinstance(value, str) and ("${" in value or not value.isprintable()):
            raise ValueError(f"Expected `{path}` to be a plain value, but got {value!r}.")
        if key == "_target_":
            if value not in targets:
                _check_own_callback(value, path, part)
        elif not (trusted or part == "callbacks" or (path != guarded and _may_be_set(path, value, target, typed))):
            raise ValueError(
                f"`{path}` is for the command line, not for a config file: it may reach scripts, other programs or "
                f"places that pickles come from. Set {EXTRA_VARIABLE}={target.rpartition('.')[0]} to trust your "
                "configs with it."
            )
    if place == _DEFAULT_PICKLES:
        with open_dict(hydra):  # a folder that nobody can have filled before
            node[_PICKLES] = _DEFAULT_PICKLES.replace("%j", f"{uuid.uuid4().hex}/%j")


def _may_be_set(path: str, value: Any, target: str, typed: frozenset[str]) -> bool:
    """Whether a file may give a launcher or sweeper this value, or the user typed it."""
    if isinstance(value, (Mapping, list)) or value in (None, False, ""):  # what they hold is looked at by itself
        return True
    name = ".".join(path.split(".")[2:])
    return _INDEX.sub("", path) in typed or any(fnmatchcase(name, known) for known in _FROM_FILES.get(target, ()))


def _plain_node(hydra: DictConfig, part: str) -> Any:
    if OmegaConf.is_interpolation(hydra, part):
        raise ValueError(f"Expected `hydra.{part}` to be plain values, but got an interpolation.")
    return hydra.get(part)


def _check_own_callback(target: Any, path: str, part: str) -> None:
    from hydra.experimental.callback import Callback

    kind = None
    if part == "callbacks" and isinstance(target, str) and target.startswith("lightning_transfer."):
        kind = check_target(target, allow=("lightning_transfer",))
    elif isinstance(target, str) and any(target.startswith(f"{package}.") for package in allowed_by_environment()):
        check_target(target)
        return
    if not (isinstance(kind, type) and issubclass(kind, Callback)):
        raise ValueError(
            f"`{path}: {target}` is not allowed here: Hydra builds its own launchers and sweepers, and callbacks of "
            f"this package. Set {EXTRA_VARIABLE}=package to trust one of your own."
        )


def _check_logging(settings: Any, where: str) -> None:
    """Refuse what would make Python's logging import, call or overwrite something."""
    for path, key, value in walk(settings, where):
        allowed = True
        if key in ("()", "."):
            allowed = False
        elif key == "class":
            allowed = value in _LOG_CLASSES
        elif key == "filename":
            allowed = value == _LOG_FILE or (isinstance(value, str) and value.endswith(".log") and "$" not in value)
        if isinstance(value, str) and value != _LOG_FILE:
            allowed = allowed and "${" not in value and ("://" not in value or value in _STREAMS)
        if not allowed:
            raise ValueError(
                f"`{path}: {value}` is not allowed here: logging is made of {', '.join(_LOG_CLASSES)}, writes to files "
                f"that end in .log, and its values are plain."
            )
