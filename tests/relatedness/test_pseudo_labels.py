"""Labels for targets that have none."""

from __future__ import annotations

import pytest
import torch

from lightning_transfer.relatedness.pseudo_labels import cluster, first_guess, nearest, without_gaps
from lightning_transfer.relatedness.sample import Sample


def blobs_of(classes, n=60, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    features = 8 * torch.eye(classes, width, dtype=torch.float64)[labels]
    return features + torch.randn(n, width, dtype=torch.float64, generator=generator), labels


def same_partition(one, other):
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def test_clusters_are_the_blobs_and_have_their_means():
    features, labels = blobs_of(3)
    found, centres = cluster(features, 3, seed=0)
    assert same_partition(found, labels)
    for number, centre in enumerate(centres):
        torch.testing.assert_close(centre, features[found == number].mean(0))
    assert torch.equal(nearest(features, centres), found)
    with pytest.raises(ValueError, match=r"a sample of each of 9 target classes.*but got 5 samples"):
        cluster(features[:5], 9, seed=0)
    with pytest.raises(ValueError, match=r"a sample of each of 3 target classes.*got 20 samples, 2 of them distinct"):
        cluster(features[:2].repeat(10, 1), 3, seed=0)


def test_classes_are_numbered_in_a_row():
    assert without_gaps(torch.tensor([7, 2, 7, 30])).tolist() == [1, 0, 1, 2]


def test_the_reference_head_guesses_where_it_predicts_every_class():
    features, labels = blobs_of(3)
    reference = Sample(features, labels, 3)
    target, truth = blobs_of(3, n=45, seed=1)
    assert torch.equal(first_guess(reference, target, 3, seed=0), truth)  # under the names of the reference
    turned = target[:, [1, 2, 0, 3]]
    assert same_partition(first_guess(reference, turned, 3, seed=0), truth)
    some = target[truth != 2]  # a class is never predicted: clusters instead
    guess = first_guess(reference, some, 3, seed=0)
    assert sorted(guess.unique().tolist()) == [0, 1, 2]
    assert same_partition(first_guess(reference, some, 2, seed=0), truth[truth != 2])
