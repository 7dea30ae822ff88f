from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.data import TransferDataset
from lightning_transfer.data.base import draw_splits
from lightning_transfer.data.sampling import stratified_order

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(torch.tensor)
seeds = st.integers(0, 2**32)


@settings(deadline=None, max_examples=25)
@given(label_lists, seeds)
def test_order_is_a_seeded_permutation(labels, seed):
    order = stratified_order(labels, seed)
    assert order.sort().values.tolist() == list(range(len(labels)))
    assert torch.equal(order, stratified_order(labels, seed))


@settings(deadline=None, max_examples=25)
@given(label_lists, seeds)
def test_every_prefix_meets_the_quotas(labels, seed):
    """Webster's divisor method: no class is owed its next seat before another was given its last one."""
    counts = labels.bincount(minlength=6).double()
    chosen = torch.zeros(6).double()
    for label in labels[stratified_order(labels, seed)]:
        chosen[label] += 1
        given_last = torch.where(chosen > 0, (chosen - 0.5) / counts, torch.zeros(6))
        next_due = torch.where(chosen < counts, (chosen + 0.5) / counts, torch.full((6,), 9.0))
        assert given_last.nan_to_num().max() <= next_due.min() + 1e-12


@settings(deadline=None, max_examples=25)
@given(label_lists, seeds)
def test_every_class_first(labels, seed):
    k = len(labels.unique())
    prefix = labels[stratified_order(labels, seed, every_class_first=True)[:k]]
    assert prefix.unique().tolist() == labels.unique().tolist()


@settings(deadline=None, max_examples=25)
@given(label_lists, seeds, st.floats(0, 0.45), st.floats(0, 0.45))
def test_drawn_splits_partition_the_samples(labels, seed, val_fraction, test_fraction):
    inputs = torch.arange(len(labels))[:, None].float()
    dataset = TransferDataset(inputs, labels, "labels")
    if round(val_fraction * len(labels)) + round(test_fraction * len(labels)) >= len(labels):
        with pytest.raises(ValueError, match="to leave samples for training"):
            draw_splits({"train": dataset}, seed, val_fraction, test_fraction)
        return
    splits = draw_splits({"train": dataset}, seed, val_fraction, test_fraction)
    parts = [splits[name].inputs[:, 0].int().tolist() for name in ("train", "val", "test")]
    assert sorted(itertools.chain(*parts)) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts)
    assert len(parts[1]) == round(val_fraction * len(labels))
    assert len(parts[2]) == round(test_fraction * len(labels))
    assert all(torch.equal(split.truth, labels[split.inputs[:, 0].long()]) for split in splits.values())


def test_balanced_classes_are_split_evenly():
    labels = torch.arange(10).repeat_interleave(50)
    dataset = TransferDataset(torch.zeros(500, 1), labels, "labels")
    splits = draw_splits({"train": dataset}, 1, 0.1, 0.2)
    assert {name: split.truth.bincount().tolist() for name, split in splits.items()} == {
        "train": [35] * 10,
        "val": [5] * 10,
        "test": [10] * 10,
    }


def test_real_targets_are_ordered_at_random():
    order = stratified_order(torch.rand(50), 0)
    assert order.sort().values.tolist() == list(range(50)) != order.tolist()
