"""From a checked problem to a certified answer."""

import math

import pytest
import torch
from hypothesis import settings

from lightning_transfer.relatedness import BoundConfig
from lightning_transfer.relatedness.estimate import check_label_map, probe
from lightning_transfer.relatedness.sample import Sample
from tests.relatedness._tasks import COSTS, make, task_relatedness

many = settings(deadline=None, max_examples=40)


@pytest.mark.parametrize("ground_cost", COSTS)
def test_fewer_reference_classes_share(ground_cost):
    result = task_relatedness(*make(2, num_reference=2, num_target=4), tau="auto", ground_cost=ground_cost)
    assert result.label_mismatch > 0
    assert result.bound <= math.log(4) + 1e-6


def test_reference_classes_are_chosen_and_reported():
    data = make(2, num_reference=6, num_target=2)
    result = task_relatedness(*data, tau=0.5)
    assert len(result.reference_classes) == 2
    assert "2 of 6 reference classes are used" in result.messages
    assert result.label_mismatch == 0


def test_labels_that_are_found():
    z, y, x, t = make(6)
    given_ = task_relatedness(z, y, x, t, tau=0.5)
    pseudo = task_relatedness(z, y, x, tau=0.5)
    clusters = task_relatedness(z, y, x, tau=0.5, pseudo_labels="kmeans", evaluation=(z, y, x, None))
    assert (given_.labels_used, pseudo.labels_used, clusters.labels_used) == ("given", "pseudo", "kmeans")
    for result in (pseudo, clusters):
        assert result.target_loss <= result.bound
        assert f"target labels: {result.labels_used}" in str(result)
    two = task_relatedness(z, y, x, num_target_classes=2, ground_cost="logit_range")
    assert len(two.target_classes) == 2
    for kind in ("classifier", "kmeans"):
        with pytest.raises(ValueError, match="`target_features` to hold a sample of each of 3 target classes"):
            task_relatedness(z, y, x[:2], pseudo_labels=kind)


def test_interval_covers_the_bound_and_narrows_with_data():
    def width(n):
        result = task_relatedness(*make(0, n_reference=n, n_target=n), tau=0.5, num_resamples=8)
        low, high = result.interval
        assert low < result.bound < high
        return high - low

    assert width(300) < width(30)


def test_a_deterministic_map_needs_enough_reference_classes():
    for transforms in ("fixed_all", "learned_a"):
        with pytest.raises(ValueError, match="at least as many reference classes"):
            task_relatedness(*make(0, num_reference=2, num_target=3), transforms=transforms)


def test_label_maps_that_would_be_ignored_are_refused():
    learned, fixed = BoundConfig(), BoundConfig(transforms=("prior", "features"))
    check_label_map(learned, None)
    check_label_map(fixed, "matched")
    for label_map, message in (
        ("matched", "leave 'labels' out of `transforms`"),
        ("best", "`label_map`"),
        (3, "got int"),
    ):
        with pytest.raises(ValueError, match=message):
            check_label_map(learned, label_map)


def test_a_linear_classifier_of_target_features_is_the_measure(blobs):
    _, _, x, t = blobs(n_target=90, gap=6.0)
    sample = Sample(x.double(), t, 3)
    loss, accuracy = probe(sample.rows(torch.arange(45)), sample.rows(torch.arange(45, 90)))
    assert accuracy > 0.9
    assert 0 <= loss < 0.5
    noise = Sample(torch.randn(90, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), t, 3)
    assert probe(noise.rows(torch.arange(45)), noise.rows(torch.arange(45, 90)))[0] > 0.8 * math.log(3)
