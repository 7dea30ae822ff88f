"""Nearest-neighbour accuracy as a Metric."""

from __future__ import annotations

import math

import pytest
from _helpers import feed, make_inputs

from lightning_transfer.functional import knn_accuracy
from lightning_transfer.metrics import (
    KNNAccuracy,
)


def test_knn_interval_is_that_of_a_proportion():
    inputs = make_inputs(n=500)
    inputs = {name: inputs[name] for name in KNNAccuracy.requires}
    interval = feed(KNNAccuracy(k=3, num_resamples=400), inputs).compute_with_interval()
    accuracy = float(knn_accuracy(**inputs, k=3))
    assert interval.value == pytest.approx(accuracy, abs=1e-12)
    assert interval.standard_error == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 500), rel=0.15)
