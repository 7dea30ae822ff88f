"""Watch transferability scores from inside the Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from typing_extensions import override

from lightning_transfer.callbacks.monitor import FeatureMonitor
from lightning_transfer.inputs import SOURCE_INPUTS, Key, needs_of, task_of, wanted_labels
from lightning_transfer.metrics.base import collect
from lightning_transfer.metrics.registry import METRICS, build_metrics, read_metrics, resolve_metrics
from lightning_transfer.utilities.checks import check_in_interval

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Metrics = str | Sequence[str | Metric] | Metric | MetricCollection | Mapping[str, Metric | Mapping[str, Any] | None]


class TransferabilityMonitor(FeatureMonitor):
    """Score how well the features fit the task, before training and after every epoch.

    The first values come from a pass of the callback's own over the validation data (unshuffled, in evaluation mode)
    and are there at step 0. Later ones come from a forward hook during the validation that Lightning runs anyway. They
    appear as ``transfer/<name>`` in ``trainer.callback_metrics`` and in every logger, so that checkpoints, early
    stopping and sweepers can monitor them; with several validation loaders as ``transfer/<name>/dataloader_idx_<i>``.

    Training itself is bit for bit what it is without the callback. With several processes the values are those of one
    process: samples that a distributed sampler repeats are left out. (A data set of the iterable kind has to shard
    itself, as Lightning asks.)

    Args:
        metrics: Names of scores (see :mod:`lightning_transfer.metrics.registry`), a metric, several, or a dict from
            names to metrics or to options of the score. Metrics keep their own names. Scores asked for by name are
            those for the attribute ``task`` of the datamodule or the module: ``"classification"`` without one,
            ``"multilabel"`` (zeros and ones of any dtype) or ``"regression"`` (whole numbers too). Metrics of your own
            may have the keyword inputs ``features``, ``labels``, ``targets``, ``source_probs``, ``source_labels``,
            ``source_outputs``. The source ones come from the original head of a
            :class:`~lightning_transfer.backbones.Backbone` in the module.
        layer: Dotted name of the module whose output is the feature; if it is the head, its input is. By default the
            input of the last :class:`~torch.nn.Linear`.
        before_fit: Make the first pass before training.
        every_n_epochs: Score at the end of every n-th epoch, or in every n-th validation where the training data do not
            say how long an epoch is.
        data: ``"val"``; or ``"train"``, a loader or a datamodule, which get a pass of their own once an epoch.
        max_samples: Look at no more samples, spread evenly over the set.
        input_key: Key of the inputs in a batch, or their position in a tuple, where the usual names do not do (see
            :func:`~lightning_transfer.inputs.split_batch`); by default the attribute ``input_key`` of ``data``.
        label_key: The same for the labels or targets.
        prefix: Group of the names of the values.
        name: Tells this monitor from others of its kind (another layer, say), which Lightning refuses side by side
            otherwise: the names of the values are ``prefix/name/value`` then.
        stop_below: Stop a hopeless run: the score that ranks must not fall below this number, or below the quantile
            ``stop_quantile`` of its column in the leaderboard stored at this path. The Trainer's ``min_epochs`` and
            ``min_steps`` are respected.
        stop_metric: Which score that is; the first one by default.
        stop_quantile: 0 is the worst backbone of the leaderboard, 1 the best.
        strict: Let an exception in a score end the training instead of warning once.

    Attributes:
        values: The last values, by name without prefix.
        history: One record a look: epoch, step and values.
        stopped_reason: Why the run was stopped; empty if it was not.

    Raises:
        ValueError: For unknown names and bad arguments, here or when the fit starts; then also for a leaderboard
            without the score. One that cannot be read is an :class:`OSError`.
        MisconfigurationException: In ``setup``, with a strategy that shards the module.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning_transfer.callbacks import TransferabilityMonitor
        >>> monitor = TransferabilityMonitor(["logme", "h_score"], stop_below=-2.0)
        >>> trainer = Trainer(callbacks=[monitor], logger=False)
    """

    def __init__(
        self,
        metrics: Metrics = "logme",
        *,
        layer: str | None = None,
        before_fit: bool = True,
        every_n_epochs: int = 1,
        data: Any = "val",
        max_samples: int | None = None,
        input_key: Key | None = None,
        label_key: Key | None = None,
        prefix: str = "transfer",
        name: str | None = None,
        stop_below: float | str | Path | None = None,
        stop_metric: str | None = None,
        stop_quantile: float = 0.5,
        strict: bool = False,
    ) -> None:
        super().__init__(
            layer=layer,
            before_fit=before_fit,
            every_n_epochs=every_n_epochs,
            data=data,
            max_samples=max_samples,
            input_key=input_key,
            label_key=label_key,
            prefix=prefix,
            name=name,
            strict=strict,
        )
        self.metrics = metrics
        self._asked = read_metrics(metrics)
        if not self._asked:
            raise ValueError("Expected argument `metrics` to name at least one score, but got none.")
        self.stop_below, self.stop_metric = stop_below, stop_metric
        self.stop_quantile = check_in_interval(stop_quantile, 0, 1, "stop_quantile")
        self.stopped_reason = ""
        self._collections: dict[int, list[MetricCollection]] = {}  # by loader
        self._needs: list[dict[str, tuple[str, ...]]] = []  # of each collection
        self._failed: set[tuple[int, int]] = set()
        self._named: dict[str, Metric] = {}
        self._task_is_said = True
        self._task = ""  # that scores were asked for by name for, in words
        self._threshold, self._origin = math.nan, ""

    @property
    @override
    def state_key(self) -> str:
        return f"{super().state_key}{list(self._asked)}"

    @override
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._named = self._build(trainer, pl_module)
        if self.stop_metric not in (None, *self._named):
            raise ValueError(
                f"Expected argument `stop_metric` to be one of {list(self._named)}, but got {self.stop_metric!r}."
            )
        if self.stop_below is not None and self._named:
            self._threshold, self._origin = self._find_threshold(*self._stopping())
        wanted = [set(getattr(metric, "requires", ())) or set(SOURCE_INPUTS) for metric in self._named.values()]
        self.source_inputs = set(SOURCE_INPUTS) & set(chain.from_iterable(wanted))
        device = pl_module.device if pl_module.device.type != "mps" else torch.device("cpu")  # it has no float64
        by_inputs: dict[object, dict[str, Metric]] = {}
        for name, metric in self._named.items():  # one failing score takes none of the others with it
            by_inputs.setdefault(getattr(metric, "requires", name), {})[name] = metric
            if hasattr(metric, "defer_checks"):
                cast(Any, metric).defer_checks = device.type != "cpu"
        self._collections = {0: [collect(group).to(device) for group in by_inputs.values()]}
        self._needs = [{name: needs_of(metric) for name, metric in group.items()} for group in by_inputs.values()]
        self.labels_as = wanted_labels(chain.from_iterable(needs for group in self._needs for needs in group.values()))

    def _build(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Metric]:
        names = [name for name, value in self._asked.items() if not isinstance(value, Metric)]
        named: dict[str, Metric] = {}
        if names:
            owners = getattr(trainer, "datamodule", None), pl_module
            task = task_of(*owners)
            self._task_is_said = any(getattr(owner, "task", None) is not None for owner in owners)
            self._task = f" for {task} (the attribute `task` of the module or the datamodule may say otherwise)"
            built = build_metrics(names, task=task, available=self.available, options=cast(Any, self._asked))
            left_out = set(names) & set(METRICS) - set(built)
            if left_out:
                self.warn_once(f"{sorted(left_out)}", "cannot be computed without a `Backbone` that has its head")
            named = {name: built[name] for name in resolve_metrics(names, task) if name in built}
        objects = {name: value for name, value in self._asked.items() if isinstance(value, Metric)}
        if both := sorted(named.keys() & objects):
            raise ValueError(f"Expected argument `metrics` to hold one score of a name, but got {both} twice.")
        order = [name for name in self._asked if name in {**named, **objects}]
        return {name: {**named, **objects}[name] for name in dict.fromkeys([*order, *named])}

    @override
    def reset(self) -> None:
        self._failed = set()
        for collection in chain.from_iterable(self._collections.values()):
            collection.reset()

    @override
    def update(self, inputs: dict[str, Tensor], places: Tensor, dataloader_idx: int) -> None:
        if self.look.targets and not self._task_is_said and "labels" in inputs and inputs["labels"].ndim == 1:
            self.warn_once(
                "A batch",
                "has whole numbers under `targets`, which are taken for class ids (`task` may say otherwise)",
            )
        for index, collection in enumerate(self._collections_of(dataloader_idx)):
            if (dataloader_idx, index) not in self._failed:
                try:
                    self._check_needs(self._needs[index], inputs)
                    collection.update(**inputs)
                except Exception as error:
                    self._failed.add((dataloader_idx, index))
                    self.fail(f"The update of {list(collection.keys())}{self._task}", error)

    def _check_needs(self, needs: Mapping[str, tuple[str, ...]], inputs: Mapping[str, Tensor]) -> None:
        for name, wanted in needs.items():
            if missing := sorted(set(wanted) - inputs.keys()):
                raise ValueError(
                    f"`{name}` needs {missing}, but a batch has {self.look.batch} and gives {sorted(inputs)}; "
                    "`label_key` says where the labels are."
                )

    @override
    def compute(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        values: dict[str, float] = {}
        for loader in range(self.look.num_loaders):
            suffix = self.suffix(loader)
            seen = trainer.strategy.reduce_boolean_decision(self.look.samples[loader] > 0, all=False)
            for index, collection in enumerate(self._collections_of(loader)):
                sound = trainer.strategy.reduce_boolean_decision((loader, index) not in self._failed, all=True)
                if not (seen and sound):
                    continue
                for name, metric in collection.items(keep_base=True, copy_state=False):
                    with self.guard(f"The score `{name}`"):
                        values |= {f"{key}{suffix}": value for key, value in _numbers(name, metric.compute()).items()}
        return values

    def _collections_of(self, loader: int) -> list[MetricCollection]:
        if loader not in self._collections:
            self._collections[loader] = [collection.clone() for collection in self._collections[0]]
            for collection in self._collections[loader]:
                collection.reset()
        return self._collections[loader]

    @override
    def after_publish(self, trainer: Trainer) -> None:
        if self.stop_below is None:
            return
        name, higher_is_better = self._stopping()
        value = self.values.get(name, self.values.get(f"{name}/dataloader_idx_0"))
        if value is not None and (value < self._threshold if higher_is_better else value > self._threshold):
            self.stopped_reason = (
                f"{self.prefix}/{name} = {value:.6g} is worse than {self._threshold:.6g} ({self._origin})."
            )
            trainer.should_stop = True
            rank_zero_info(f"{type(self).__name__} stops the run: {self.stopped_reason}")

    def _stopping(self) -> tuple[str, bool]:
        """The score that may stop the run, and whether higher is better."""
        name = self.stop_metric or next(iter(self._named))
        return name, getattr(self._named[name], "higher_is_better", None) is not False

    def _find_threshold(self, name: str, higher_is_better: bool) -> tuple[float, str]:
        if isinstance(self.stop_below, float | int):
            return float(self.stop_below), "stop_below"
        from lightning_transfer.screening.leaderboard import Leaderboard

        board = Leaderboard.load(str(self.stop_below))
        scores = torch.tensor([row.score(name) for row in board.rows], dtype=torch.float64)
        scores = scores[scores.isfinite()]
        if not len(scores):
            raise ValueError(f"Expected the leaderboard {self.stop_below} to have scores in `{name}`.")
        level = self.stop_quantile if higher_is_better else 1 - self.stop_quantile
        return float(scores.quantile(level)), f"quantile {self.stop_quantile} of {self.stop_below}"


def _numbers(name: str, result: Any) -> dict[str, float]:
    if isinstance(result, Mapping):
        return {f"{name}_{key}": float(value) for key, value in result.items()}
    return {name: float(result)}
