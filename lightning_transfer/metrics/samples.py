"""Base of the scores that have no sums: they keep a bounded, seeded sample."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from lightning_transfer.functional.moments import FeatureMoments
from lightning_transfer.metrics.base import (
    Health,
    ScoreInterval,
    TransferMetric,
    check_same_grouping,
    collapse_message,
    gather_rows,
    ignore_code,
    memo,
    outside_inference,
    set_count,
)
from lightning_transfer.metrics.jackknife import jackknife_interval
from lightning_transfer.utilities.checks import check_in_interval, check_positive_int, check_seed, shape_of_positions
from lightning_transfer.utilities.groups import number_groups, parts_of, rows_of_groups

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
_PARTS = 16  # that the jackknife leaves out in turn
_MOST_LEFT = 2**20  # contents left out that are counted
_MIX = (-7046029254386353131, -4417276706812531889)  # odd constants of a 64-bit finaliser


class SampleMetric(TransferMetric):
    """Base of scores that need samples: keeps a bounded, seeded sample of the inputs that ``requires`` names.

    Samples are chosen by a hash of their values with the seed, so the choice depends neither on the order of the
    samples nor on how they are split into batches or ranks, and up to ``keep_samples`` nothing is left out. Each of
    ``m`` equal samples has a place of its own: with ``v`` in (0, 1) from the hash, the places are ``v / m``,
    ``(v + 1) / m``, ..., and the samples at the lowest places of all are kept. So equal samples are kept in their
    share. For that the hashes of samples that were left out are counted, up to a million different ones.

    Of samples that come with ``groups`` intervals draw or leave out whole groups, and scores that leave a sample out
    leave out its group.

    Args:
        keep_samples: Samples kept at most, over all ranks; None for all.
        seed: Seed of the choice and of the bootstrap.
        num_resamples: Bootstrap resamples of ``compute_with_interval``.
        ignore_index: Samples with this label are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    _bias_counts: bool = False  # beside the standard error, so that the interval has to be moved by it
    _reads_groups: bool = False  # whether the score itself takes `groups` beside its samples
    seen: Tensor
    kept_ranks: list[Tensor]
    kept_times: list[Tensor]
    left_ranks: list[Tensor]
    left_times: list[Tensor]

    def __init__(
        self,
        *,
        keep_samples: int | None = 10_000,
        seed: int = 0,
        num_resamples: int = 100,
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        for old in ("max_samples", "kept_samples"):
            if old in kwargs:
                warnings.warn(f"`{old}` of {type(self).__name__} is called `keep_samples` now.", FutureWarning, 2)
                keep_samples = kwargs.pop(old)
        super().__init__(**kwargs)
        self.keep_samples = None if keep_samples is None else check_positive_int(keep_samples, "keep_samples", 2)
        self.seed = check_seed(seed)
        self.num_resamples = check_positive_int(num_resamples, "num_resamples", 2)
        self.ignore_index = ignore_index
        if ignore_index is not None and not {"labels", "targets"} & set(self.requires):
            raise ValueError(f"Expected no argument `ignore_index`: {type(self).__name__} reads no labels.")
        for name in [*self._lists, "kept_groups"]:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        code = [*ignore_code(ignore_index), seed, keep_samples or 0]
        self.add_state("filter_code", torch.tensor(code), dist_reduce_fx="max")

    @property
    def _lists(self) -> list[str]:
        """Names of the states that grow: rows with hash and number of equal samples, and both of those left out."""
        rows = [*self._columns, "ranks", "times"]
        return [f"kept_{name}" for name in rows] + ["left_ranks", "left_times"]

    @property
    def _columns(self) -> tuple[str, ...]:
        """What is kept of a sample."""
        return (*self.requires, "groups") if self._has_groups else tuple(self.requires)

    def _prepare(self, **samples: Tensor) -> dict[str, Tensor]:
        """Do what all bootstrap resamples share, such as a fit; one row a sample goes in and comes out."""
        return samples

    @abstractmethod
    def _score(self, **samples: Tensor) -> Tensor:
        """Compute the score from what :meth:`_prepare` returns, by default the kept samples, named like the inputs."""

    @outside_inference
    def _keep(self, groups: Tensor | None = None, **samples: Tensor) -> None:
        """Add validated samples, perhaps with groups, to those kept."""
        first = samples[self.requires[0]]
        self.seen += len(first)
        self._note_grouping(groups)
        if groups is not None:
            samples["groups"] = groups
        for name in self._columns:
            getattr(self, f"kept_{name}").append(samples[name].detach().clone())
        self.kept_ranks.append(content_ranks([samples[name] for name in self._columns], self.seed))
        self.kept_times.append(torch.ones_like(self.kept_ranks[-1]))
        if self.keep_samples is not None and sum(map(len, self.kept_ranks)) > 2 * _room(self.keep_samples):
            self._thin(self.keep_samples)

    def _kept(self) -> dict[str, Tensor]:
        """The chosen samples by the names of the inputs, in an order of their own."""
        samples = self._kept_columns()
        return {name: samples[name] for name in self.requires}

    def _kept_groups(self) -> Tensor | None:
        """Ids of the groups of the chosen samples, in the same order; None without groups."""
        groups: Tensor | None = self._kept_columns().get("groups")
        return groups

    @outside_inference
    def _kept_columns(self) -> dict[str, Tensor]:
        count, most = int(self.seen), self.keep_samples
        self._require_data(count)
        cache = memo(self.seen)
        if cache.get("seen") != count:
            if most is None or count <= most:
                rows = {name: _joined(getattr(self, name)) for name in self._lists}
                ranks = rows["kept_ranks"]
                if bool((ranks.diff() < 0).any()):
                    order = ranks.argsort(stable=True)
                    rows |= {name: rows[name][order] for name in self._lists if name.startswith("kept_")}
                self._replace(rows)
                samples = {name: rows[f"kept_{name}"] for name in self._columns}
            else:
                rows = self._thin(most)
                copies = share_out(rows["kept_ranks"], rows["kept_times"], most)
                alone = bool((copies[:most] == 1).all()) and not bool(copies[most:].any())
                index: Any = slice(most) if alone else torch.arange(len(copies), device=copies.device)
                index = index if alone else index.repeat_interleave(copies)
                samples = {name: rows[f"kept_{name}"][index] for name in self._columns}
            cache |= {"seen": count, "samples": samples}
        return dict(cache["samples"])

    def _thin(self, most: int) -> dict[str, Tensor]:
        """Keep one row of each content that may be chosen, those of the lowest places first, and count the others."""
        rows = {name: _joined(getattr(self, name)) for name in self._lists}
        ranks, n = rows["kept_ranks"], len(rows["kept_ranks"])
        ids, inverse = torch.unique(torch.cat([ranks, rows["left_ranks"].to(ranks)]), return_inverse=True)
        counts = torch.cat([rows["kept_times"], rows["left_times"].to(ranks)])
        times = torch.zeros_like(ids).index_add_(0, inverse, counts)
        row = torch.full_like(ids, n).scatter_reduce_(0, inverse[:n], torch.arange(n, device=ids.device), "amin")
        order = (_uniform(ids) / times).argsort(stable=True)
        kept = order[row[order] < n][: _room(most)]
        left = torch.ones_like(ids, dtype=torch.bool).index_fill_(0, kept, False)
        left_ids = order[left[order]][:_MOST_LEFT]
        thinned = {f"kept_{name}": rows[f"kept_{name}"][row[kept]] for name in self._columns}
        thinned |= {"kept_ranks": ids[kept], "kept_times": times[kept]}
        thinned |= {"left_ranks": ids[left_ids], "left_times": times[left_ids]}
        self._replace(thinned)
        return thinned

    def _replace(self, rows: Mapping[str, Tensor]) -> None:
        for name, values in rows.items():
            parts = getattr(self, name)
            if isinstance(parts, Tensor):  # after a sync
                setattr(self, name, values)
            else:
                parts[:] = [values]  # in place: other metrics may share the states

    def reset(self) -> None:
        """Forget all data."""
        for name in [*self._lists, "kept_groups"]:  # new lists: torchmetrics would empty those that others may hold
            setattr(self, name, [])
        super().reset()

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        if self.keep_samples is not None and int(self.seen) > self.keep_samples:
            self._thin(self.keep_samples)
        groupings = gather_rows(self.grouping.reshape(1), gather, group)
        set_count(self.grouping, int(check_same_grouping(groupings.flatten())))
        for name in self._lists:
            self._match_empty(name, gather, group)

    def _match_empty(self, state: str, gather: Callable[..., list[Tensor]], group: Any) -> None:
        """On a rank without data, make the empty state look like that of the first rank with data."""
        parts = getattr(self, state)
        dtype, shape = (_DTYPES.index(parts[0].dtype), parts[0].shape[1:]) if parts else (-1, ())
        sizes = torch.tensor([dtype, len(shape), *shape, *[0] * (4 - len(shape))], device=self.device)
        shapes = gather_rows(sizes, gather, group)
        filled = shapes[shapes[:, 0] >= 0]
        if not parts and len(filled):
            code, ndim, *rest = filled[0].tolist()
            setattr(self, state, [torch.zeros((0, *rest[:ndim]), dtype=_DTYPES[code], device=self.device)])

    def compute(self) -> Tensor:
        """Compute the score from the kept samples."""
        return self._finish(self._score(**self._prepared()))

    def _prepared(self) -> dict[str, Tensor]:
        groups = self._kept_groups() if self._reads_groups else None
        return self._prepare(**self._kept(), **({} if groups is None else {"groups": groups}))

    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with an interval over the kept samples.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            The score, the standard deviation over seeded bootstrap resamples, and a normal interval around the score;
            for scores whose bias counts (ETran, GBC, LEEP, N-LEEP, PACTran with a Dirichlet or Gamma prior, RankMe,
            SFDA, TransRate) what a jackknife over 16 groups of samples gives, see
            :func:`lightning_transfer.metrics.jackknife.jackknife_interval`.

        Raises:
            ValueError: If all samples are of one group.
            RuntimeError: If too few resamples could be scored.
        """
        check_in_interval(level, 0, 1, "level")
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            samples, groups = self._prepared(), self._kept_groups()
            numbers = None if groups is None else number_groups(groups)[0]
            value = float(self._finish(self._score(**samples)))
        unconverged = self._unconverged
        try:
            return (self._jackknife if self._bias_counts else self._bootstrap)(samples, numbers, value, level)
        finally:
            self._unconverged = unconverged

    def _jackknife(
        self, samples: Mapping[str, Tensor], numbers: Tensor | None, value: float, level: float
    ) -> ScoreInterval:
        first = next(iter(samples.values()))
        units = torch.arange(len(first), device=first.device) if numbers is None else numbers
        parts = min(_PARTS, int(units.max()) + 1)
        part = units % parts if numbers is None else parts_of(numbers, parts)
        try:
            without = [self._score(**{name: x[part != left] for name, x in samples.items()}) for left in range(parts)]
        except ValueError as error:  # a class can be lost
            raise RuntimeError(f"The score without a group of samples could not be computed: {error}") from error
        return jackknife_interval(value, without, level, None if numbers is None else torch.bincount(part).tolist())

    def _bootstrap(
        self, samples: Mapping[str, Tensor], numbers: Tensor | None, value: float, level: float
    ) -> ScoreInterval:
        from scipy.stats import norm

        generator = torch.Generator().manual_seed(self.seed)
        first = next(iter(samples.values()))
        members = None if numbers is None else rows_of_groups(numbers)
        n = len(first if members is None else members)
        scores: list[float] = []
        reason = ""
        for _ in range(self.num_resamples):
            rows = torch.randint(n, (n,), generator=generator)
            rows = rows.to(first.device) if members is None else torch.cat([members[unit] for unit in rows.tolist()])
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

    def _examine(self) -> Health:
        samples = self._kept()
        n, messages = len(samples[self.requires[0]]), []
        record: dict[str, Any] = {}
        features, labels = samples.get("features"), samples.get("labels")
        if features is not None:
            d, rank = features.shape[1], _effective_rank(features)
            record = {"num_features": d, "samples_per_feature": n / d, "effective_rank": rank}
            messages += collapse_message(rank, d)
        if labels is not None and labels.ndim == 1 and not labels.is_floating_point():
            counts = labels.unique(return_counts=True)[1]
            record |= {"num_classes": len(counts), "smallest_class": int(counts.min())}
            if record["smallest_class"] == 1:
                messages.append("a class has a single sample")
            groups = self._kept_groups() if self.leave_one_out else None
            if groups is not None:
                pairs = torch.stack([labels, groups.to(labels.device)], dim=1).unique(dim=0)
                alone = int((pairs[:, 0].unique(return_counts=True)[1] == 1).sum())
                if alone:
                    messages.append(
                        f"{alone} of {len(counts)} classes lie in one group each, so their samples are never right"
                    )
        if int(self.seen) > n:
            messages.append(f"computed on a seeded sample of {n} of {int(self.seen)} samples (`keep_samples`)")
        return Health(num_samples=n, messages=tuple(messages), **record)

    def update(
        self,
        features: Tensor,
        labels: Tensor | None = None,
        targets: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> None:
        """Add a batch to the samples.

        Args:
            features: Shape ``(n, d)``, any floating dtype; with labels tokens ``(b, t, d)`` and pixels ``(b, d, h, w)``
                too.
            labels: Class ids of shape ``(n,)`` (``(b, t)``, ``(b, h, w)``), any integer dtype; where the task has
                several labels a sample, zeros and ones of shape ``(n, l)``, any dtype.
            targets: With ``task="regression"`` in place of labels: shape ``(n,)`` or ``(n, m)``, any dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = self._checked(features, labels, targets)
        if checked is not None:
            self._keep_checked(checked, self._check_groups(groups, shape_of_positions(features), labels))

    def _keep_checked(self, checked: Sequence[Tensor], groups: Tensor | None) -> None:
        self._keep(groups, **dict(zip(self.requires, checked, strict=True)))

    @property
    def _width(self) -> int:
        kept = getattr(self, f"kept_{self.requires[0]}")
        return kept[0].shape[-1] if len(kept) and kept[0].ndim > 1 else 0


class ZooSampleMetric(SampleMetric):
    """Base of scores that are published relative to a zoo of models: ``compute`` is the raw sum of the parts of one."""

    @abstractmethod
    def _parts(self, **samples: Tensor) -> dict[str, Tensor]:
        """Compute the raw parts of the kept samples."""

    def parts(self) -> dict[str, Tensor]:
        """Compute the raw parts, over all ranks, from those of every model the published scores are combined."""
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            return self._parts(**self._kept())


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """One tensor of a list state, which is a tensor already after a sync."""
    if isinstance(parts, Tensor):
        return parts
    filled = [part for part in parts if len(part)] or [torch.zeros(0)]
    return filled[0] if len(filled) == 1 else torch.cat(filled)


def _effective_rank(features: Tensor) -> float:
    """Participation ratio of the covariance of features, computed once for all metrics that share them."""
    if "effective_rank" not in memo(features):
        rows = features.to(torch.promote_types(features.dtype, torch.float32))
        rows = rows - rows.mean(0, dtype=torch.float64).to(rows.dtype)
        low, high = rows.aminmax()
        rows /= torch.maximum(-low, high).clamp(min=torch.finfo(rows.dtype).tiny)  # float32 can square them
        memo(features)["effective_rank"] = float(FeatureMoments.of_features(rows).effective_rank)
    return cast(float, memo(features)["effective_rank"])


def _room(most: int) -> int:
    """Rows that are kept so that those chosen over all ranks are among them: their shares on the ranks vary."""
    return most + 4 * math.isqrt(most) + 16


def _uniform(ranks: Tensor) -> Tensor:
    """Numbers in (0, 1) from hashes, in the order of these, float64."""
    return (ranks.double() / 2.0**64 + 0.5).clamp(2.0**-53, 1 - 2.0**-53)


def share_out(ranks: Tensor, times: Tensor, most: int) -> Tensor:
    """Choose how many of equal samples are kept, each in its share: see :class:`SampleMetric`.

    Args:
        ranks: Hashes of different contents, shape ``(k,)``, int64.
        times: How many samples have each, at least 1.
        most: How many samples are kept of all.

    Returns:
        Number of each, shape ``(k,)``, int64, ``most`` in sum or all where there are fewer.
    """
    start, counts = _uniform(ranks), times.double()

    def below(place: float) -> Tensor:
        return torch.minimum((counts * place - start).floor() + 1, counts).clamp(min=0)

    low, high = 0.0, 1.0
    if int(times.sum()) <= most:
        return times
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if float(below(middle).sum()) > most else (middle, high)
    copies = below(low)
    following = ((copies + start) / counts).masked_fill(copies == counts, math.inf)
    copies[following.argsort(stable=True)[: most - int(copies.sum())]] += 1
    return copies.long()


def choose_rows(tensors: Sequence[Tensor], seed: int, most: int | None) -> Tensor:
    """Rows of a seeded sample of one set of samples, as :class:`SampleMetric` chooses them.

    Args:
        tensors: Inputs, one sample a row.
        seed: Seed of the choice.
        most: Samples kept at most; None for all.
    """
    ranks = content_ranks(tensors, seed)
    order = ranks.argsort(stable=True)
    if most is None or len(order) <= most:
        return order
    ids, times = torch.unique_consecutive(ranks[order], return_counts=True)
    first = times.cumsum(0) - times
    copies = share_out(ids, times, most)
    return order[first.repeat_interleave(copies)]


def content_ranks(tensors: Sequence[Tensor], seed: int) -> Tensor:
    """Hash each sample's values with a seed to a pseudo-random int64, equal for equal samples."""
    mixed = torch.zeros(len(tensors[0]), dtype=torch.int64, device=tensors[0].device)
    rows = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    all_weights = _hash_weights(tuple(values.shape[1] for values in rows), seed, mixed.device)
    for values, weights in zip(rows, all_weights, strict=True):
        bits = values.double().view(torch.int64) if values.is_floating_point() else values.long()
        folded = (bits >> 32).bitwise_xor_(bits)
        # one reading instead of three; a GPU has no product of integers with a vector
        mixed = mixed + (folded.mv(weights) if folded.device.type == "cpu" else (folded * weights).sum(1))
        for constant in _MIX:
            mixed = (mixed ^ (mixed >> 29)) * constant
    return mixed ^ (mixed >> 32)


@lru_cache(maxsize=64)
def _hash_weights(widths: tuple[int, ...], seed: int, device: torch.device) -> list[Tensor]:
    """Odd pseudo-random numbers for each column of several tensors; a GPU would be waited for to get them anew."""
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False):
        drawn = [torch.randint(-(2**62), 2**62, (width,), generator=generator) * 2 + 1 for width in widths]
        return [weights.to(device) for weights in drawn]
