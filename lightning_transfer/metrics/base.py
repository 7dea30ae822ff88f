"""What every Metric of the package shares: one scalar, its interval, and a health record."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_transfer._compat import LinkedCollection, default_states
from lightning_transfer.functional.counts import check_attributes, refuse_ignored_columns
from lightning_transfer.inputs import Task
from lightning_transfer.utilities.checks import (
    check_features,
    check_labels,
    check_one_of,
    check_probabilities,
    check_targets,
    flatten_positions,
)
from lightning_transfer.utilities.groups import check_groups
from lightning_transfer.utilities.notice import warn_user

if TYPE_CHECKING:
    from lightning_transfer._compat import AxesType, PlotType

_NUMBERS = re.compile(r"\d[\d.]*(e[+-]?\d+)?")
_ROUNDING = 1e-9  # by which a score may pass its limits
_WIDE = 8  # features from which an effective rank below the next number is worth a word
_COLLAPSED = 1.5
_ALONE, _GROUPED = 1, 2  # what samples are, in the state that tells


@dataclass(frozen=True)
class ScoreInterval:
    """A score with its uncertainty.

    Attributes:
        value: The score of all data.
        standard_error: Its standard error.
        lower: Lower end of the interval.
        upper: Upper end of the interval.
        level: Nominal coverage of the interval.
        method: ``"jackknife"`` or ``"bootstrap"``.
        bias: Estimated bias of the value at this number of samples; a jackknife interval is centred on
            ``value - bias``. 0 for the bootstrap, which does not estimate it.
    """

    value: float
    standard_error: float
    lower: float
    upper: float
    level: float
    method: Literal["jackknife", "bootstrap"]
    bias: float = 0.0


@dataclass(frozen=True)
class Health:
    """What a reader should know before trusting a score; fields are None where they do not apply.

    Attributes:
        num_samples: Samples behind the score.
        num_features: Width of the features.
        num_classes: Classes that have samples.
        smallest_class: Samples of the smallest of them.
        samples_per_feature: ``num_samples / num_features``.
        effective_rank: Participation ratio of the covariance of the features.
        condition_number: Of the correlation matrix of the features on its range, where the score inverts it; an
            estimate from below.
        converged: Whether the solver of the score last computed reached its tolerance.
        in_range: Whether the score last computed lies within its theoretical limits.
        messages: Warnings in plain words.
    """

    num_samples: int
    num_features: int | None = None
    num_classes: int | None = None
    smallest_class: int | None = None
    samples_per_feature: float | None = None
    effective_rank: float | None = None
    condition_number: float | None = None
    converged: bool = True
    in_range: bool = True
    messages: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, ready for JSON."""
        return asdict(self)


class TransferMetric(Metric, ABC):
    """Base of all scores: one scalar, higher is better unless the class says otherwise.

    What a score is called and what it takes is said here and nowhere else; the table of names, leaderboards, monitors
    and the command line read it. Options may change it, so an instance says more than its class.

    Attributes:
        name: Column of a leaderboard, snake_case.
        title: Heading of that column.
        tasks: Kinds of task that the score fits; the first is the default.
        requires: Keyword inputs of ``update``.
        needs_reference: Whether ``set_reference`` has to be called before ``compute``.
        higher_is_better: Direction.
        leave_one_out: Whether each sample is judged by all others, so that near-duplicates flatter the score.
        jackknife: Whether there are ``jackknife_groups``.
        combine: For scores that are published relative to a zoo of models: makes them, shape ``(models,)``, out of the
            ``parts()`` of each; None for others.

    Args:
        task: Kind of task, one of :attr:`tasks`.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    name: str
    title: str
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    requires: tuple[str, ...] = ("features", "labels")
    needs_reference: ClassVar[bool] = False
    leave_one_out: ClassVar[bool] = False
    jackknife: bool = False
    combine: ClassVar[Callable[..., Tensor] | None] = None
    is_differentiable: bool = False
    higher_is_better: bool | None = True
    full_state_update: bool = False
    ignore_index: int | None = None
    grouping: Tensor

    def __init__(self, *, task: Task | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("grouping", torch.zeros((), dtype=torch.long), dist_reduce_fx=check_same_grouping)
        self.task: Task = self.tasks[0] if task is None else task
        check_one_of(self.task, self.tasks, "task")
        if self.task == "regression":
            self.requires = tuple("targets" if name == "labels" else name for name in self.requires)
        self._warned: set[str] = set()
        self._unconverged = ""  # what the solver of the score last computed has to say
        self._outside = ""  # whether that score is possible at all

    @property
    def plot_legend_name(self) -> str:  # type: ignore[override]
        """The title, for plots."""
        return self.title

    @abstractmethod
    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with its standard error and an interval of the given coverage."""

    @abstractmethod
    def _examine(self) -> Health:
        """Describe the data behind the score."""

    def health(self) -> Health:
        """Describe the data behind the score, and whether the score last computed is sound."""
        record = self._examine()
        remarks = [message for message in (self._unconverged, self._outside) if message]
        return replace(
            record,
            converged=record.converged and not self._unconverged,
            in_range=not self._outside,
            messages=(*record.messages, *remarks),
        )

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Change nothing: sums are exact because they are float64, ids and counts are integers.

        Args:
            dst_type: Ignored.
        """
        return self

    def reset(self) -> None:
        """Forget all data."""
        super().reset()
        self._unconverged = self._outside = ""

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> None:
        """Sum or gather the states of all ranks, which are brought to one shape first.

        Args:
            dist_sync_fn: Gathers a tensor of all ranks.
            process_group: The ranks that take part; those of the metric by default.
            should_sync: Whether to do it at all.
            distributed_available: Tells whether there are other ranks.
        """
        available = distributed_available if distributed_available is not None else self.distributed_available_fn
        if should_sync and not self._is_synced and callable(available) and available():
            self._align_ranks(dist_sync_fn or gather_all_tensors, process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        """Bring the states to the shape that they have on all ranks, also on those without data."""

    def score_range(self) -> tuple[float, float]:
        """Theoretical limits of the score for the data seen so far."""
        return -float("inf"), float("inf")

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: AxesType | None = None) -> PlotType:
        """Plot one or more values of the score.

        Args:
            val: Result of ``compute`` or a list of results; by default the current value.
            ax: Axes to draw into.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)

    def _finish(self, score: Tensor) -> Tensor:
        """Refuse to hand out a score that is not a number; say once what makes it doubtful."""
        if bool(torch.isnan(score)):
            raise RuntimeError(
                f"{type(self).__name__} is not a number for the data seen; its health is {self.health()}."
            )
        value, (low, high) = float(score), self.score_range()
        slack = _ROUNDING * max(1.0, abs(value))
        possible = low - slack <= value <= high + slack
        self._outside = "" if possible else f"{value:.6g} is impossible, the limits are {low:.6g} and {high:.6g}"
        for message in self.health().messages:
            kind = _NUMBERS.sub("", message)  # which change from epoch to epoch
            if kind not in self._warned:
                self._warned.add(kind)
                rank_zero_only(warn_user)(f"{self.title}: {message}")
        return score

    @property
    def _width(self) -> int:
        """Columns of the first input in the batches before; 0 for none before."""
        return 0

    @property
    def _reads_values(self) -> bool:
        """Whether values of a batch are looked at when it comes, for which a GPU has to be waited for."""
        return True

    def _check_truth(self, truth: Tensor, n: int) -> Tensor:
        """Check the labels or targets of ``n`` samples and return them as they are kept."""
        read = self._reads_values
        if self.task == "classification":
            return check_labels(truth, n, read=read)
        if self.task == "multilabel":
            return check_attributes(truth, n, read=read)
        return check_targets(truth, n, read=read)

    def _checked(self, values: Tensor, labels: Tensor | None, targets: Tensor | None = None) -> list[Tensor] | None:
        """Validate a batch before any state changes.

        Args:
            values: The first input that :attr:`requires` names.
            labels: Class ids or attributes; targets where there are no ``targets``.
            targets: Targets; labels where there are no ``labels``.

        Returns:
            The first input, shape ``(n, d)``, and what :meth:`_check_truth` makes of the other; None if every
            position is ignored.
        """
        name, kind = self.requires
        preferred, other = (targets, labels) if kind == "targets" else (labels, targets)
        truth = other if preferred is None else preferred
        if truth is None:
            raise ValueError(f"Expected argument `{kind}` of {type(self).__name__} with every batch, but got None.")
        if kind == "labels":
            given = values
            values, truth = flatten_positions(values, truth, self.ignore_index)
            refuse_ignored_columns(truth, self.ignore_index)
            if self.ignore_index is not None and isinstance(given, Tensor) and given.numel() and not len(values):
                return None
        if name == "source_probs":
            values = check_probabilities(values, len(values) if isinstance(values, Tensor) and values.ndim else 0)
        else:
            values = check_features(values, name, read=self._reads_values)
        check_width(self._width, values, name)
        return [values, self._check_truth(truth, len(values))]

    def _check_groups(
        self, groups: Tensor | None, positions: Sequence[int], labels: Tensor | None = None
    ) -> Tensor | None:
        """Check the groups of a batch before any state changes.

        Args:
            groups: Ids of what belongs together, or None.
            positions: ``(n,)``, or the shape of the labels where these are of tokens or pixels.
            labels: The labels as they were handed in, where there are some.

        Returns:
            One id for each sample or position that is not left out, or None.

        Raises:
            ValueError: If groups are malformed, or came with some batches only.
        """
        before = count_in(self.grouping)
        if before and (before == _GROUPED) != (groups is not None):
            raise ValueError("Expected argument `groups` with every batch or with none, but got it with some.")
        if groups is None:
            return None
        return check_groups(groups, positions, labels, self.ignore_index).to(self.device)

    @property
    def _has_groups(self) -> bool:
        """Whether samples came with groups."""
        return count_in(self.grouping) == _GROUPED

    def _note_grouping(self, groups: Tensor | None) -> None:
        """Note whether samples come with groups; the state stays the same tensor, which other metrics may share."""
        wanted = _ALONE if groups is None else _GROUPED
        if count_in(self.grouping) != wanted:
            set_count(self.grouping, wanted)

    def _require_data(self, count: int) -> None:
        if not count:
            raise ValueError(f"Expected `update` to be called with samples before `compute` of {type(self).__name__}.")


def collect(metrics: Mapping[str, Metric]) -> MetricCollection:
    """Make a collection of metrics in which those that keep the same states do so from the first batch.

    Metrics keep the same states if they have one ``update`` and start from equal states. A plain ``MetricCollection``
    finds that out too, but only after each metric has made states of its own from the first batch, and by comparing
    all their values. With a metric of another package among them it is left to do so.

    Args:
        metrics: Metrics by name.
    """
    groups: list[tuple[TransferMetric, list[str]]] = []
    for name, metric in metrics.items():
        if not isinstance(metric, TransferMetric):
            return MetricCollection(dict(metrics))
        names = next((names for first, names in groups if _shares_states(metric, first)), None)
        if names is None:
            groups.append((metric, [name]))
        else:
            names.append(name)
    return LinkedCollection(dict(metrics), compute_groups=[names for _, names in groups])


def _shares_states(metric: TransferMetric, other: TransferMetric) -> bool:
    def keeps(one: TransferMetric) -> tuple[Any, ...]:
        return type(one).update, type(one)._check_truth, one.task

    ours, theirs = default_states(metric), default_states(other)
    if keeps(metric) != keeps(other) or ours.keys() != theirs.keys():
        return False
    pairs = [(value, theirs[name]) for name, value in ours.items()]
    return all(
        one.tolist() == two.tolist() if isinstance(one, Tensor) and isinstance(two, Tensor) else one == two
        for one, two in pairs
    )


def collapse_message(effective_rank: float, num_features: int) -> list[str]:
    """What to say of features that vary along hardly more than one direction: one message or none."""
    if num_features < _WIDE or effective_rank >= _COLLAPSED:
        return []
    return [f"nearly all variance lies along one direction (effective rank {effective_rank:.2f} of {num_features})"]


def outside_inference(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method change states in inference mode that can be changed after it, too.

    Tensors made in inference mode refuse to be changed outside of it, and a state can come from there: by ``reset``, a
    move to another device, or the end of a sync.
    """

    @wraps(method)
    def run(self: TransferMetric, *args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False):
            for name in default_states(self):
                state = getattr(self, name)
                if isinstance(state, Tensor) and state.is_inference():
                    setattr(self, name, state.clone())
            return method(self, *args, **kwargs)

    return run


class _Memo(dict[Any, Any]):
    """What follows from a state; copies of the state start without it."""

    def __deepcopy__(self, _: dict[int, Any]) -> _Memo:
        return _Memo()

    def __reduce__(self) -> tuple[type[_Memo], tuple[()]]:
        return _Memo, ()


def memo(state: Tensor) -> dict[Any, Any]:
    """What has been computed from a state: kept on it, so metrics that share the state share it and it goes with it.

    Nothing may be put there that holds a view of that very state.
    """
    if not hasattr(state, "_memo"):
        state._memo = _Memo()  # type: ignore[attr-defined]
    content: dict[Any, Any] = state._memo  # type: ignore[attr-defined]
    return content


def count_in(state: Tensor) -> int:
    """The number in a state; a GPU is asked for it only where it is not known from :func:`set_count`."""
    if state.is_inference():  # has no version
        return int(state)
    known = memo(state).get("number")
    if known is None or known[0] != state._version:
        known = memo(state)["number"] = state._version, int(state)
    return cast(int, known[1])


def set_count(state: Tensor, number: int) -> None:
    """Write a number into a state in place, and remember it."""
    state.fill_(number)
    if not state.is_inference():
        memo(state)["number"] = state._version, number


def check_same_grouping(states: Tensor) -> Tensor:
    """The largest of some states ``grouping``, shape ``(states,)``.

    Raises:
        ValueError: If samples came with groups in some places and without in others.
    """
    if {_ALONE, _GROUPED} <= set(states.tolist()):
        raise ValueError("Expected argument `groups` with every batch or with none, but got it on some ranks only.")
    return states.max()


def ignore_code(ignore_index: int | None) -> list[int]:
    """``ignore_index`` as numbers for a state.

    Collections compare states by value: metrics that leave out other samples must not share states.
    """
    return [0, 0] if ignore_index is None else [1, ignore_index]


def gather_rows(values: Tensor, gather: Callable[..., list[Tensor]], group: Any) -> Tensor:
    """Stack a small vector of every rank, shape ``(ranks, len(values))``."""
    return torch.stack(gather(values, group=group))


def check_width(width: int, features: Tensor, name: str = "features") -> None:
    """Check that features are as wide as those before; a width of 0 stands for none before.

    Raises:
        ValueError: If they are not.
    """
    if width and features.shape[1] != width:
        raise ValueError(
            f"Expected argument `{name}` to have {width} columns like before, but got {features.shape[1]}."
        )
