"""Base of the scores that follow from float64 moments, which stream in constant memory.

Scores of one kind of task are one compute group in a ``MetricCollection``: their states are updated once and read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import compress
from typing import Any, cast
from weakref import ref

import torch
from torch import Tensor

from lightning_transfer._compat import default_states
from lightning_transfer.functional.moments import ClassMoments, FeatureMoments, TargetMoments
from lightning_transfer.inputs import Task
from lightning_transfer.metrics.base import (
    Health,
    check_same_grouping,
    collapse_message,
    count_in,
    gather_rows,
    ignore_code,
    memo,
    outside_inference,
    set_count,
)
from lightning_transfer.metrics.deferral import FAULTS, count_faults, describe_faults
from lightning_transfer.metrics.jackknife import JackknifeMetric
from lightning_transfer.utilities.checks import check_labels, check_positive_int, shape_of_positions
from lightning_transfer.utilities.groups import parts_of, turns
from lightning_transfer.utilities.linalg import add_gram_, add_grams_

_CHUNK = 1024  # rows that wait for one product
_LEFT_OUT = "left out"  # what the scores without each part are kept under
_COLLINEAR = 1e8  # condition number from which a warning is due


def _first(stacked: Tensor) -> Tensor:
    return stacked[0]


class _ClassSums:
    """Sums of shifted features by class id, of one group of samples."""

    names: tuple[str, ...] = ("class_counts", "class_sums", "second_moment", "norm_weighted_sum", "norm_fourth")

    def shape(self, name: str, width: int, classes: int) -> tuple[int, ...]:
        """Shape of one of the sums for features of a width."""
        return {
            "class_counts": (classes,),
            "class_sums": (classes, width),
            "second_moment": (width, width),
            "norm_weighted_sum": (width,),
            "norm_fourth": (),
        }[name]

    def add_(self, sums: Mapping[str, Tensor], rows: Tensor, labels: Tensor) -> None:
        """Add samples in place."""
        add_class_counts_(sums["class_counts"], labels)
        sums["class_sums"].index_add_(0, labels, rows)
        add_gram_(sums["second_moment"], rows)
        square = torch.linalg.vector_norm(rows, dim=1).square()  # one reading of the rows, nothing written
        sums["norm_weighted_sum"].add_(square @ rows)
        sums["norm_fourth"].add_(square @ square)

    def add_in_turn_(self, sums: Mapping[str, Tensor], rows: Tensor, labels: Tensor) -> None:
        """Add samples in place to several sums of each name, in turn, with a few large kernels."""
        groups, classes, width = sums["class_sums"].shape
        turns = rows.reshape(-1, groups, width).transpose(0, 1)
        cells = labels
        if groups > 1:
            cells = (
                labels.reshape(-1, groups) + torch.arange(0, groups * classes, classes, device=labels.device)
            ).view(-1)
        add_class_counts_(sums["class_counts"].view(-1), cells)
        sums["class_sums"].view(-1, width).index_add_(0, cells, rows)
        add_grams_(sums["second_moment"], turns)
        square = torch.linalg.vector_norm(turns, dim=2, keepdim=True).square()
        sums["norm_weighted_sum"].unsqueeze(1).baddbmm_(square.mT, turns)
        sums["norm_fourth"].view(-1, 1, 1).baddbmm_(square.mT, square)

    def moments(self, sums: Mapping[str, Any], **origin: Any) -> ClassMoments:
        """Make moments of the sums."""
        count, feature_sum = int(sums["class_counts"].sum()), sums["class_sums"].sum(0)
        return ClassMoments(count=count, feature_sum=feature_sum, **origin, **sums)

    def of_rows(self, rows: Tensor, labels: Tensor, **origin: Any) -> ClassMoments:
        """Make moments of shifted samples."""
        return ClassMoments.of_rows(rows, labels, **origin)

    def about(self, moments: Any, delta: Tensor) -> dict[str, Tensor]:
        """Sums about an origin moved by ``delta``."""
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
            "second_moment": _second_moment_about(moments, delta),
            "class_sums": moments.class_sums - moments.class_counts[:, None] * delta,
            "norm_weighted_sum": moved,
            "norm_fourth": fourth,
        }


def add_class_counts_(counts: Tensor, labels: Tensor) -> None:
    """Count class ids in place; a GPU would be waited for by ``bincount``."""
    if counts.device.type == "cpu":
        counts += torch.bincount(labels, minlength=len(counts))
    else:
        counts.index_add_(0, labels, torch.ones_like(labels, dtype=counts.dtype))


class _TargetSums:
    """Sums of shifted features and shifted targets, of one group of samples."""

    names: tuple[str, ...] = (
        "target_counts", "feature_sums", "second_moment", "target_sum", "target_square", "cross_moment"
    )  # fmt: skip

    def shape(self, name: str, width: int, columns: int) -> tuple[int, ...]:
        """Shape of one of the sums for features of a width."""
        return {
            "target_counts": (),
            "feature_sums": (width,),
            "second_moment": (width, width),
            "target_sum": (columns,),
            "target_square": (columns,),
            "cross_moment": (width, columns),
        }[name]

    def add_(self, sums: Mapping[str, Tensor], rows: Tensor, targets: Tensor) -> None:
        """Add samples in place."""
        sums["target_counts"].add_(len(rows))
        sums["feature_sums"].add_(rows.sum(0))
        add_gram_(sums["second_moment"], rows)
        sums["target_sum"].add_(targets.sum(0))
        sums["target_square"].add_(targets.square().sum(0))
        sums["cross_moment"].addmm_(rows.T, targets)

    def add_in_turn_(self, sums: Mapping[str, Tensor], rows: Tensor, targets: Tensor) -> None:
        """Add samples in place to several sums of each name, in turn, with a few large kernels."""
        groups, width, columns = sums["cross_moment"].shape
        turns = rows.reshape(-1, groups, width).transpose(0, 1)
        of_turns = targets.reshape(-1, groups, columns).transpose(0, 1)
        sums["target_counts"].add_(turns.shape[1])
        sums["feature_sums"].add_(turns.sum(1))
        add_grams_(sums["second_moment"], turns)
        sums["target_sum"].add_(of_turns.sum(1))
        sums["target_square"].add_(of_turns.square().sum(1))
        sums["cross_moment"].baddbmm_(turns.mT, of_turns)

    def moments(self, sums: Mapping[str, Any], **origin: Any) -> TargetMoments:
        """Make moments of the sums."""
        sums = dict(sums)
        count, feature_sum = int(sums.pop("target_counts")), sums.pop("feature_sums")
        return TargetMoments(count=count, feature_sum=feature_sum, **origin, **sums)

    def of_rows(self, rows: Tensor, targets: Tensor, **origin: Any) -> TargetMoments:
        """Make moments of shifted samples."""
        return TargetMoments.of_rows(rows, targets, **origin)

    def about(self, moments: Any, delta: Tensor) -> dict[str, Tensor]:
        """Sums about an origin moved by ``delta``."""
        return {
            "second_moment": _second_moment_about(moments, delta),
            "feature_sums": moments.feature_sum - moments.count * delta,
            "cross_moment": moments.cross_moment - torch.outer(delta, moments.target_sum),
        }


def _second_moment_about(moments: Any, delta: Tensor) -> Tensor:
    cross = torch.outer(moments.feature_sum, delta)
    second: Tensor = moments.second_moment - cross - cross.mT + moments.count * torch.outer(delta, delta)
    return second


class MomentMetric(JackknifeMetric):
    """Base of scores that follow from the moments of features with class ids, 0/1 columns or targets.

    Rows wait in ``pending_rows`` (shifted, float64) until a chunk is full; every sum has a leading dimension of
    ``jackknife_groups`` partial sums, over samples taken in turn or by their groups. Scores of up to a chunk are
    computed from the rows. Sums of squares lose digits with the square of the ratio between the largest and the
    smallest direction of the features: at 1e4, from where :meth:`health` warns of collinear features, eight digits are
    left, at 1e6 four.

    Args:
        task: Kind of task, one of those of the class. Columns of zeros and ones are taken for targets.
        num_classes: Class ids must lie below it, where given; otherwise the states grow with the ids seen, and a GPU is
            waited for once a batch.
        jackknife_groups: Number of partial sums (and times the memory) for ``compute_with_interval``; 1 for none.
        ignore_index: Samples with this class id are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Attributes:
        defer_checks: Whether values of batches are counted as wrong where they are, and the next ``compute`` raises,
            so that ``update`` does not wait for a GPU; :func:`~lightning_transfer.extraction.extract` sets it on one.
    """

    defer_checks: bool = False
    faults: Tensor
    shift: Tensor
    target_shift: Tensor
    pending_rows: Tensor
    pending_truth: Tensor
    pending_parts: Tensor
    pending_count: Tensor
    seen: Tensor
    single: Tensor
    filter_code: Tensor
    target_counts: Tensor
    feature_sums: Tensor
    target_sum: Tensor
    target_square: Tensor
    cross_moment: Tensor

    def __init__(
        self,
        task: Task | None = None,
        *,
        num_classes: int | None = None,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(task=task, **kwargs)
        self.num_classes = None if num_classes is None else check_positive_int(num_classes, "num_classes", 2)
        self.ignore_index = ignore_index
        self._sums = self._choose_sums()
        origins = ("shift",) if self.task == "classification" else ("shift", "target_shift")
        for name in origins:
            self.add_state(name, self._zeros(0), dist_reduce_fx=_first)
        for name in self._sums.names:
            empty = self._zeros(self.jackknife_groups, *self._sums.shape(name, 0, 0))
            self.add_state(name, empty, dist_reduce_fx="sum")
        self.add_state("pending_rows", self._zeros(0, 0), dist_reduce_fx=_first)
        self.add_state("pending_truth", self._zeros(0), dist_reduce_fx=_first)
        self.add_state("pending_parts", torch.zeros(0, dtype=torch.long), dist_reduce_fx=_first)
        self.add_state("pending_count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("single", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")  # 1: not all in float64
        self.add_state("faults", torch.zeros(len(FAULTS), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("filter_code", torch.tensor(ignore_code(ignore_index)), dist_reduce_fx="max")

    def _choose_sums(self) -> Any:
        """The sums that are kept: an object that knows their names and shapes and how to add to them."""
        return _ClassSums() if self.task == "classification" else _TargetSums()

    @staticmethod
    def _zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64)

    @property
    def _width(self) -> int:
        return len(self.shift)

    @property
    def _truth_size(self) -> int:
        """Number of classes or targets that the sums have room for."""
        return int(getattr(self, "class_counts" if self.task == "classification" else "target_sum").shape[1])

    def _check_truth(self, truth: Tensor, n: int) -> Tensor:
        if self.task == "classification":
            return check_labels(truth, n, self.num_classes, read=self._reads_values)
        targets = super()._check_truth(truth, n)
        if self._truth_size and targets.shape[1] != self._truth_size:
            raise ValueError(
                f"Expected argument `{self.requires[1]}` to have {self._truth_size} columns like before, "
                f"but got {targets.shape[1]}."
            )
        return targets.double()

    def update(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch to the sums.

        Args:
            features: Shape ``(n, d)``, any floating dtype; with class ids tokens ``(b, t, d)`` and pixels
                ``(b, d, h, w)`` too.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype; with
                ``task="multilabel"`` zeros and ones of shape ``(n, l)``, any dtype.
            targets: With ``task="regression"`` in place of labels: shape ``(n,)`` or ``(n, m)``, any dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = self._checked(features, labels, targets)
        if checked is None:
            return
        groups = self._check_groups(groups, shape_of_positions(features), labels)
        self._take(*checked, groups)

    @outside_inference
    def _take(self, features: Tensor, truth: Tensor, groups: Tensor | None) -> None:
        """Add a batch whose sizes are right."""
        if self.defer_checks:
            truth = self._note_faults(features, truth)
        if self.task == "classification":
            most = self.num_classes if self.defer_checks else None
            self._accumulate(features, truth, most or int(truth.max()) + 1, groups)
            return
        if not len(self.target_shift):
            self.target_shift = truth.mean(0)
        self._accumulate(features, truth - self.target_shift, truth.shape[1], groups)

    @property
    def _reads_values(self) -> bool:
        return not self.defer_checks

    def _note_faults(self, features: Tensor, truth: Tensor) -> Tensor:
        """Count what is wrong with a batch; class ids out of range, which would stop a GPU, come back within it."""
        self.faults += count_faults(features, truth, self.task, self.num_classes)
        if self.task != "classification":
            return truth
        return truth.clamp(0, None if self.num_classes is None else self.num_classes - 1)

    def raise_faults(self) -> None:
        """Refuse the batches so far if ``defer_checks`` found values that no score can be computed of.

        Raises:
            ValueError: If it did.
        """
        first, second = self.requires[:2]
        counts: list[int | str] = self.faults.tolist()
        if not counts[0] and bool(self.single):  # what is not finite makes sums that are not; float64 was counted
            waiting = self.pending_rows[: count_in(self.pending_count)]
            total = getattr(self, self._sums.names[1]).sum() + waiting.sum()
            counts[0] = 0 if bool(total.isfinite()) else "some"
        message = describe_faults(counts, first, second, self.num_classes)
        if message:
            raise ValueError(message)

    @property
    def _takes_whole_batches(self) -> bool:
        """Whether a large batch is one product: on a GPU, where a few small ones take longer."""
        return self.shift.device.type != "cpu"

    def _accumulate(self, features: Tensor, truth: Tensor, truth_size: int, groups: Tensor | None) -> None:
        """Add validated samples to the states.

        Args:
            features: Shape ``(n, d)``.
            truth: Class ids ``(n,)`` or shifted targets ``(n, m)``.
            truth_size: Number of classes or targets that the sums need room for.
            groups: Ids of groups, shape ``(n,)``, or None.
        """
        self._note_grouping(groups)
        if not self._width:
            self.shift = features.double().mean(0)
        if features.dtype != torch.float64:
            self.single.fill_(1)
        self._resize(features.shape[1], truth_size)
        count, start = self.jackknife_groups, 0
        parts = None if groups is None or count == 1 else parts_of(groups, count)
        idle = self._takes_whole_batches and not count_in(self.pending_count) and count_in(self.seen) % count == 0
        if idle and len(features) >= _CHUNK:
            start = len(features) - len(features) % count
            self._add(features[:start] - self.shift, truth[:start], None if parts is None else parts[:start], True)
        if start < len(features) and not len(self.pending_rows):
            # zeros, not empty: collections compare the states of metrics by value
            self.pending_rows = features.new_zeros((_CHUNK, features.shape[1]), dtype=torch.float64)
            self.pending_truth = truth.new_zeros((_CHUNK, *truth.shape[1:]))
            if parts is not None:
                self.pending_parts = parts.new_zeros(_CHUNK)
        while start < len(features):
            fill = count_in(self.pending_count)
            stop = min(len(features), start + _CHUNK - fill)
            rows = self.pending_rows[fill : fill + stop - start]
            torch.sub(features[start:stop], self.shift, out=rows)
            self.pending_truth[fill : fill + stop - start] = truth[start:stop]
            if parts is not None:
                self.pending_parts[fill : fill + stop - start] = parts[start:stop]
            set_count(self.pending_count, fill + stop - start)
            if fill + stop - start == _CHUNK:
                self._flush()
            start = stop

    @outside_inference
    def _flush(self) -> None:
        """Add the waiting rows to the sums, in place, so that metrics which share the states see it."""
        count = count_in(self.pending_count)
        if count:
            parts = self.pending_parts[:count] if len(self.pending_parts) else None
            self._add(self.pending_rows[:count], self.pending_truth[:count], parts)
            set_count(self.pending_count, 0)

    def _add(self, rows: Tensor, truth: Tensor, parts: Tensor | None, whole: bool = False) -> None:
        """Add shifted samples to the partial sums: in turn (whole blocks of them, if ``whole``), or to given ones."""
        groups, seen, n = self.jackknife_groups, count_in(self.seen), len(rows)
        sums = {name: getattr(self, name) for name in self._sums.names}
        dealt = parts is None and groups > 1
        if dealt:
            parts = turns(seen, n, groups, rows.device)
        if whole and (dealt or groups == 1) and hasattr(self._sums, "add_in_turn_"):
            if dealt and parts is not None:
                blocks = torch.arange(0, n, groups, device=rows.device)[:, None]
                order = (parts.reshape(-1, groups).argsort(1) + blocks).flatten()
                rows, truth = rows[order], truth[order]
            self._sums.add_in_turn_(sums, rows, truth)
        elif parts is None or groups == 1:
            self._sums.add_({name: state[0] for name, state in sums.items()}, rows, truth)
        else:
            order = parts.argsort(stable=True)
            sizes = [n // groups] * groups  # known without waiting for a device
            if not dealt or seen % groups or n % groups:
                sizes = torch.bincount(turns(seen, n, groups) if dealt else parts, minlength=groups).tolist()
            for group, chosen in enumerate(order.split(sizes)):
                if len(chosen):
                    of_group = {name: state[group] for name, state in sums.items()}
                    self._sums.add_(of_group, rows[chosen], truth[chosen])
        set_count(self.seen, seen + n)

    def _resize(self, width: int, truth_size: int) -> None:
        """Give the sums room for features of a width and at least that many classes or targets."""
        for name in self._sums.names:
            state = getattr(self, name)
            shape = (self.jackknife_groups, *self._sums.shape(name, width, truth_size))
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
        moved = [self._sums.about(self._moments_of([group]), delta) for group in range(self.jackknife_groups)]
        for name in moved[0]:
            setattr(self, name, torch.stack([sums[name] for sums in moved]))
        self.shift = shift.clone()

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        self._flush()
        sizes = gather_rows(
            torch.tensor(
                [self._width, self._truth_size, count_in(self.seen), count_in(self.grouping)], device=self.device
            ),
            gather,
            group,
        )
        check_same_grouping(sizes[:, 3])
        width, truth_size = int(sizes[:, 0].max()), int(sizes[:, 1].max())
        filled = sizes[:, 2] > 0
        if width and bool((sizes[filled, 0] != width).any()):
            raise ValueError(f"Expected `features` of one width on all ranks, but got {sizes[filled, 0].tolist()}.")
        if not self._width:
            self.shift = torch.zeros(width, dtype=torch.float64, device=self.device)
        self._resize(width, truth_size)
        shifts = gather_rows(self.shift, gather, group)
        if bool(filled.any()):
            self._shift_to(shifts[int(filled.nonzero()[0])])
        if self.task != "classification":
            if not len(self.target_shift):
                self.target_shift = torch.zeros(truth_size, dtype=torch.float64, device=self.device)
            shifts = gather_rows(self.target_shift, gather, group)
            if bool(filled.any()):
                self._shift_targets_to(shifts[int(filled.nonzero()[0])])
        self.pending_rows, self.pending_truth = self._zeros(0, 0), self._zeros(0)
        self.pending_rows = self.pending_rows.to(self.device)
        self.pending_truth = self.pending_truth.to(self.device)
        self.pending_parts = self.pending_parts[:0]

    def _shift_targets_to(self, shift: Tensor) -> None:
        """Express the sums about another origin of the targets."""
        delta = shift - self.target_shift
        counts = self.target_counts[:, None]
        self.target_square = self.target_square + counts * delta.square() - 2 * delta * self.target_sum
        self.cross_moment = self.cross_moment - self.feature_sums[:, :, None] * delta
        self.target_sum = self.target_sum - counts * delta
        self.target_shift = shift.clone()

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        other = cast(MomentMetric, self.clone())
        other._restore(incoming_state)
        other._flush()
        self._flush()
        if other._width and not self._width:
            self._restore(other.metric_state)
            return
        if other._width:
            if other._width != self._width:
                raise ValueError(f"Expected states of width {self._width}, but got {other._width}.")
            truth_size = max(self._truth_size, other._truth_size)
            for metric in (self, other):
                metric._resize(self._width, truth_size)
            other._shift_to(self.shift)
            if self.task != "classification":
                other._shift_targets_to(self.target_shift)
            for name in (*self._sums.names, "seen"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
            self.grouping = check_same_grouping(torch.stack([self.grouping, other.grouping]))
            self.single = torch.maximum(self.single, other.single)
            self.faults = self.faults + other.faults

    def _restore(self, state: dict[str, Any]) -> None:
        for name in default_states(self):
            if name not in state:
                raise ValueError(f"Expected state `{name}` in the states to merge, but got {sorted(state)}.")
            setattr(self, name, state[name].clone())

    def _origin(self) -> dict[str, Any]:
        origin: dict[str, Any] = {"single": bool(self.single), "shift": self.shift}
        return origin if self.task == "classification" else origin | {"target_shift": self.target_shift}

    @property
    def _all_wait(self) -> bool:
        """Whether no sample is in the sums yet."""
        return count_in(self.pending_count) > 0 and not count_in(self.seen)

    def _waiting_parts(self) -> Tensor:
        """The partial sum that each of the waiting rows belongs to."""
        count = count_in(self.pending_count)
        if len(self.pending_parts):
            return self.pending_parts[:count]
        return turns(0, count, self.jackknife_groups, self.device)

    def _sizes(self) -> Tensor:
        if self._all_wait:
            return torch.bincount(self._waiting_parts(), minlength=self.jackknife_groups)
        counts: Tensor = getattr(self, self._sums.names[0])
        return counts.reshape(self.jackknife_groups, -1).sum(1)

    def _moments_of(self, groups: Sequence[int]) -> Any:
        """Moments of some of the groups; as long as all samples wait, of the samples themselves."""
        origin, count = self._origin(), count_in(self.pending_count)
        if self._all_wait:
            chosen = torch.isin(self._waiting_parts(), torch.tensor(groups, device=self.device))
            rows, truth = self.pending_rows[:count][chosen], self.pending_truth[:count][chosen]
            return self._sums.of_rows(rows, truth, **origin)
        if self.jackknife_groups == 1:
            return self._sums.moments({name: getattr(self, name)[0] for name in self._sums.names}, **origin)
        sums = {name: getattr(self, name)[list(groups)].sum(0) for name in self._sums.names}
        return self._sums.moments(sums, **origin)

    def _totals(self) -> Any:
        """Moments of all data; computed once for all metrics that share the states."""
        if count_in(self.seen):
            self._flush()
        state = count_in(self.seen), count_in(self.pending_count)
        self._require_data(sum(state))
        moments = memo(self.seen).get(state)
        if moments is None:
            self.raise_faults()
            moments = self._moments_of(range(self.jackknife_groups))
            memo(self.seen).clear()
            memo(self.seen)[state] = moments
        return moments.require_classes() if isinstance(moments, ClassMoments) else moments

    def _totals_without_each(self) -> Iterator[Any]:
        groups = range(self.jackknife_groups)
        if self._all_wait:
            parts = (self._moments_of([other for other in groups if other != group]) for group in groups)
            whole = self._totals()
            how = whole.part_like() if isinstance(whole, FeatureMoments) else {}
            yield from (replace(part, **how) if how else part for part in parts)
            return
        sums = {name: getattr(self, name) for name in self._sums.names}
        before = {name: torch.zeros_like(state[0]) for name, state in sums.items()}
        after = [before]  # sums of the groups that follow, so that nothing is subtracted
        for group in groups[:0:-1]:
            after.append({name: later + sums[name][group] for name, later in after[-1].items()})
        for group, later in zip(groups, reversed(after), strict=True):
            yield self._sums.moments(
                {name: earlier + later[name] for name, earlier in before.items()}, **self._origin()
            )
            before = {name: earlier + sums[name][group] for name, earlier in before.items()}

    def _scores_without_each(self, sizes: Sequence[int] | None) -> list[Tensor]:
        state, known = memo(self.seen).get(_LEFT_OUT, (None, ()))
        if state == (count_in(self.seen), count_in(self.pending_count)):
            for metric, scores in known:
                if metric() is self:
                    return scores if sizes is None else list(compress(scores, sizes))
        return super()._scores_without_each(sizes)

    @property
    def _unregularised(self) -> bool:
        """Whether the score inverts the covariance of the features as it is."""
        return False

    def _examine(self) -> Health:
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


def leave_out_together(metrics: Iterable[object]) -> None:
    """Let scores that share their sums each look at a part before the next part is made, for ``compute_with_interval``.

    What the scores of a part have in common, such as an eigendecomposition, is then computed once. Nothing is raised
    here: what cannot be computed is left to the score's own ``compute_with_interval``, and so is all of it where
    processes have parts of the data, which each score adds up by itself.

    Args:
        metrics: Scores, of which those that follow from moments and have ``jackknife_groups`` are looked at.
    """
    sharing: dict[int, list[MomentMetric]] = {}
    for metric in metrics:
        if isinstance(metric, MomentMetric) and metric.jackknife_groups > 1 and not metric.distributed_available_fn():
            sharing.setdefault(id(metric.seen), []).append(metric)
    for members in sharing.values():
        with suppress(ValueError, RuntimeError):
            if len(members) > 1:
                _leave_out(members)


def _leave_out(members: Sequence[MomentMetric]) -> None:
    first, found = members[0], [(metric, list[Tensor]()) for metric in members]
    for metric, _ in found:
        with suppress(ValueError, RuntimeError):
            metric._score(first._totals())  # what it takes stays with the totals, and says how to look at their parts
    for part in first._totals_without_each():
        for metric, scores in found:
            with suppress(ValueError, RuntimeError):
                scores.append(metric._score(part))
    whole = [(ref(metric), scores) for metric, scores in found if len(scores) == first.jackknife_groups]
    memo(first.seen)[_LEFT_OUT] = (count_in(first.seen), count_in(first.pending_count)), whole
