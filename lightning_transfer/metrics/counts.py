"""Base of the scores that follow from joint counts of class ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.functional.counts import add_joint_, check_cells, check_label_columns, conditional_entropy
from lightning_transfer.metrics.base import Health, check_same_grouping, gather_rows, ignore_code, outside_inference
from lightning_transfer.metrics.jackknife import JackknifeMetric
from lightning_transfer.utilities.groups import parts_of, turns

_LARGE_BIAS = 0.1  # nats


class CountMetric(JackknifeMetric):
    """Keeps exact integer counts of pairs of source class and class; the table grows with the ids seen.

    Args:
        miller_madow: Correct the leading term of the bias of the entropies.
        jackknife_groups: Number of partial counts (and times the memory) for ``compute_with_interval``; 1 for none.
        ignore_index: Positions with this label are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    joint_counts: Tensor
    seen: Tensor

    def __init__(self, *, miller_madow: bool = False, ignore_index: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.miller_madow = miller_madow
        self.ignore_index = ignore_index
        # (jackknife group, column of labels, source class, class)
        empty = torch.zeros((self.jackknife_groups, 0, 0, 0), dtype=torch.long)
        self.add_state("joint_counts", empty, dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        # Metrics that count other things must not share states: collections compare states by value.
        code = [len(self.requires), *ignore_code(ignore_index)]
        self.add_state("filter_code", torch.tensor(code), dist_reduce_fx="max")

    def _checked_columns(self, labels: Tensor) -> Tensor:
        """Check labels and return them with shape ``(n, columns)``."""
        columns = check_label_columns(labels)
        before = self.joint_counts.shape[1]
        if before and columns.shape[1] != before:
            raise ValueError(
                f"Expected argument `labels` to have {before} columns like before, but got {columns.shape[1]}."
            )
        return columns

    @outside_inference
    def _count(self, source_labels: Tensor, columns: Tensor, groups: Tensor | None = None) -> None:
        """Add checked labels of shape ``(n,)`` and ``(n, columns)``, perhaps with groups ``(n,)``, to the counts."""
        self._grow(columns.shape[1], int(source_labels.max()) + 1, int(columns.max()) + 1)
        self._note_grouping(groups)
        if groups is None:
            parts = turns(int(self.seen), len(columns), self.jackknife_groups, columns.device)
        else:
            parts = parts_of(groups, self.jackknife_groups)
        add_joint_(self.joint_counts, source_labels, columns, parts)
        self.seen += len(columns)

    def _grow(self, *shape: int) -> None:
        """Give the counts room for at least that many columns, source classes and classes."""
        old = self.joint_counts.shape[1:]
        new = [max(sizes) for sizes in zip(old, shape, strict=True)]
        check_cells(*new)
        if list(old) != new:
            padding = [pad for size, wanted in zip(old[::-1], new[::-1], strict=True) for pad in (0, wanted - size)]
            self.joint_counts = torch.nn.functional.pad(self.joint_counts, padding)

    def _align_ranks(self, gather: Callable[..., list[Tensor]], group: Any) -> None:
        shape = [*self.joint_counts.shape[1:], int(self.grouping)]
        shapes = gather_rows(torch.tensor(shape, device=self.device), gather, group)
        self._check_same_columns(shapes[:, 0].tolist())
        check_same_grouping(shapes[:, 3])
        self._grow(*shapes[:, :3].amax(0).tolist())

    def _reduce_states(self, incoming_state: dict[str, Any]) -> None:
        theirs = incoming_state["joint_counts"]
        self._check_same_columns([self.joint_counts.shape[1], theirs.shape[1]])
        self.grouping = check_same_grouping(torch.stack([self.grouping, incoming_state["grouping"]]))
        self._grow(*theirs.shape[1:])
        self.joint_counts[tuple(slice(size) for size in theirs.shape)] += theirs
        self.seen = self.seen + incoming_state["seen"]

    @staticmethod
    def _check_same_columns(columns: list[int]) -> None:
        if len({count for count in columns if count}) > 1:
            raise ValueError(f"Expected argument `labels` to have the same columns everywhere, but got {columns}.")

    def _totals(self) -> Tensor:
        """Joint counts of all samples, shape ``(columns, source classes, classes)``."""
        self._require_data(int(self.seen))
        return self.joint_counts.sum(0)

    def _sizes(self) -> Tensor:
        return self.joint_counts[:, 0].sum((1, 2))

    def _totals_without_each(self) -> Iterator[Tensor]:
        totals = self._totals()
        return (totals - part for part in self.joint_counts)

    def _correction(self) -> float:
        """What the correction adds to the entropy, 0 without it."""
        return self._bias() if self.miller_madow else 0.0

    def _bias(self) -> float:
        counts = self._totals()
        return float(conditional_entropy(counts, True).mean() - conditional_entropy(counts).mean())

    def _examine(self) -> Health:
        counts = self._totals()
        n, messages = int(counts[0].sum()), []
        classes: dict[str, Any] = {}
        if len(counts) == 1:
            per_class = counts[0].sum(0)
            classes = {"num_classes": int((per_class > 0).sum()), "smallest_class": int(per_class[per_class > 0].min())}
        source_classes, bias = int((counts[0].sum(1) > 0).sum()), self._bias()
        if source_classes > n // 2:
            messages.append(f"{source_classes} source classes for {n} samples tell samples apart, not classes")
        elif bias > _LARGE_BIAS and not self.miller_madow:
            messages.append(f"small counts shift the entropy by about {bias:.2f} nats: set `miller_madow`")
        return Health(num_samples=n, messages=tuple(messages), **classes)
