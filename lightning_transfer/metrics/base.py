"""What every Metric of the package shares: states that sum exactly, uncertainty, and a health record.

Three kinds of state serve all scores: float64 moments (:class:`ClassMomentMetric`, :class:`TargetMomentMetric`), which
stream in constant memory and are one compute group in a ``MetricCollection``; and a bounded seeded sample
(:class:`SampleMetric`) for scores that have no sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from lightning_transfer.functional.moments import ClassMoments, FeatureMoments, TargetMoments
from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_labels,
    check_positive_int,
    check_probabilities,
    check_targets,
    flatten_positions,
)
from lightning_transfer.utilities.linalg import add_gram_

_CHUNK = 1024  # rows that wait for one product


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
        condition_number: Of the correlation matrix of the features on its range.
        converged: Whether an iterative solver reached its tolerance.
        in_range: Whether the score lies within its theoretical limits.
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

    Args:
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    is_differentiable: bool = False
    higher_is_better: bool | None = True
    full_state_update: bool = False
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._warned: set[str] = set()

    @abstractmethod
    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with its standard error and an interval of the given coverage."""

    @abstractmethod
    def health(self) -> Health:
        """Describe the data behind the score and warn of what makes it doubtful."""

    def score_range(self) -> tuple[float, float]:
        """Theoretical limits of the score for the data seen so far."""
        return -float("inf"), float("inf")

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
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
        for message in self.health().messages:
            self._warn(message)
        return score

    def _warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(f"{self.plot_legend_name or type(self).__name__}: {message}", category=UserWarning)

    def _require_data(self, count: int) -> None:
        if not count:
            raise ValueError(f"Expected `update` to be called with samples before `compute` of {type(self).__name__}.")

    def _agree(self, values: Tensor, gather: Callable[..., list[Tensor]], group: Any) -> Tensor:
        """Stack a small vector of every rank, shape ``(ranks, len(values))``."""
        return torch.stack(gather(values, group=group or self.process_group))


def check_interval_request(level: float, jackknife_groups: int) -> None:
    """Check that a jackknife interval can be computed.

    Raises:
        ValueError: If the level is not in [0, 1] or there are fewer than two groups.
    """
    check_in_interval(level, 0, 1, "level")
    if jackknife_groups < 2:
        raise ValueError(
            f"Expected argument `jackknife_groups` to be at least 2 for an interval, but got {jackknife_groups}."
        )


def jackknife_interval(value: float, without: Sequence[Tensor], level: float) -> ScoreInterval:
    """Delete-a-group jackknife interval, from Student's t with one degree of freedom less than there are groups.

    The interval is centred on the value less its estimated bias: scores such as the H-score grow with the number of
    features per sample, and without the correction an interval from few samples misses the score of all of them.

    Args:
        value: Score of all data.
        without: Scores without each group in turn, 0-d.
        level: Nominal coverage.
    """
    from scipy.stats import t

    parts, groups = torch.stack(list(without)), len(without)
    error = float(((groups - 1) / groups * (parts - parts.mean()).square().sum()).sqrt())
    half = float(t.ppf(0.5 + level / 2, groups - 1)) * error
    bias = (groups - 1) * (float(parts.mean()) - value)
    return ScoreInterval(value, error, value - bias - half, value - bias + half, level, "jackknife", bias)


def _first(stacked: Tensor) -> Tensor:
    return stacked[0]


# Moments of states that have not changed since they were last read: members of a compute group share their states, so
# that one eigendecomposition serves them all.
_MOMENTS: WeakIdKeyDictionary = WeakIdKeyDictionary()


class _MomentMetric(TransferMetric):
    """States shared by all moment-based scores, for classes or for targets.

    Rows wait in ``pending_rows`` (shifted, float64) until a chunk is full; every sum has a leading dimension of
    ``jackknife_groups`` partial sums, over samples taken in turn.
    """

    _sums: ClassVar[tuple[str, ...]]
    shift: Tensor
    second_moment: Tensor
    pending_rows: Tensor
    pending_responses: Tensor
    pending_count: Tensor
    seen: Tensor
    filter_code: Tensor

    def __init__(self, jackknife_groups: int = 1, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jackknife_groups = check_positive_int(jackknife_groups, "jackknife_groups")
        self.ignore_index = ignore_index
        self.add_state("shift", self._zeros(0), dist_reduce_fx=_first)
        for name in self._sums:
            self.add_state(name, self._zeros(jackknife_groups, *self._sum_shape(name, 0, 0)), dist_reduce_fx="sum")
        self.add_state("pending_rows", self._zeros(0, 0), dist_reduce_fx=_first)
        self.add_state("pending_responses", self._zeros(0), dist_reduce_fx=_first)
        self.add_state("pending_count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        # Metrics that leave out different samples must not share states: collections compare states by value.
        code = torch.tensor([0, 0] if ignore_index is None else [1, ignore_index])
        self.add_state("filter_code", code, dist_reduce_fx="max")

    @staticmethod
    def _zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    @abstractmethod
    def _sum_shape(self, name: str, width: int, responses: int) -> tuple[int, ...]:
        """Shape of one partial sum for features of a width and a number of classes or targets."""

    @abstractmethod
    def _add_responses(self, group: int, rows: Tensor, responses: Tensor) -> None:
        """Add the part of a chunk that involves classes or targets to the sums of a group."""

    @abstractmethod
    def _build(self, sums: dict[str, Tensor]) -> FeatureMoments:
        """Make moments of totalled sums."""

    @property
    def _width(self) -> int:
        return len(self.shift)

    def _accumulate(self, features: Tensor, responses: Tensor, num_responses: int) -> None:
        """Add validated samples to the states.

        Args:
            features: Shape ``(n, d)``.
            responses: Class ids ``(n,)`` or shifted targets ``(n, m)``.
            num_responses: Number of classes or targets that the sums need room for.
        """
        if not self._width:
            self.shift = features.double().mean(0)
        self._resize(features.shape[1], num_responses)
        if not len(self.pending_rows):
            # zeros, not empty: collections compare the states of metrics by value
            self.pending_rows = features.new_zeros((_CHUNK, features.shape[1]), dtype=torch.float64)
            self.pending_responses = responses.new_zeros((_CHUNK, *responses.shape[1:]))
        start = 0
        while start < len(features):
            fill = int(self.pending_count)
            stop = min(len(features), start + _CHUNK - fill)
            rows = self.pending_rows[fill : fill + stop - start]
            rows.copy_(features[start:stop]).sub_(self.shift)
            self.pending_responses[fill : fill + stop - start] = responses[start:stop]
            self.pending_count += stop - start
            start = stop
            if int(self.pending_count) == _CHUNK:
                self._flush()

    def _flush(self) -> None:
        """Add the waiting rows to the sums, in place, so that metrics which share the states see it."""
        count = int(self.pending_count)
        if not count:
            return
        for group in range(self.jackknife_groups):
            turn = (group - int(self.seen)) % self.jackknife_groups
            rows = self.pending_rows[turn : count : self.jackknife_groups]
            responses = self.pending_responses[turn : count : self.jackknife_groups]
            if not len(rows):
                continue
            add_gram_(self.second_moment[group], rows)
            self._add_responses(group, rows, responses)
        self.seen += count
        self.pending_count.zero_()

    def _resize(self, width: int, responses: int) -> None:
        """Give the sums room for features of a width and at least that many classes or targets."""
        for name in self._sums:
            state = getattr(self, name)
            shape = (self.jackknife_groups, *self._sum_shape(name, width, responses))
            shape = tuple(max(old, new) for old, new in zip(state.shape, shape, strict=True))
            if shape != tuple(state.shape):
                larger = state.new_zeros(shape)
                larger[tuple(slice(0, size) for size in state.shape)] = state
                setattr(self, name, larger)

    def _shift_to(self, shift: Tensor) -> None:
        """Express the sums about another origin, in new tensors: other metrics may share the old ones."""
        delta = shift - self.shift
        if not bool(delta.any()):
            return
        moved = [self._about(self._moments_of([group]), delta) for group in range(self.jackknife_groups)]
        for name in moved[0]:
            setattr(self, name, torch.stack([sums[name] for sums in moved]))
        self.shift = shift.clone()

    def _about(self, moments: FeatureMoments, delta: Tensor) -> dict[str, Tensor]:
        """Sums about an origin moved by ``delta``."""
        cross = torch.outer(moments.feature_sum, delta)
        return {"second_moment": moments.second_moment - cross - cross.mT + moments.count * torch.outer(delta, delta)}

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> None:
        """Sum the states over ranks; those without data, or with other classes, are brought to one shape first."""
        self._flush()
        available = distributed_available if distributed_available is not None else self.distributed_available_fn
        if should_sync and not self._is_synced and callable(available) and available():
            gather = dist_sync_fn or gather_all_tensors
            sizes = self._agree(
                torch.tensor([self._width, self._num_responses, int(self.seen)], device=self.device),
                gather,
                process_group,
            )
            width, responses = int(sizes[:, 0].max()), int(sizes[:, 1].max())
            filled = sizes[:, 2] > 0
            if width and bool((sizes[filled, 0] != width).any()):
                raise ValueError(f"Expected `features` of one width on all ranks, but got {sizes[filled, 0].tolist()}.")
            if not self._width:
                self.shift = torch.zeros(width, dtype=torch.float64, device=self.device)
            self._resize(width, responses)
            shifts = self._agree(self.shift, gather, process_group)
            if bool(filled.any()):
                self._shift_to(shifts[int(filled.nonzero()[0])])
            self._share_response_shift(filled, gather, process_group)
            self.pending_rows, self.pending_responses = self._zeros(0, 0), self._zeros(0)
            self.pending_rows = self.pending_rows.to(self.device)
            self.pending_responses = self.pending_responses.to(self.device)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _share_response_shift(self, filled: Tensor, gather: Callable[..., list[Tensor]], group: Any) -> None:
        """Bring the responses of all ranks to one origin; classes have none."""

    @property
    @abstractmethod
    def _num_responses(self) -> int:
        """Number of classes or targets that the sums have room for."""

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        other = cast(_MomentMetric, self.clone())
        other._restore(incoming_state)
        other._flush()
        self._flush()
        if other._width and not self._width:
            self._restore(other.metric_state)
            return
        if other._width:
            if other._width != self._width:
                raise ValueError(f"Expected states of width {self._width}, but got {other._width}.")
            responses = max(self._num_responses, other._num_responses)
            for metric in (self, other):
                metric._resize(self._width, responses)
            other._shift_to(self.shift)
            other._move_response_shift(self)
            for name in (*self._sums, "seen"):
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def _move_response_shift(self, target: _MomentMetric) -> None:
        """Express the responses about the origin of another metric; classes have none."""

    def _restore(self, state: dict[str, Any]) -> None:
        for name in self._defaults:
            if name not in state:
                raise ValueError(f"Expected state `{name}` in the states to merge, but got {sorted(state)}.")
            setattr(self, name, state[name].clone())

    def _moments_of(self, groups: Sequence[int]) -> FeatureMoments:
        if self.jackknife_groups == 1:
            return self._build({name: getattr(self, name)[0] for name in self._sums})
        return self._build({name: getattr(self, name)[list(groups)].sum(0) for name in self._sums})

    def _moments(self) -> FeatureMoments:
        """Moments of all data; computed once for all metrics that share the states."""
        self._flush()
        state, version = self.second_moment, self.second_moment._version
        known = _MOMENTS.get(state)
        if known is None or known[0] != version:
            known = (version, self._moments_of(range(self.jackknife_groups)))
            _MOMENTS[state] = known
        moments: FeatureMoments = known[1]
        self._require_data(moments.count)
        return moments

    @abstractmethod
    def _score(self, moments: Any) -> Tensor:
        """Compute the score from moments."""

    def compute(self) -> Tensor:
        """Compute the score from the sums."""
        return self._finish(self._score(self._moments()))

    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with a delete-a-group jackknife interval from the partial sums.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            The score, its standard error and its estimated bias, and an interval around the score less the bias, see
            :func:`jackknife_interval`.

        Raises:
            ValueError: If the metric was made with fewer than two ``jackknife_groups``.
        """
        check_interval_request(level, self.jackknife_groups)
        groups = range(self.jackknife_groups)
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            value = float(self._finish(self._score(self._moments())))
            without = [self._score(self._moments_of([h for h in groups if h != g])) for g in groups]
        return jackknife_interval(value, without, level)

    def health(self) -> Health:
        """Describe the data behind the score and warn of what makes it doubtful."""
        moments = self._moments()
        ratio = moments.count / moments.num_features
        messages = []
        classes: dict[str, Any] = {}
        if isinstance(moments, ClassMoments):
            smallest = int(moments.counts.min())
            classes = {"num_classes": moments.num_classes, "smallest_class": smallest}
            if smallest == 1:
                messages.append("a class has a single sample")
        if moments.count <= moments.num_features:
            messages.append(f"{moments.count} samples for {moments.num_features} features: any labelling can be fitted")
        return Health(
            num_samples=moments.count,
            num_features=moments.num_features,
            samples_per_feature=ratio,
            effective_rank=float(moments.effective_rank),
            messages=tuple(messages),
            **classes,
        )


class ClassMomentMetric(_MomentMetric):
    """Base of scores that follow from the moments of features with class ids.

    Args:
        num_classes: Class ids must lie below it, where given; otherwise the states grow with the ids seen.
        jackknife_groups: Number of partial sums (and times the memory) for ``compute_with_interval``; 1 for none.
        ignore_index: Samples with this label are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    requires = ("features", "labels")
    _sums = ("class_counts", "class_sums", "second_moment", "norm_weighted_sum", "norm_fourth")
    class_counts: Tensor
    class_sums: Tensor
    norm_weighted_sum: Tensor
    norm_fourth: Tensor

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        jackknife_groups: int = 1,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(jackknife_groups, ignore_index, **kwargs)
        self.num_classes = None if num_classes is None else check_positive_int(num_classes, "num_classes", 2)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features and class ids to the sums.

        Args:
            features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = checked_batch(self, features, labels)
        if checked is not None:
            features, labels = checked
            self._accumulate(features, labels, int(labels.max()) + 1)

    def _sum_shape(self, name: str, width: int, responses: int) -> tuple[int, ...]:
        return {
            "class_counts": (responses,),
            "class_sums": (responses, width),
            "second_moment": (width, width),
            "norm_weighted_sum": (width,),
            "norm_fourth": (),
        }[name]

    @property
    def _num_responses(self) -> int:
        return self.class_counts.shape[1]

    def _add_responses(self, group: int, rows: Tensor, responses: Tensor) -> None:
        self.class_counts[group] += torch.bincount(responses, minlength=self._num_responses)
        self.class_sums[group].index_add_(0, responses, rows)
        square = torch.linalg.vector_norm(rows, dim=1).square()  # one reading of the rows, nothing written
        self.norm_weighted_sum[group] += square @ rows
        self.norm_fourth[group] += square @ square

    def _build(self, sums: dict[str, Tensor]) -> ClassMoments:
        return ClassMoments(
            count=int(sums["class_counts"].sum()),
            num_features=self._width,
            shift=self.shift,
            feature_sum=sums["class_sums"].sum(0),
            **sums,
        )

    def _moments(self) -> ClassMoments:
        moments = super()._moments()
        assert isinstance(moments, ClassMoments)
        return moments.require_classes()

    def _about(self, moments: FeatureMoments, delta: Tensor) -> dict[str, Tensor]:
        assert isinstance(moments, ClassMoments)
        # ||u - s||^2 = a - 2 b + c with a = ||u||^2, b = u.s, c = ||s||^2, summed in powers
        second = moments.second_moment.triu() + moments.second_moment.triu(1).mT
        total, weighted, length = moments.feature_sum, moments.norm_weighted_sum, delta @ delta
        squares, along = second.trace(), second @ delta
        moved = weighted - 2 * along + length * total - delta * (squares - 2 * total @ delta + moments.count * length)
        fourth = (
            moments.norm_fourth + 4 * delta @ along + moments.count * length**2
            - 4 * weighted @ delta + 2 * length * squares - 4 * length * total @ delta
        )  # fmt: skip
        return {
            **super()._about(moments, delta),
            "class_sums": moments.class_sums - moments.class_counts[:, None] * delta,
            "norm_weighted_sum": moved,
            "norm_fourth": fourth,
        }


class TargetMomentMetric(_MomentMetric):
    """Base of scores that follow from the moments of features with real-valued targets.

    Args:
        jackknife_groups: Number of partial sums (and times the memory) for ``compute_with_interval``; 1 for none.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    requires = ("features", "targets")
    _sums = ("target_counts", "feature_sums", "second_moment", "target_sum", "target_square", "cross_moment")
    target_shift: Tensor
    target_counts: Tensor
    feature_sums: Tensor
    target_sum: Tensor
    target_square: Tensor
    cross_moment: Tensor

    def __init__(self, *, jackknife_groups: int = 1, **kwargs: Any) -> None:
        super().__init__(jackknife_groups, None, **kwargs)
        self.add_state("target_shift", self._zeros(0), dist_reduce_fx=_first)

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch of features and targets to the sums.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        features = check_features(features)
        check_width(self._width, features)
        targets = check_targets(targets, len(features)).double()
        if self._num_responses and targets.shape[1] != self._num_responses:
            raise ValueError(
                f"Expected argument `targets` to have {self._num_responses} columns like before, "
                f"but got {targets.shape[1]}."
            )
        if not len(self.target_shift):
            self.target_shift = targets.mean(0)
        self._accumulate(features, targets - self.target_shift, targets.shape[1])

    def _sum_shape(self, name: str, width: int, responses: int) -> tuple[int, ...]:
        return {
            "target_counts": (),
            "feature_sums": (width,),
            "second_moment": (width, width),
            "target_sum": (responses,),
            "target_square": (responses,),
            "cross_moment": (width, responses),
        }[name]

    @property
    def _num_responses(self) -> int:
        return self.target_sum.shape[1]

    def _add_responses(self, group: int, rows: Tensor, responses: Tensor) -> None:
        self.target_counts[group] += len(rows)
        self.feature_sums[group] += rows.sum(0)
        self.target_sum[group] += responses.sum(0)
        self.target_square[group] += responses.square().sum(0)
        self.cross_moment[group].addmm_(rows.T, responses)

    def _build(self, sums: dict[str, Tensor]) -> TargetMoments:
        return TargetMoments(
            count=int(sums.pop("target_counts")),
            num_features=self._width,
            shift=self.shift,
            feature_sum=sums.pop("feature_sums"),
            target_shift=self.target_shift,
            **sums,
        )

    def _about(self, moments: FeatureMoments, delta: Tensor) -> dict[str, Tensor]:
        assert isinstance(moments, TargetMoments)
        return {
            **super()._about(moments, delta),
            "feature_sums": moments.feature_sum - moments.count * delta,
            "cross_moment": moments.cross_moment - torch.outer(delta, moments.target_sum),
        }

    def _share_response_shift(self, filled: Tensor, gather: Callable[..., list[Tensor]], group: Any) -> None:
        if not len(self.target_shift):
            self.target_shift = torch.zeros(self._num_responses, dtype=torch.float64, device=self.device)
        shifts = self._agree(self.target_shift, gather, group)
        if bool(filled.any()):
            self._shift_targets_to(shifts[int(filled.nonzero()[0])])

    def _move_response_shift(self, target: _MomentMetric) -> None:
        assert isinstance(target, TargetMomentMetric)
        self._shift_targets_to(target.target_shift)

    def _shift_targets_to(self, shift: Tensor) -> None:
        delta = shift - self.target_shift
        counts = self.target_counts[:, None]
        self.target_square = self.target_square + counts * delta.square() - 2 * delta * self.target_sum
        self.cross_moment = self.cross_moment - self.feature_sums[:, :, None] * delta
        self.target_sum = self.target_sum - counts * delta
        self.target_shift = shift.clone()


class SampleMetric(TransferMetric):
    """Base of scores that need samples: keeps a bounded, seeded sample of the inputs that ``requires`` names.

    Every sample has a rank of its own, drawn by hashing its values with the seed, and those with the lowest ranks are
    kept. So the choice depends neither on the order of the samples nor on how they are split into batches or ranks,
    and up to ``max_samples`` nothing is left out.

    Args:
        max_samples: Samples kept at most, over all ranks; None for all.
        seed: Seed of the choice and of the bootstrap.
        num_resamples: Bootstrap resamples of ``compute_with_interval``.
        ignore_index: Samples with this label are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    requires: ClassVar[tuple[str, ...]] = ("features", "labels")
    seen: Tensor
    kept_ranks: list[Tensor]

    def __init__(
        self,
        *,
        max_samples: int | None = 10_000,
        seed: int = 0,
        num_resamples: int = 100,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples", 2)
        self.seed = check_positive_int(seed, "seed", 0)
        self.num_resamples = check_positive_int(num_resamples, "num_resamples", 2)
        self.ignore_index = ignore_index
        for name in (*self.requires, "ranks"):
            self.add_state(f"kept_{name}", [], dist_reduce_fx="cat")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        code = [0, 0] if ignore_index is None else [1, ignore_index]
        self.add_state("filter_code", torch.tensor([*code, seed, max_samples or 0]), dist_reduce_fx="max")

    def _prepare(self, **samples: Tensor) -> dict[str, Tensor]:
        """Do what all bootstrap resamples share, such as a fit; one row a sample goes in and comes out."""
        return samples

    @abstractmethod
    def _score(self, **samples: Tensor) -> Tensor:
        """Compute the score from what :meth:`_prepare` returns, by default the kept samples, named like the inputs."""

    def _keep(self, **samples: Tensor) -> None:
        """Add validated samples to those kept."""
        first = samples[self.requires[0]]
        self.seen += len(first)
        for name in self.requires:
            getattr(self, f"kept_{name}").append(samples[name].detach().clone())
        self.kept_ranks.append(content_ranks([samples[name] for name in self.requires], self.seed))
        if self.max_samples is not None and sum(map(len, self.kept_ranks)) > 2 * self.max_samples:
            self._prune()

    def _prune(self) -> None:
        kept = self._kept()
        for name in (*self.requires, "ranks"):
            setattr(self, f"kept_{name}", [kept[name]])

    def _kept(self) -> dict[str, Tensor]:
        """Samples with the lowest ranks, in the order of their ranks."""
        joined = {}
        for name in (*self.requires, "ranks"):
            parts = getattr(self, f"kept_{name}")
            parts = [parts] if isinstance(parts, Tensor) else parts
            joined[name] = torch.cat([p for p in parts if len(p)] or [torch.zeros(0)])
        self._require_data(len(joined["ranks"]))
        order = joined["ranks"].argsort(stable=True)[: self.max_samples]
        return {name: values[order] for name, values in joined.items()}

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[..., Any] | None = None,
    ) -> None:
        """Gather the kept samples of all ranks; those without data are given empty tensors of the right shape first."""
        available = distributed_available if distributed_available is not None else self.distributed_available_fn
        if should_sync and not self._is_synced and callable(available) and available():
            gather = dist_sync_fn or gather_all_tensors
            if self.kept_ranks:
                self._prune()
            for name in (*self.requires, "ranks"):
                self._match_empty(f"kept_{name}", gather, process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _match_empty(self, state: str, gather: Callable[..., list[Tensor]], group: Any) -> None:
        """On a rank without data, make the empty state look like that of the first rank with data."""
        parts = getattr(self, state)
        dtype, shape = (_DTYPES.index(parts[0].dtype), parts[0].shape[1:]) if parts else (-1, ())
        sizes = torch.tensor([dtype, len(shape), *shape, *[0] * (4 - len(shape))], device=self.device)
        described = self._agree(sizes, gather, group)
        filled = described[described[:, 0] >= 0]
        if not parts and len(filled):
            code, ndim, *rest = filled[0].tolist()
            setattr(self, state, [torch.zeros((0, *rest[:ndim]), dtype=_DTYPES[code], device=self.device)])

    def compute(self) -> Tensor:
        """Compute the score from the kept samples."""
        return self._finish(self._score(**self._prepared()))

    def _prepared(self) -> dict[str, Tensor]:
        samples = self._kept()
        samples.pop("ranks")
        return self._prepare(**samples)

    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with a seeded bootstrap interval over the kept samples.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            The score, the standard deviation over resamples, and a normal interval around the score.

        Raises:
            RuntimeError: If fewer than two resamples could be scored.
        """
        from scipy.stats import norm

        check_in_interval(level, 0, 1, "level")
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            samples = self._prepared()
        value = float(self._finish(self._score(**samples)))
        generator = torch.Generator().manual_seed(self.seed)
        first = next(iter(samples.values()))
        n = len(first)
        scores: list[float] = []
        reason = ""
        for _ in range(self.num_resamples):
            rows = torch.randint(n, (n,), generator=generator).to(first.device)
            try:
                scores.append(float(self._score(**{name: values[rows] for name, values in samples.items()})))
            except (ValueError, RuntimeError) as error:  # a resample can lose a class
                reason = str(error)
        resampled = torch.tensor([score for score in scores if score == score], dtype=torch.float64)
        if len(resampled) < 2:
            raise RuntimeError(f"Fewer than two bootstrap resamples could be scored: {reason}")
        error_ = float(resampled.std())
        half = float(norm.ppf(0.5 + level / 2)) * error_
        return ScoreInterval(value, error_, value - half, value + half, level, "bootstrap")

    def health(self) -> Health:
        """Describe the data behind the score and warn of what makes it doubtful."""
        samples = self._kept()
        n = len(samples["ranks"])
        messages = []
        record: dict[str, Any] = {}
        features, labels = samples.get("features"), samples.get("labels")
        if features is not None:
            record = {"num_features": features.shape[-1], "samples_per_feature": n / features.shape[-1]}
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            counts = torch.bincount(labels)
            counts = counts[counts > 0]
            record |= {"num_classes": len(counts), "smallest_class": int(counts.min())}
            if record["smallest_class"] == 1:
                messages.append("a class has a single sample")
        if int(self.seen) > n:
            messages.append(f"computed on a seeded sample of {n} of {int(self.seen)} samples (`max_samples`)")
        return Health(num_samples=n, messages=tuple(messages), **record)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features and class ids to the samples.

        Args:
            features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = checked_batch(self, features, labels)
        if checked is not None:
            self._keep(features=checked[0], labels=checked[1])

    @property
    def _width(self) -> int:
        kept = getattr(self, f"kept_{self.requires[0]}")
        return kept[0].shape[-1] if len(kept) and kept[0].ndim > 1 else 0


def checked_batch(
    metric: ClassMomentMetric | SampleMetric, features: Tensor, labels: Tensor, name: str = "features"
) -> tuple[Tensor, Tensor] | None:
    """Validate a batch for a metric before any of its states change.

    Args:
        metric: Metric that the batch is for; its ``ignore_index`` and ``num_classes`` are respected.
        features: Features, or (with ``name="source_probs"``) rows of probabilities.
        labels: Class ids.
        name: Name of the first argument.

    Returns:
        Features ``(n, d)`` and labels ``(n,)`` int64; None if every position is ignored.

    Raises:
        ValueError: If an input is malformed, not finite, or of another width than before.
    """
    flat, labels = flatten_positions(features, labels, metric.ignore_index)
    if metric.ignore_index is not None and isinstance(features, Tensor) and features.numel() and not len(flat):
        return None
    flat = check_features(flat, name)
    if name == "source_probs":
        check_probabilities(flat, len(flat))
    check_width(metric._width, flat, name)
    return flat, check_labels(labels, len(flat), getattr(metric, "num_classes", None))


def check_width(width: int, features: Tensor, name: str = "features") -> None:
    """Check that features are as wide as those before; a width of 0 stands for none before.

    Raises:
        ValueError: If they are not.
    """
    if width and features.shape[1] != width:
        raise ValueError(
            f"Expected argument `{name}` to have {width} columns like before, but got {features.shape[1]}."
        )


_DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]
_MIX = (-7046029254386353131, -4417276706812531889)  # odd constants of a 64-bit finaliser


def content_ranks(tensors: Sequence[Tensor], seed: int) -> Tensor:
    """Hash each sample's values with a seed to a pseudo-random int64, equal for equal samples."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    for tensor in tensors:
        values = tensor.reshape(len(tensor), -1)
        bits = values.double().view(torch.int64) if values.is_floating_point() else values.long()
        low, high = -(2**62), 2**62
        weights = torch.randint(low, high, (bits.shape[1],), generator=generator).to(bits.device) * 2 + 1
        mixed = mixed + ((bits ^ (bits >> 32)) * weights).sum(1)
        for constant in _MIX:
            mixed = (mixed ^ (mixed >> 29)) * constant
    return mixed ^ (mixed >> 32)
