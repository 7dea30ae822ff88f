"""Labelled features in the form the solvers want: float64, classes numbered without gaps, in an order of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_features, check_labels


@dataclass(frozen=True)
class Sample:
    """Features with classes ``0 .. num_classes - 1``.

    Attributes:
        features: Shape ``(n, d)``, float64.
        labels: Shape ``(n,)``, int64.
        num_classes: Number of classes; a class may be empty on a held-out sample.
        shares: Share of each class in what a thinned sample stands for; None for that in the sample itself.
        groups: Ids of rows that belong together, shape ``(n,)``; None where all are independent.
    """

    features: Tensor
    labels: Tensor
    num_classes: int
    shares: Tensor | None = None
    groups: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """Samples of each class, shape ``(num_classes,)``, float64."""
        return torch.bincount(self.labels, minlength=self.num_classes).double()

    @property
    def prior(self) -> Tensor:
        """Share of each class, shape ``(num_classes,)``, float64."""
        return self.counts / len(self.labels) if self.shares is None else self.shares

    @property
    def class_means(self) -> Tensor:
        """Mean of each class, shape ``(num_classes, d)``; zero for an empty class."""
        sums = self.features.new_zeros(self.num_classes, self.features.shape[1])
        sums.index_add_(0, self.labels, self.features)
        return sums / self.counts.clamp_min(1)[:, None]

    def members(self) -> list[Tensor]:
        """Row numbers of each class, in the order of the sample."""
        order = torch.argsort(self.labels, stable=True)
        return list(torch.split(order, self.counts.long().tolist()))

    def with_features(self, features: Tensor) -> Sample:
        """The same labels on other features."""
        return replace(self, features=features)

    def rows(self, index: Tensor) -> Sample:
        """A part of the sample; the classes stay."""
        return Sample(self.features[index], self.labels[index], self.num_classes, groups=self._groups_of(index))

    def _groups_of(self, index: Tensor) -> Tensor | None:
        return None if self.groups is None else self.groups[index]

    def thinned(self, per_class: int) -> Sample:
        """At most ``per_class`` samples of each class, spread evenly over the order of the sample; shares stay."""
        if int(self.counts.max()) <= per_class:
            return self
        kept = torch.cat([evenly(rows, per_class) for rows in self.members()]).sort().values
        return replace(self.rows(kept), shares=self.prior)

    def split(self, parts: int) -> tuple[Sample, Sample]:
        """Hold out one sample in ``parts`` of each class; classes that are too small stay with the larger part.

        With groups one group in ``parts`` is held out, but for those without which a class would have no sample left.
        """
        held_out = torch.zeros(len(self.labels), dtype=torch.bool, device=self.labels.device)
        if self.groups is not None:
            numbers = number_by_place(self.groups)
            held_out = numbers % parts == parts // 2
            left = torch.bincount(self.labels[~held_out], minlength=self.num_classes)
            needed = numbers[(left == 0)[self.labels]]
            held_out &= ~torch.isin(numbers, needed)
        else:
            for rows in self.members():
                held_out[rows[parts // 2 :: parts]] = len(rows) > 1
        return self.rows((~held_out).nonzero()[:, 0]), self.rows(held_out.nonzero()[:, 0])

    def with_classes(self, classes: Tensor) -> Sample:
        """Keep the given classes only and number them in that order."""
        number = torch.full((self.num_classes,), -1, dtype=torch.long, device=self.labels.device)
        number[classes] = torch.arange(len(classes), device=classes.device)
        labels = number[self.labels]
        kept = labels >= 0
        return Sample(self.features[kept], labels[kept], len(classes), groups=self._groups_of(kept))


def evenly(rows: Tensor, count: int) -> Tensor:
    """Choose ``count`` of the rows at even distances; all of them if there are no more than that."""
    if len(rows) <= count:
        return rows
    return rows[((torch.arange(count, device=rows.device) + 0.5) * (len(rows) / count)).long()]


def number_by_place(groups: Tensor) -> Tensor:
    """Number groups in the order in which they first occur, shape ``(n,)``."""
    ids, numbers = groups.unique(return_inverse=True)
    place = torch.arange(len(groups), device=groups.device)
    first = torch.full_like(ids, len(groups)).scatter_reduce_(0, numbers, place, "amin")
    return first.argsort().argsort()[numbers]


def content_order(features: Tensor, seed: int, ties: Tensor | None = None) -> Tensor:
    """Order of the rows by a seeded projection, so that nothing downstream depends on the order they came in.

    Taking every n-th row of that order is a systematic sample, stratified along the projection.

    Args:
        features: Shape ``(n, d)``.
        seed: Seed of the direction.
        ties: What decides between equal rows, smaller first, shape ``(n,)``; None where they are interchangeable.

    Returns:
        Row numbers of shape ``(n,)``.
    """
    return _sorted(_keys(features, seed), ties)


def _keys(features: Tensor, seed: int) -> Tensor:
    """Seeded projection of each row, shape ``(n,)``, float64."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(features.shape[1], dtype=torch.float64, generator=generator).to(features.device)
    return torch.cat([(part.double() * direction).sum(1) for part in features.split(4096)])


def _sorted(keys: Tensor, ties: Tensor | None) -> Tensor:
    first = torch.arange(len(keys), device=keys.device) if ties is None else torch.argsort(ties, stable=True)
    return first[torch.argsort(keys[first], stable=True)]


def _by_content(labels: Tensor, keys: Tensor, ordered: bool) -> Tensor:
    """Order classes by the mean of their keys, then by size, then by the mean square of their keys.

    What is alike in all three is ordered by number, or by where it first occurs if rows are in an order of their own.

    Args:
        labels: Classes without gaps, shape ``(n,)``.
        keys: Shape ``(n,)``, float64; added up in ascending order, so that the last bits too depend on them alone.
        ordered: Whether the order of the rows says something.

    Returns:
        Class numbers, shape ``(num_classes,)``.
    """
    by_key = torch.argsort(keys, stable=True)
    of, keys = labels[by_key], keys[by_key]
    counts = torch.bincount(of)
    means, squares = (torch.zeros(len(counts)).to(keys).index_add_(0, of, each) / counts for each in (keys, keys**2))
    classes = torch.arange(len(counts), device=labels.device)
    if ordered:
        place = torch.arange(len(labels), device=labels.device)
        classes = torch.full_like(classes, len(labels)).scatter_reduce_(0, labels, place, "amin").argsort()
    for column in (squares, counts, means):
        classes = classes[torch.argsort(column[classes], stable=True)]
    return classes


def prepare(
    features: Tensor, labels: Tensor, side: str, seed: int, groups: Tensor | None = None, ordered: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Check one side of the comparison and bring it into its own order.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        labels: Shape ``(n,)``, any integer dtype, gaps allowed.
        side: ``"reference"`` or ``"target"``, for messages.
        seed: Seed of the order.
        groups: Ids of groups, shape ``(n,)``: they decide between equal rows of a class.
        ordered: Whether the rows are in the order of a larger sample already, which then decides between classes that
            are alike here.

    Returns:
        Features in their own order, labels ``0 .. K-1`` in that order, the original id of each class, and the order;
        classes are numbered by their contents, so that ids carry no meaning.

    Raises:
        ValueError: If an input is malformed or not finite.
    """
    features = check_features(features, f"{side}_features")
    labels = check_labels(labels, len(features), name=f"{side}_labels").to(features.device)
    ids, labels = torch.unique(labels, return_inverse=True)
    keys = _keys(features, seed)
    by_content = _by_content(labels, keys, ordered)
    labels = by_content.argsort()[labels]
    if groups is not None:
        groups = groups.to(features.device).unique(return_inverse=True)[1]
        groups = _by_content(groups, keys, ordered).argsort()[groups]
    order = _sorted(keys, ties_of(labels, groups))
    return features[order], labels[order], ids[by_content], order


def ties_of(labels: Tensor, groups: Tensor | None) -> Tensor:
    """What decides between equal rows: their class, and their group where there are groups."""
    if groups is None:
        return labels
    pairs = torch.stack([labels, groups.to(labels.device)], dim=1)
    ties: Tensor = pairs.unique(dim=0, return_inverse=True)[1]
    return ties
