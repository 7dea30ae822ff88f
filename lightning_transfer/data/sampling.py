"""Seeded, stratified orders of samples: the one place where splits and subsamples are drawn."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.utilities.groups import number_groups, rows_of_groups


def stratified_order(labels: Tensor, seed: int, *, every_class_first: bool = False) -> Tensor:
    """Order samples so that every prefix holds the classes in proportion.

    The ``j``-th sample of a class with ``n_c`` samples, in a seeded random order, has rank ``(j + 1/2) / n_c``; samples
    are sorted by rank. A prefix of ``m`` samples is then what Webster's method of apportionment gives every class, and
    larger prefixes contain smaller ones.

    Args:
        labels: Class ids of shape ``(n,)``; anything else (multi-label rows, regression targets) is ordered at random.
        seed: Seed of the order.
        every_class_first: Put one sample of every class in front, so that a prefix of at least as many samples as
            classes holds them all.

    Returns:
        A permutation of ``0 .. n - 1``, shape ``(n,)``, int64.

    Example:
        >>> import torch
        >>> from lightning_transfer.data.sampling import stratified_order
        >>> labels = torch.tensor([0] * 30 + [1] * 10)
        >>> labels[stratified_order(labels, seed=0)[:8]].bincount()
        tensor([6, 2])
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    if labels.ndim != 1 or labels.is_floating_point():
        return torch.from_numpy(shuffled)
    classes = labels.numpy()[shuffled]
    by_class = np.argsort(classes, kind="stable")
    _, starts, counts = np.unique(classes[by_class], return_index=True, return_counts=True)
    position = np.arange(len(classes)) - np.repeat(starts, counts)
    rank = (position + 0.5) / np.repeat(counts, counts)
    if every_class_first:
        rank[position == 0] = 0.0
    members = shuffled[by_class]
    ties = generator.permutation(len(members))
    return torch.from_numpy(members[np.lexsort((ties, rank))])


def grouped_order(
    labels: Tensor, groups: Tensor, seed: int, *, every_class_first: bool = False
) -> tuple[Tensor, Tensor]:
    """Order samples so that those of a group follow each other, and prefixes hold the classes in proportion.

    Groups are ordered as :func:`stratified_order` orders samples, each by the class that most of its samples have.

    Args:
        labels: Class ids of shape ``(n,)``; with anything else groups are ordered at random.
        groups: Ids of groups, shape ``(n,)``.
        seed: Seed of the order.
        every_class_first: Put a group of every class in front.

    Returns:
        A permutation of ``0 .. n - 1``, and where its groups end: the lengths of the prefixes that divide none.

    Raises:
        ValueError: If there is one group only.

    Example:
        >>> import torch
        >>> from lightning_transfer.data.sampling import grouped_order
        >>> order, ends = grouped_order(torch.tensor([0, 1, 0, 1]), torch.tensor([7, 2, 7, 5]), seed=0)
        >>> sorted(torch.tensor([7, 2, 7, 5])[order[: ends[0]]].unique().tolist()) in ([2], [5], [7])
        True
    """
    members = rows_of_groups(number_groups(groups)[0])
    if labels.ndim == 1 and not labels.is_floating_point():
        usual = torch.stack([labels[rows].mode().values for rows in members])
    else:
        usual = torch.zeros(len(members), 1)
    order = stratified_order(usual, seed, every_class_first=every_class_first)
    chosen = [members[place] for place in order.tolist()]
    return torch.cat(chosen), torch.tensor([len(rows) for rows in chosen]).cumsum(0)
