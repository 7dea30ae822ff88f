from __future__ import annotations

import itertools
import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _training import Points, Stream
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from lightning_transfer.data import Samples
from lightning_transfer.passes import Pass, Places, as_loaders, draw, evenly, places_in, read_input_shape


class Numbers(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index["at"] if isinstance(index, dict) else index


class Endless(torch.utils.data.Sampler):
    """Has no length."""

    def __iter__(self):
        return itertools.cycle([3, 1])


class Epochs(torch.utils.data.Sampler):
    """Leaves other samples out in each epoch."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter(range(self.epoch, 7))

    def __len__(self):
        return 6


def _rank(rank=0, world_size=1):
    return SimpleNamespace(global_rank=rank, world_size=world_size)


def _seen(loader, world_size=1, **options):
    passes = [Pass(loader, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    return [[int(sample) for batch in own for sample in np.atleast_1d(batch)] for own in passes]


def _joined(lists):
    return list(chain.from_iterable(lists))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), world=st.integers(1, 5), batch=st.integers(1, 7), kept=st.none() | st.integers(1, 45))
def test_each_sample_counts_once_on_any_number_of_processes(n, world, batch, kept):
    """What a distributed sampler deals out, duplicates included, is counted as one process would count it."""
    counted, expected = [], evenly(n, kept).tolist()
    for rank in range(world):
        sampler = DistributedSampler(Numbers(n), num_replicas=world, rank=rank, shuffle=False)
        loader = DataLoader(Numbers(n), batch_size=batch, sampler=sampler)
        places = places_in(loader, _rank(rank, world), float("inf"), kept)
        for samples in loader:
            place, counts = places.take(len(samples))
            assert place[counts].tolist() == samples[counts].tolist()
            counted += samples[counts].tolist()
    assert sorted(counted) == expected


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), world=st.integers(1, 5), batch=st.integers(1, 7), kept=st.none() | st.integers(1, 45))
def test_own_pass_shares_the_samples_without_padding(n, world, batch, kept):
    shares = _seen(DataLoader(Numbers(n), batch_size=batch, shuffle=True), world, max_samples=kept)
    assert sorted(_joined(shares)) == evenly(n, kept).tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize("world", [1, 2])
def test_limit_is_that_of_the_trainer(world):
    loader = DataLoader(Numbers(40), batch_size=4)
    assert sorted(_joined(_seen(loader, world, limit=3))) == list(range(12 * world))
    assert sorted(_joined(_seen(loader, world, limit=0.5))) == list(range(20 if world == 1 else 16))
    for rank in range(world):
        sampler = DistributedSampler(Numbers(40), num_replicas=world, rank=rank, shuffle=False)
        places = places_in(DataLoader(Numbers(40), batch_size=4, sampler=sampler), _rank(rank, world), 3, None)
        assert places.total == 12 * world


def test_every_rank_of_an_unsharded_loader_counts_its_share():
    taken = []
    for rank in range(2):
        places = places_in(DataLoader(Numbers(7), batch_size=3), _rank(rank, 2), float("inf"), None)
        for count in (3, 3, 1):
            place, counts = places.take(count)
            taken += place[counts].tolist()
    assert sorted(taken) == list(range(7))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (SubsetRandomSampler([5, 1, 3]), [1, 3, 5]),
        (WeightedRandomSampler([1.0] * 7, 20), list(range(7))),
        ([4, 2, 4], [2, 4]),
        (None, list(range(7))),
        (Endless(), list(range(7))),
        (Epochs(), list(range(1, 7))),
        ([{"at": 4}, {"at": 2}], [4, 2]),
    ],
    ids=["subset", "weighted", "own", "default", "endless", "epochs", "dicts"],
)
def test_order_and_choice_by_sampler(sampler, expected):
    assert _seen(DataLoader(Numbers(7), batch_size=2, sampler=sampler)) == [expected]


def test_batch_samplers_and_data_sets_that_make_batches():
    assert _seen(DataLoader(Numbers(7), batch_sampler=BatchSampler(SequentialSampler(range(7)), 3, False))) == [
        list(range(7))
    ]
    assert _seen(DataLoader(Numbers(7), batch_sampler=[[6, 1], [3]])) == [[1, 3, 6]]
    assert sorted(_joined(_seen(DataLoader(Numbers(7), batch_size=None), 2))) == list(range(7))


@pytest.mark.parametrize("world", [1, 2])
def test_data_sets_that_take_the_indices_of_a_batch_at_once(world):
    class Table(Numbers):
        def __getitem__(self, indices):
            assert isinstance(indices, list)
            return torch.tensor(indices)

    loader = DataLoader(Table(7), sampler=BatchSampler(RandomSampler(range(7)), 3, False), batch_size=None)
    shares = _seen(loader, world)
    assert sorted(_joined(shares)) == list(range(7))
    assert _seen(loader, world, limit=1) == [[0, 1, 2]] if world == 1 else [[0, 2, 4], [1, 3, 5]]
    assert places_in(loader, _rank(), float("inf"), None).total == 7


def test_a_sampler_that_counts_its_epochs_does_not_count_ours():
    sampler = Epochs()
    _seen(DataLoader(Numbers(7), 2, sampler=sampler))
    assert sampler.epoch == 0


def test_samplers_without_length_are_numbered_as_they_come():
    places = places_in(DataLoader(Numbers(7), 2, sampler=Endless()), _rank(), 3, 4)
    assert places.take(6)[1].tolist() == [True] * 4 + [False] * 2


def test_iterables_without_length():
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4])]
    assert _seen(batches, 2) == [[0, 1, 4], [2, 3]]
    assert _seen(batches, limit=1) == [[0, 1]]
    for sharded in (False, True):
        own = Pass(DataLoader(Stream(20), batch_size=4), limit=3, sharded=sharded)
        assert [len(labels) for _, labels in own] == [4, 4, 4]
        capped = Pass(DataLoader(Stream(20), batch_size=4), max_samples=6, sharded=sharded)
        assert [len(labels) for _, labels in capped] == [4, 2]
    assert [len(labels) for _, labels in Pass(DataLoader(Stream(20), batch_size=4), rank=1, world_size=2)] == [4, 4]


def test_persistent_workers_of_the_loader_are_left_alone():
    loader = DataLoader(Points(9), batch_size=4, num_workers=1, persistent_workers=True)
    assert sum(len(labels) for _, labels in Pass(loader)) == 9
    assert loader._iterator is None


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), world=st.integers(1, 4), batch=st.integers(1, 7), kept=st.integers(1, 45))
def test_a_drawn_subset_is_the_same_on_any_number_of_processes(n, world, batch, kept):
    loader, expected = DataLoader(Numbers(n), batch_size=batch), draw(n, kept, 1).tolist()
    shares = _seen(loader, world, max_samples=kept, seed=1)
    assert sorted(_joined(shares)) == expected
    for rank in range(world):
        length = len(Pass(loader, rank=rank, world_size=world, max_samples=kept, seed=1))
        assert length == math.ceil(len(shares[0]) / batch)


@pytest.mark.parametrize("world", [1, 2])
def test_the_first_samples_of_what_comes_in_batches(world):
    class Whole(Numbers):
        def __getitem__(self, index):
            return torch.arange(4 * index, 4 * index + 4)

    for loader in ([torch.arange(i, i + 4) for i in (0, 4, 8)], DataLoader(Whole(3), batch_size=None)):
        assert sorted(_joined(_seen(loader, world, max_samples=6))) == list(range(6))
    shares = _seen(DataLoader(Stream(20), batch_size=4, collate_fn=len), world, sharded=True)
    assert shares == [[4] * 5] * world


def test_loaders_in_collections():
    one, two = DataLoader(Numbers(3)), DataLoader(Numbers(4))
    for loaders in ([one, two], (one, two), {"a": one, "b": [two]}, CombinedLoader([one, two], "max_size")):
        assert as_loaders(loaders) == [one, two]
    stream = iter([torch.ones(2)])
    for loaders in (
        one,
        stream,
        [torch.ones(2)],
        [(torch.ones(2), torch.ones(2))],
        [{"x": torch.ones(2)}],
        [["a", "b"]],
    ):
        assert len(as_loaders(loaders)) == 1
        assert as_loaders(loaders)[0] is loaders
    assert as_loaders([stream, one]) == [stream, one]
    assert as_loaders(None) == as_loaders([]) == as_loaders([None]) == []


def test_the_length_is_not_known_of_what_comes_in_batches():
    with pytest.raises(TypeError, match="number of batches"):
        len(Pass([torch.ones(2)]))


def test_unknown_length_counts_all():
    assert Places(None).take(3)[1].all()
    assert Places(None, max_samples=2).take(3)[1].tolist() == [True, True, False]


class Resized(LightningDataModule):
    """Someone's datamodule, whose hook cuts the batches."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(9, 1, 8, 8), torch.arange(9)), batch_size=4, num_workers=0)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0][..., :6], batch[1]


def picture(size):
    return Image.new("RGB", size)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Samples((torch.zeros(5, 3), torch.arange(5))), (3,)),
        (lambda: [(torch.zeros(2, 1, 4, 4), torch.zeros(2))], (1, 4, 4)),
        (lambda: Samples(([picture((6, 4))] * 3, [0, 1, 0])), (3, 4, 6)),
        (Resized, (1, 8, 6)),
    ],
    ids=["vectors", "batches", "pictures", "hook"],
)
def test_shape_of_inputs(make, shape):
    before = torch.get_rng_state()
    assert read_input_shape(make()) == shape
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Samples(([picture((6, 4)), picture((4, 4))], [0, 1])),
            r"pictures of sizes such as \[\(4, 4\), \(4, 6\)",
        ),
        (lambda: iter([torch.zeros(2, 3)]), "an iterator, which is read once only"),
        (lambda: [(["one", "two"], torch.arange(2))], "a batch of list"),
        (lambda: [(torch.zeros(2), torch.arange(2))], r"a batch of Tensor of shape \(2,\)"),
    ],
)
def test_inputs_without_one_shape_are_refused_with_the_way_out(make, message):
    with pytest.raises(ValueError, match=f"{message}.*input_shape="):
        read_input_shape(make())
