"""CKA against kernels that are formed, and where it ends."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed, make_inputs
from _reference.sample_scores import reference_cka

from lightning_transfer.functional import cka, lfc
from lightning_transfer.metrics import CKA


@pytest.mark.parametrize(("n", "d"), [(110, 6), (30, 50)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_the_alignment_of_the_kernels(n, d, offset):
    inputs = make_inputs(n=n, d=d)
    features, labels = inputs["features"] + offset, inputs["labels"]
    expected = reference_cka(features, labels)
    assert float(cka(features, labels)) == pytest.approx(expected, rel=1e-8)
    assert float(feed(CKA(), {"features": features, "labels": labels}, [11, 5]).compute()) == pytest.approx(expected)


def test_the_sums_of_many_samples_equal_the_kernels():
    inputs = make_inputs(n=1500)
    metric = feed(CKA(), {"features": inputs["features"], "labels": inputs["labels"]}, [700])
    assert float(metric.compute()) == pytest.approx(reference_cka(inputs["features"], inputs["labels"]), rel=1e-9)


def test_one_hot_features_are_aligned_and_equal_ones_are_not():
    labels = torch.tensor([0, 0, 0, 2, 2, 5])
    assert float(cka(torch.nn.functional.one_hot(labels).float(), labels)) == pytest.approx(1)
    assert float(cka(torch.ones(6, 3), labels)) == 0


def test_large_features_are_scaled_away():
    inputs = make_inputs(n=3000, d=8)
    features, labels = inputs["features"].double(), inputs["labels"]
    for score in (cka, lfc):
        assert float(score(features * 1e74, labels)) == pytest.approx(float(score(features, labels)), rel=1e-9)
