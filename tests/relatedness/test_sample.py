"""Labelled samples: counts, parts, and an order of their own that no permutation moves."""

import numpy as np
import pytest
import torch

from lightning_transfer.relatedness.sample import Sample, content_order, evenly, prepare

LABELS = torch.tensor([2, 0, 2, 2, 0, 4, 2, 0, 2, 2])


@pytest.fixture
def sample():
    return Sample(torch.from_numpy(np.random.default_rng(0).normal(size=(10, 3))), LABELS, 5)


def test_counts_shares_means_and_members(sample):
    features, labels = sample.features.numpy(), LABELS.numpy()
    assert sample.counts.tolist() == [3, 0, 6, 0, 1]
    assert sample.prior.tolist() == pytest.approx([0.3, 0, 0.6, 0, 0.1])
    for k, rows in enumerate(sample.members()):
        assert rows.tolist() == np.flatnonzero(labels == k).tolist()
        expected = features[labels == k].mean(0) if k in labels else np.zeros(3)
        assert sample.class_means[k].tolist() == pytest.approx(expected.tolist())


def test_thinned_keeps_the_order_and_the_shares_of_the_whole(sample):
    thin = sample.thinned(2)
    assert thin.counts.tolist() == [2, 0, 2, 0, 1]
    assert torch.equal(thin.prior, sample.prior)
    places = [int((sample.features == row).all(1).nonzero()) for row in thin.features]
    assert places == sorted(set(places))
    assert torch.equal(thin.labels, LABELS[places])
    assert sample.thinned(6) is sample


@pytest.mark.parametrize("parts", [2, 3])
def test_split_divides_every_class(sample, parts):
    larger, held_out = sample.split(parts)
    joined = torch.cat([larger.features, held_out.features])
    assert sorted(map(tuple, joined.tolist())) == sorted(map(tuple, sample.features.tolist()))
    assert (larger.counts + held_out.counts).tolist() == sample.counts.tolist()
    assert held_out.counts.tolist() == {2: [1, 0, 3, 0, 0], 3: [1, 0, 2, 0, 0]}[parts]


def test_with_classes_numbers_them_in_the_order_given(sample):
    part = sample.with_classes(torch.tensor([4, 0]))
    chosen = (LABELS == 4) | (LABELS == 0)
    assert torch.equal(part.features, sample.features[chosen])
    assert part.labels.tolist() == [{4: 0, 0: 1}[k] for k in LABELS[chosen].tolist()]
    assert part.num_classes == 2


@pytest.mark.parametrize(("n", "count"), [(10, 3), (7, 7), (5, 9), (1000, 13)])
def test_evenly_chooses_at_even_distances(n, count):
    rows = evenly(torch.arange(n), count).numpy()
    assert len(rows) == min(n, count)
    gaps = np.diff(rows)
    assert (gaps >= 1).all()
    assert gaps.max() - gaps.min() <= 1
    assert abs(rows[0] - (n - 1 - rows[-1])) <= 1


def test_prepared_data_do_not_depend_on_the_order_or_the_ids():
    draw = np.random.default_rng(1)
    features = torch.from_numpy(draw.normal(size=(20, 4)))
    features[3] = features[11]  # equal rows of two classes
    labels = torch.arange(20) % 3
    first, numbers, ids, order = prepare(features, labels, "reference", seed=5)
    assert torch.equal(first, features[order])
    assert torch.equal(ids[numbers], labels[order])
    permutation = torch.from_numpy(draw.permutation(20))
    renamed = torch.tensor([70, 10, 40])
    again, other_numbers, other_ids, _ = prepare(
        features[permutation], renamed[labels[permutation]], "reference", seed=5
    )
    assert torch.equal(again, first)
    assert torch.equal(other_numbers, numbers)
    assert torch.equal(other_ids, renamed[ids])


def test_classes_of_one_mean_and_one_size_are_told_apart_by_their_spread_and_then_by_their_place():
    features = torch.tensor([[2.0], [-2.0], [1.0], [-1.0], [1.0], [-1.0]])
    for labels in ([0, 0, 5, 5, 3, 3], [4, 4, 0, 0, 3, 3]):
        labels = torch.tensor(labels)
        ids = prepare(features, labels, "reference", seed=0)[2]
        assert ids[2] == labels[0]
        assert ids.tolist()[:2] == sorted(ids.tolist()[:2])
        assert prepare(features, labels, "reference", seed=0, ordered=True)[2].tolist() == labels[[2, 4, 0]].tolist()


def test_content_order_sorts_by_one_projection_and_then_by_the_ties():
    features = torch.from_numpy(np.random.default_rng(2).normal(size=(6, 2))).repeat(2, 1)
    ties = torch.tensor([1] * 6 + [0] * 6)
    pairs = content_order(features, seed=0, ties=ties).reshape(6, 2)
    assert torch.equal(pairs[:, 0], pairs[:, 1] + 6)  # of two equal rows, that of the smaller tie
    opposite = content_order(-3 * features, seed=0, ties=ties).reshape(6, 2)
    assert torch.equal(opposite, pairs.flip(0))
