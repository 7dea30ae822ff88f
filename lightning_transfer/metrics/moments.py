"""Bases of the scores that follow from float64 moments, which stream in constant memory.

Scores of one base are one compute group in a ``MetricCollection``: their states are updated once and read once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lightning_transfer.functional.counts import check_attributes
from lightning_transfer.functional.moments import ClassMoments, FeatureMoments, TargetMoments
from lightning_transfer.metrics.base import (
    Health,
    checked_batch,
    checked_targets,
    collapse_message,
    gather_rows,
    ignore_code,
)
from lightning_transfer.metrics.jackknife import JackknifeMetric
from lightning_transfer.utilities.checks import check_features, check_labels, check_positive_int
from lightning_transfer.utilities.linalg import add_gram_

_CHUNK = 1024  # rows that wait for one product
_COLLINEAR = 1e8  # condition number from which a warning is due


def _first(stacked: Tensor) -> Tensor:
    return stacked[0]


# Moments of states that have not changed since they were last read: members of a compute group share their states, so
# that one eigendecomposition serves them all.
_MOMENTS: WeakIdKeyDictionary = WeakIdKeyDictionary()


class _MomentMetric(JackknifeMetric):
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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("shift", self._zeros(0), dist_reduce_fx=_first)
        for name in self._sums:
            empty = self._zeros(self.jackknife_groups, *self._sum_shape(name, 0, 0))
            self.add_state(name, empty, dist_reduce_fx="sum")
        self.add_state("pending_rows", self._zeros(0, 0), dist_reduce_fx=_first)
        self.add_state("pending_responses", self._zeros(0), dist_reduce_fx=_first)
        self.add_state("pending_count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

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

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        self._flush()
        sizes = gather_rows(
            torch.tensor([self._width, self._num_responses, int(self.seen)], device=self.device), gather, group
        )
        width, responses = int(sizes[:, 0].max()), int(sizes[:, 1].max())
        filled = sizes[:, 2] > 0
        if width and bool((sizes[filled, 0] != width).any()):
            raise ValueError(f"Expected `features` of one width on all ranks, but got {sizes[filled, 0].tolist()}.")
        if not self._width:
            self.shift = torch.zeros(width, dtype=torch.float64, device=self.device)
        self._resize(width, responses)
        shifts = gather_rows(self.shift, gather, group)
        if bool(filled.any()):
            self._shift_to(shifts[int(filled.nonzero()[0])])
        self._share_response_shift(filled, gather, group)
        self.pending_rows, self.pending_responses = self._zeros(0, 0), self._zeros(0)
        self.pending_rows = self.pending_rows.to(self.device)
        self.pending_responses = self.pending_responses.to(self.device)

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

    def _totals(self) -> FeatureMoments:
        """Moments of all data; computed once for all metrics that share the states."""
        self._flush()
        state, version = self.second_moment, int(self.seen)
        known = _MOMENTS.get(state)
        if known is None or known[0] != version:
            known = (version, self._moments_of(range(self.jackknife_groups)))
            _MOMENTS[state] = known
        moments: FeatureMoments = known[1]
        self._require_data(moments.count)
        if self._decomposed:
            _ = moments.scatter_spectrum  # first, so that the value of no score depends on the order of them
        return moments

    def _totals_without_each(self) -> Iterator[FeatureMoments]:
        groups = range(self.jackknife_groups)
        return (self._moments_of([other for other in groups if other != group]) for group in groups)

    @property
    def _unregularised(self) -> bool:
        """Whether the score inverts the covariance of the features as it is."""
        return False

    def _describe(self) -> Health:
        moments = self._totals()
        condition = moments.condition_number if self._unregularised else None
        rank = float(moments.effective_rank)
        messages = collapse_message(rank, moments.num_features)
        classes: dict[str, Any] = {}
        if isinstance(moments, ClassMoments):
            smallest = int(moments.counts.min())
            classes = {"num_classes": moments.num_classes, "smallest_class": smallest}
            if smallest == 1:
                messages.append("a class has a single sample")
        if self._unregularised and moments.count <= moments.num_features:
            messages.append(f"{moments.count} samples for {moments.num_features} features: any labelling can be fitted")
        if condition is not None and condition > _COLLINEAR:
            messages.append(f"nearly collinear features (condition number {condition:.0e}): rounding errors may count")
        return Health(
            num_samples=moments.count,
            num_features=moments.num_features,
            samples_per_feature=moments.count / moments.num_features,
            effective_rank=rank,
            condition_number=condition,
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
    filter_code: Tensor

    def __init__(self, num_classes: int | None = None, *, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.add_state("filter_code", torch.tensor(ignore_code(ignore_index)), dist_reduce_fx="max")
        self.num_classes = None if num_classes is None else check_positive_int(num_classes, "num_classes", 2)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features and class ids to the sums.

        Args:
            features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        check = partial(check_labels, num_classes=self.num_classes)
        checked = checked_batch(features, labels, width=self._width, ignore_index=self.ignore_index, check=check)
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

    def _totals(self) -> ClassMoments:
        moments = super()._totals()
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

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("target_shift", self._zeros(0), dist_reduce_fx=_first)

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch of features and targets to the sums.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        features, targets = checked_targets(features, targets, self._width)
        targets = targets.double()
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

    def _totals(self) -> TargetMoments:
        moments = super()._totals()
        assert isinstance(moments, TargetMoments)
        return moments

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
        shifts = gather_rows(self.target_shift, gather, group)
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


class MultilabelMomentMetric(TargetMomentMetric):
    """Base of scores of multi-label tasks whose attributes, zeros and ones, are taken for targets.

    Args:
        jackknife_groups: Number of partial sums (and times the memory) for ``compute_with_interval``; 1 for none.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    requires = ("features", "labels")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features and attributes to the sums.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            labels: Zeros and ones of shape ``(n, l)``.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        features = check_features(features)
        super().update(features, check_attributes(labels, len(features)).double())
