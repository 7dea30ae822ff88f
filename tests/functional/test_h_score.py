"""H-score against dense references, its limits, and what published code gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import feed, make_inputs
from _reference.golden import formula_inputs
from _reference.moment_scores import (
    reference_canonical_correlations,
    reference_h_score,
    reference_shrunk_h_score,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional import h_score
from lightning_transfer.metrics import HScore


def arrays(inputs):
    return inputs["features"].numpy(), inputs["labels"].numpy()


@pytest.mark.parametrize("seed", [0, 1])
def test_dense_reference(seed):
    inputs = make_inputs(seed)
    value = float(h_score(inputs["features"], inputs["labels"]))
    assert value == pytest.approx(reference_h_score(*arrays(inputs)), rel=1e-10)
    assert value == pytest.approx(reference_canonical_correlations(*arrays(inputs)), rel=1e-6)


@pytest.mark.parametrize("n", [110, 20])
@pytest.mark.parametrize("strength", [None, 0.01, 0.5])
def test_shrinkage_against_scikit_learn(n, strength):
    inputs = make_inputs(2, n=n, d=30)
    value = h_score(inputs["features"], inputs["labels"], shrinkage=strength or "ledoit_wolf")
    assert float(value) == pytest.approx(reference_shrunk_h_score(*arrays(inputs), strength), rel=1e-10)


def test_value_on_iris():
    from sklearn.datasets import load_iris

    iris = load_iris()
    value = h_score(torch.tensor(iris.data), torch.tensor(iris.target), shrinkage="ledoit_wolf")
    # printed by transformer-ranker, whose class covariance is divided by n - 1
    assert float(value) * 150 / 149 == pytest.approx(1.177842480406727, rel=1e-6)


def test_printed_values_of_official_code():
    inputs = formula_inputs()
    features, labels = inputs["features"], inputs["labels"]
    assert float(h_score(features, labels)) == pytest.approx(1.7956687745, abs=1e-9)
    assert float(h_score(features, labels, shrinkage="ledoit_wolf")) == pytest.approx(1.5704752601, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(4, 60), d=st.integers(1, 40), classes=st.integers(2, 4), scale=st.sampled_from([1e-6, 1.0, 1e6]),
    shrinkage=st.sampled_from([None, "ledoit_wolf", 0.3, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_always_within_its_limits(n, d, classes, scale, shrinkage, seed):
    inputs = make_inputs(seed, n=n, d=d, classes=classes)
    value = float(h_score(scale * inputs["features"], inputs["labels"], shrinkage=shrinkage))
    assert 0 <= value <= min(d, n - 1, classes - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_and_repeated_features_change_nothing(dtype):
    inputs = make_inputs(3)
    features, labels = inputs["features"].to(dtype), inputs["labels"]
    constant = torch.full((len(features), 3), 1.7, dtype=dtype)
    padded = torch.cat([features, constant, features[:, :2], 0 * constant], dim=1)
    assert float(h_score(padded, labels)) == pytest.approx(float(h_score(features, labels)), rel=1e-9)


def test_features_of_very_different_scales():
    inputs = make_inputs(4)
    scales = torch.logspace(-8, 8, 6, dtype=torch.float64)
    expected = float(h_score(inputs["features"], inputs["labels"]))
    assert float(h_score(inputs["features"] * scales, inputs["labels"])) == pytest.approx(expected, rel=1e-9)


def test_mean_far_from_zero_in_float32():
    inputs = make_inputs(5)
    features = (inputs["features"] + 1e4).float()
    exact = reference_h_score(features.double().numpy() - 1e4, inputs["labels"].numpy())
    assert float(h_score(features, inputs["labels"])) == pytest.approx(exact, rel=1e-9)


def test_more_features_than_samples_saturates_and_shrinkage_does_not():
    inputs = make_inputs(6, n=30, d=80)
    assert float(h_score(inputs["features"], inputs["labels"])) == pytest.approx(3.0, rel=1e-9)
    assert float(h_score(inputs["features"], inputs["labels"], shrinkage="ledoit_wolf")) < 2.99


def test_constant_features_tell_nothing():
    labels = torch.tensor([0, 1, 0, 1])
    for shrinkage in (None, "ledoit_wolf", 0.5):
        assert float(h_score(torch.ones(4, 3), labels, shrinkage=shrinkage)) == 0


@pytest.mark.parametrize("shrinkage", ["oas", -0.1, 1.1, True])
def test_unknown_shrinkage(shrinkage):
    with pytest.raises(ValueError, match="`shrinkage`"):
        h_score(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), shrinkage=shrinkage)


def test_ignored_positions_of_tokens_and_pixels():
    inputs = make_inputs(7, n=96)
    features, labels = inputs["features"], inputs["labels"].clone()
    labels[::5] = 255
    expected = h_score(features[labels != 255], labels[labels != 255])
    tokens = h_score(features.view(4, 24, 6), labels.view(4, 24), ignore_index=255)
    pixels = h_score(features.view(4, 4, 6, 6).movedim(-1, 1), labels.view(4, 4, 6), ignore_index=255)
    assert float(tokens) == pytest.approx(float(expected), rel=1e-12)
    assert float(pixels) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(ValueError, match="`labels` to have shape"):
        h_score(features.view(4, 24, 6), labels.view(24, 4))


@pytest.mark.parametrize(("n", "d"), [(12, 40), (40, 39)])
def test_shrinkage_below_rounding_is_none(n, d):
    inputs = make_inputs(1, n=n, d=d)
    features = torch.cat([inputs["features"], inputs["features"][:, :2].sum(1, keepdim=True)], dim=1)  # collinear
    plain = h_score(features, inputs["labels"])
    assert float(h_score(features, inputs["labels"], shrinkage=1e-300)) == pytest.approx(float(plain), rel=1e-9)
    metric = feed(HScore(shrinkage=1e-300), {"features": features, "labels": inputs["labels"]})
    assert float(metric.compute()) == pytest.approx(float(plain), rel=1e-9)


def test_numpy_is_refused():
    with pytest.raises(ValueError, match="`features`"):
        h_score(np.ones((4, 3)), torch.tensor([0, 1, 0, 1]))
