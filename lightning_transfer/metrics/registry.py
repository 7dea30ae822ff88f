"""The scores by name: what each needs, which tasks it fits, and how to build a collection of them.

OTCE and the task-relatedness bound, which need a second data set, are made by their classes.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

Task = Literal["classification", "multilabel", "regression"]
_CLASS: tuple[Task, ...] = ("classification",)
_LABELS: tuple[Task, ...] = ("classification", "multilabel")
_ALL: tuple[Task, ...] = ("classification", "multilabel", "regression")


@dataclass(frozen=True)
class MetricSpec:
    """One column of a leaderboard.

    Attributes:
        name: Column name, snake_case.
        class_name: Class in :mod:`lightning_transfer.metrics`.
        requires: Inputs of its ``update``, classes and targets left out.
        tasks: Kinds of task that it fits.
        options: Arguments that it is made with.
        task_argument: Whether its class takes the kind of task as the argument ``task``.
        higher_is_better: Direction of the column.
        jackknife: Whether its class takes ``jackknife_groups``.
        summary: One line for people.
    """

    name: str
    class_name: str
    summary: str
    requires: tuple[str, ...] = ("features",)
    tasks: tuple[Task, ...] = _CLASS
    options: Mapping[str, Any] = field(default_factory=dict)
    task_argument: bool = False
    higher_is_better: bool = True
    jackknife: bool = False

    def build(self, task: Task = "classification", **options: Any) -> Metric:
        """Make the Metric.

        Args:
            task: Kind of task.
            options: Arguments on top of the spec's own.

        Raises:
            ValueError: If the score does not fit the kind of task.
        """
        if task not in self.tasks:
            raise ValueError(f"Expected a task of kind {self.tasks} for metric `{self.name}`, but got {task!r}.")
        cls = getattr(importlib.import_module("lightning_transfer.metrics"), self.class_name)
        arguments = {**self.options, **options}
        metric: Metric = cls(task=task, **arguments) if self.task_argument else cls(**arguments)
        return metric


_SPECS = (
    MetricSpec(
        "logme", "LogME", "maximum evidence of a linear model", tasks=_ALL, task_argument=True, jackknife=True,
    ),
    MetricSpec("h_score", "HScore", "class variance of whitened features", jackknife=True),
    MetricSpec(
        "h_score_shrunk", "HScore", "H-score with Ledoit-Wolf shrinkage", options={"shrinkage": "ledoit_wolf"},
        jackknife=True,
    ),
    MetricSpec("knn_accuracy", "KNNAccuracy", "leave-one-out nearest-neighbour accuracy", tasks=_LABELS),
    MetricSpec(
        "ridge_probe", "RidgeProbe", "leave-one-out accuracy or R² of a ridge probe", tasks=_ALL, task_argument=True,
    ),
    MetricSpec("leep", "LEEP", "log-likelihood through the source classes", requires=("source_probs",), tasks=_LABELS),
    MetricSpec(
        "nce", "NegativeConditionalEntropy", "label information in the source prediction", requires=("source_labels",),
        tasks=_LABELS, jackknife=True,
    ),
    MetricSpec("linear_mse", "LinearMSE", "error of the best linear map", tasks=("regression",), jackknife=True),
    MetricSpec(
        "label_mse", "LabelMSE", "error of the best linear map of the source outputs", requires=("source_outputs",),
        tasks=("regression",), jackknife=True,
    ),
    MetricSpec("gbc", "GBC", "overlap of class Gaussians"),
    MetricSpec(
        "gbc_streaming", "GBC", "overlap of class Gaussians in all dimensions", options={"pca_dim": None},
        jackknife=True,
    ),
    MetricSpec("lfc", "LFC", "alignment of features with labels", jackknife=True),
    MetricSpec("transrate", "TransRate", "coding-rate gap between features and classes"),
    MetricSpec("sfda", "SFDA", "self-challenging discriminant analysis"),
    MetricSpec("parc", "PARC", "rank correlation of sample distances and labels", tasks=_LABELS),
    MetricSpec("nleep", "NLEEP", "LEEP on Gaussian-mixture clusters"),
    MetricSpec("ncti", "NCTI", "neural-collapse distance (raw part)"),
    MetricSpec(
        "etran", "ETran", "energy and linear fit (raw sum)", tasks=("classification", "regression"), task_argument=True
    ),
    MetricSpec("pactran", "PACTran", "PAC-Bayes bound of a softmax head"),
    MetricSpec(
        "pactran_dirichlet", "PACTran", "PAC-Bayes bound of label counts a source class", requires=("source_probs",),
        options={"prior": "dirichlet"},
    ),
    MetricSpec(
        "pactran_gamma", "PACTran", "PAC-Bayes bound of label weights a source class", requires=("source_probs",),
        options={"prior": "gamma"},
    ),
    MetricSpec(
        "emms", "EMMS", "error of the best linear map to label embeddings", tasks=_ALL, task_argument=True,
        jackknife=True,
    ),
    MetricSpec(
        "energy", "EnergyScore", "mean log-sum-exp of the source outputs", requires=("source_outputs",), tasks=_ALL
    ),
    MetricSpec(
        "task_hardness", "TaskHardness", "entropy of the labels: of the task, not of a backbone", requires=(),
        tasks=_LABELS, higher_is_better=False, jackknife=True,
    ),
)  # fmt: skip

METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _SPECS}
DEFAULT_METRICS: tuple[str, ...] = (
    "logme", "h_score", "h_score_shrunk", "leep", "nce", "knn_accuracy", "linear_mse", "label_mse",
)  # fmt: skip


def resolve_metrics(names: str | Iterable[str], task: Task = "classification") -> list[str]:
    """Turn ``"default"``, ``"all"``, a name or names into the names of the scores that fit a kind of task.

    Args:
        names: What the user asked for; ``"all"`` is every score of a backbone (task hardness, the same for all of them,
            is had by name only). Scores asked for by name must fit the task.
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
        if name in ("default", "all"):
            group = DEFAULT_METRICS if name == "default" else [spec.name for spec in _SPECS if spec.requires]
            resolved += [entry for entry in group if task in METRICS[entry].tasks]
        elif name not in METRICS:
            raise ValueError(f"Expected argument `metrics` to name some of {sorted(METRICS)}, but got {name!r}.")
        elif task not in METRICS[name].tasks:
            raise ValueError(f"Expected metrics for a {task} task, but `{name}` is for {METRICS[name].tasks}.")
        else:
            resolved.append(name)
    if not resolved:
        raise ValueError("Expected argument `metrics` to name at least one score, but got none.")
    return list(dict.fromkeys(resolved))


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
    metrics: dict[str, Metric] = {}
    for name in possible:
        spec = METRICS[name]
        extra = {"jackknife_groups": jackknife_groups} if spec.jackknife and jackknife_groups > 1 else {}
        metrics[name] = spec.build(task, **extra, **(options or {}).get(name, {}))
    return collect(metrics)
