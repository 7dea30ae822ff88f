"""The scores by name: a light table, and how to build a collection of them.

What a score is called and needs is said by its class; nothing heavy is imported until that is asked for.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from lightning_transfer.metrics import SCORES

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

    from lightning_transfer.inputs import Task
    from lightning_transfer.metrics.base import TransferMetric


@dataclass(frozen=True)
class MetricSpec:
    """One column of a leaderboard.

    Attributes:
        name: Column name, snake_case.
        path: ``"module:Class"`` below :mod:`lightning_transfer.metrics`.
        options: Arguments that it is made with.
    """

    name: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric_class(self) -> type[TransferMetric]:
        """The class."""
        module, _, name = self.path.partition(":")
        loaded = getattr(importlib.import_module(f"lightning_transfer.metrics.{module}"), name)
        return cast("type[TransferMetric]", loaded)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Kinds of task that it fits."""
        return self.metric_class.tasks

    @cached_property
    def requires(self) -> tuple[str, ...]:
        """Inputs of its ``update``, classes and targets left out."""
        return tuple(name for name in self.build(self.tasks[0]).requires if name not in ("labels", "targets"))

    @cached_property
    def title(self) -> str:
        """Heading of its column."""
        return self.build(self.tasks[0]).title

    def build(self, task: Task = "classification", **options: Any) -> TransferMetric:
        """Make the Metric.

        Args:
            task: Kind of task.
            options: Arguments on top of the spec's own.

        Raises:
            ValueError: If the score does not fit the kind of task.
        """
        if task not in self.tasks:
            raise ValueError(f"Expected a task of kind {self.tasks} for metric `{self.name}`, but got {task!r}.")
        return self.metric_class(**{"task": task, **self.options, **options})


METRICS: dict[str, MetricSpec] = {name: MetricSpec(name, path, options) for name, (path, options) in SCORES.items()}
GROUPS = ("default", "all")
DEFAULT_METRICS: tuple[str, ...] = (
    "logme", "h_score", "h_score_shrunk", "leep", "nce", "knn_accuracy", "linear_mse", "label_mse",
)  # fmt: skip


def resolve_metrics(names: str | Iterable[str], task: Task = "classification") -> list[str]:
    """Turn ``"default"``, ``"all"``, a name or names into the names of the scores that fit a kind of task.

    Args:
        names: What the user asked for; ``"all"`` is every score of a backbone (task hardness, the same for all of them,
            and scores that need a reference are had by name only). Scores asked for by name must fit the task.
        task: Kind of task.

    Returns:
        Names in a fixed order, without repetition.

    Raises:
        ValueError: If a name is unknown, or a score asked for by name does not fit the task.

    Example:
        >>> from lightning_transfer.metrics.registry import resolve_metrics
        >>> resolve_metrics(["logme", "h_score"])
        ['logme', 'h_score']
        >>> resolve_metrics("default", task="regression")
        ['logme', 'linear_mse', 'label_mse']
    """
    names = [names] if isinstance(names, str) else list(names)
    resolved: list[str] = []
    for name in names:
        if name in GROUPS:
            group = DEFAULT_METRICS if name == "default" else [name for name, spec in METRICS.items() if _in_all(spec)]
            resolved += [entry for entry in group if task in METRICS[entry].tasks]
        elif name not in METRICS:
            raise ValueError(_unknown(name))
        elif task not in METRICS[name].tasks:
            raise ValueError(
                f"Expected metrics for a {task} task, but `{name}` is for {METRICS[name].tasks}; "
                "the attribute `task` of the data says which task they are for."
            )
        else:
            resolved.append(name)
    if not resolved:
        raise ValueError("Expected argument `metrics` to name at least one score, but got none.")
    return list(dict.fromkeys(resolved))


def read_metrics(metrics: Any) -> dict[str, Metric | Mapping[str, Any]]:
    """Read what users hand in where metrics are asked for: objects keep their own names, and nothing is dropped.

    Args:
        metrics: A name, a Metric, a ``MetricCollection``, several names and Metrics, or a dict from names to options of
            the score (or None), to Metrics or to configs of Metrics with ``_target_``.

    Returns:
        Metrics and options of those asked for by name, by column name, in the order given.

    Raises:
        ValueError: If a name is unknown, two Metrics have the same name, or an entry is none of these.

    Example:
        >>> from lightning_transfer.metrics import LogME
        >>> from lightning_transfer.metrics.registry import read_metrics
        >>> read_metrics(["h_score", LogME(task="regression")])
        {'h_score': {}, 'logme': LogME()}
    """
    from torchmetrics import Metric, MetricCollection

    if isinstance(metrics, MetricCollection):
        metrics = dict(metrics.items(keep_base=False, copy_state=False))
    if isinstance(metrics, (str, Metric)):
        metrics = [metrics]
    if isinstance(metrics, Mapping):
        pairs = [(str(name), {} if value is None else value) for name, value in metrics.items()]
    elif isinstance(metrics, Iterable):
        pairs = [(name_of(entry), entry) if isinstance(entry, Metric) else (entry, {}) for entry in metrics]
    else:
        hint = f"; a Metric is handed in built: {metrics.__name__}()" if isinstance(metrics, type) else ""
        raise ValueError(f"Expected argument `metrics` to be a name, names or a dict, but got {metrics!r}{hint}.")
    read: dict[str, Metric | Mapping[str, Any]] = {}
    for name, value in pairs:
        if isinstance(value, Mapping) and "_target_" in value:
            value = _build(name, value)
        if not isinstance(value, (Metric, Mapping)):
            raise ValueError(f"Expected argument `metrics` to hold a dict of options for {name!r}, but got {value!r}.")
        if isinstance(value, Mapping) and name not in (*METRICS, *GROUPS):
            raise ValueError(_unknown(name))
        if name in read and (isinstance(value, Metric) or isinstance(read[name], Metric)):
            raise ValueError(
                f"Expected argument `metrics` to hold one score of a name, but got `{name}` for "
                f"{_with_options(read[name], value)} and {_with_options(value, read[name])}: hand them "
                "in as a dict, each under a name of its own."
            )
        read[name] = value
    return read


def _build(name: str, config: Mapping[str, Any]) -> Metric:
    """A Metric of somebody's own from its config."""
    from torchmetrics import Metric

    from lightning_transfer.utilities.instantiate import instantiate

    try:
        built = instantiate(config)
    except (TypeError, ValueError) as error:  # an argument that is unknown, missing or wrong
        raise ValueError(f"metrics.{name}: {error}") from error
    if not isinstance(built, Metric):
        raise ValueError(f"Expected `metrics.{name}` to build a Metric, but got {built!r:.100}.")
    return built


def name_of(metric: Metric) -> str:
    """What a Metric is called: its own ``name``, or that of its class in snake_case."""
    name = getattr(metric, "name", None)
    return name if isinstance(name, str) else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(metric).__name__).lower()


def _unknown(name: Any) -> str:
    """What is known in place of a name, and what may have been meant."""
    word = getattr(name, "__name__", str(name))
    near = get_close_matches(re.sub(r"[\s-]", "_", word.lower()), METRICS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    if isinstance(name, type) and hasattr(name, "compute"):
        meant = f"; a Metric is handed in built: {word}()."
    return f"Expected argument `metrics` to name some of {sorted(METRICS)}, but got {name!r}{meant}"


def _with_options(entry: Metric | Mapping[str, Any], other: Metric | Mapping[str, Any]) -> str:
    """A Metric as its call, with the options in which it differs from another one; options as they are."""
    if isinstance(entry, Mapping):
        return repr(dict(entry))
    given = [option for option in signature(type(entry)).parameters if hasattr(entry, option)]
    texts = {option: repr(getattr(entry, option)) for option in given}
    differing = [f"{option}={text}" for option, text in texts.items() if text != repr(getattr(other, option, None))]
    return f"{type(entry).__name__}({', '.join(differing)})"


def _in_all(spec: MetricSpec) -> bool:
    return bool(spec.requires) and not spec.metric_class.needs_reference


def build_metrics(
    names: str | Iterable[str] = "default",
    *,
    task: Task = "classification",
    available: Collection[str] = ("features", "source_probs", "source_labels", "source_outputs"),
    jackknife_groups: int = 1,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> MetricCollection:
    """Build the scores that can be computed from what is available.

    Args:
        names: ``"default"``, ``"all"``, a name or names.
        task: Kind of task.
        available: Inputs at hand besides classes or targets; scores that need others are left out.
        jackknife_groups: Partial sums of the scores that can give a jackknife interval.
        options: Further arguments by name of the score.

    Returns:
        A collection keyed by column names (which torchmetrics sorts).

    Raises:
        ValueError: If a name is unknown, does not fit the task, or nothing can be computed.

    Example:
        >>> from lightning_transfer.metrics.registry import build_metrics
        >>> list(build_metrics(["logme", "h_score"]).keys())
        ['h_score', 'logme']
    """
    from lightning_transfer.metrics.base import collect

    wanted = resolve_metrics(names, task)
    possible = [name for name in wanted if set(METRICS[name].requires) <= set(available)]
    if not possible:
        raise ValueError(f"None of the metrics {wanted} can be computed from {sorted(available)}.")
    metrics: dict[str, TransferMetric] = {}
    for name in possible:
        chosen = {**(options or {}).get(name, {})}
        metrics[name] = METRICS[name].build(task, **chosen)
        if jackknife_groups > 1 and metrics[name].jackknife:
            metrics[name] = METRICS[name].build(task, **{"jackknife_groups": jackknife_groups, **chosen})
    return collect(metrics)
