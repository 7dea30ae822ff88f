"""LogME against the dense Gaussian evidence, also where published code is wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from _helpers import feed, make_inputs
from _reference.golden import formula_inputs, golden_inputs, golden_values
from _reference.moment_scores import reference_logme
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional import log_maximum_evidence
from lightning_transfer.functional.logme import _ProfileEvidence
from lightning_transfer.metrics import LogME
from tests.functional._inputs import attributes


def one_hot(labels):
    return np.eye(int(labels.max()) + 1)[labels.numpy()]


@pytest.mark.parametrize(("n", "d"), [(60, 5), (30, 50)])
def test_classes_against_dense_evidence(n, d):
    inputs = make_inputs(1, n=n, d=d)
    expected = reference_logme(inputs["features"].numpy(), one_hot(inputs["labels"]))
    assert float(log_maximum_evidence(inputs["features"], inputs["labels"])) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (30, 50)])
def test_targets_against_dense_evidence(n, d):
    inputs = make_inputs(2, n=n, d=d)
    expected = reference_logme(inputs["features"].numpy(), inputs["targets"].numpy())
    assert float(log_maximum_evidence(inputs["features"], inputs["targets"])) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("case", ["wide", "regression_wide"])
def test_exact_where_the_published_fixed_point_is_wrong(case):
    inputs, public = golden_inputs(case), golden_values(case)
    labels = inputs.get("labels", inputs.get("targets"))
    columns = labels.numpy() if labels.is_floating_point() else one_hot(labels)
    value = float(log_maximum_evidence(inputs["features"], labels))
    assert value == pytest.approx(reference_logme(inputs["features"].numpy(), columns), abs=1e-8)
    # the first published form stops at a tolerance of 1e-2: below the maximum, but near
    assert public["logme_icml[thuml/LogME]"] < value < public["logme_icml[thuml/LogME]"] + 1e-3
    assert abs(value - public["logme_fixed_point[thuml/LogME]"]) > 1


def test_small_informative_directions_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(7, (400,), generator=generator)
    features = torch.randn(400, 10, dtype=torch.float64, generator=generator)
    features *= torch.logspace(-3, 2, 10, dtype=torch.float64)
    features[:, 0] += 0.001 * labels
    features += 100
    # dense evidence by singular values of the uncentred features: no squared condition number
    left, singular, _ = np.linalg.svd(features.numpy(), full_matrices=False)
    log_t = np.linspace(-40, 40, 20001)
    kept = np.exp(log_t)[:, None] / (np.exp(log_t)[:, None] + singular**2)
    expected = []
    for column in one_hot(labels).T:
        along = left.T @ column
        fit = column @ column - along @ along + kept @ along**2
        expected.append((0.5 * (np.log(400 / fit) - 1 - np.log(2 * np.pi) + np.log(kept).sum(1) / 400)).max())
    assert float(log_maximum_evidence(features, labels)) == pytest.approx(np.mean(expected), abs=1e-6)


def test_values_on_iris():
    from sklearn.datasets import load_iris

    iris = load_iris()
    value = log_maximum_evidence(torch.tensor(iris.data), torch.tensor(iris.target))
    assert float(value) == pytest.approx(-0.16006022033609904, abs=1e-6)  # printed by transformer-ranker


def test_printed_values_of_official_code():
    inputs = formula_inputs()
    features = inputs["features"]
    assert float(log_maximum_evidence(features, inputs["labels"])) == pytest.approx(-0.2343060241, abs=1e-6)
    targets = torch.stack([features[:, 0] + 0.3 * features[:, 1] ** 2, torch.sin(features[:, 2])], dim=1)
    assert float(log_maximum_evidence(features, targets)) == pytest.approx(-0.2370226398, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(5, 40), d=st.integers(1, 60), classes=st.integers(2, 4), seed=st.integers(0, 99))
def test_never_below_the_evidence_of_no_weights(n, d, classes, seed):
    inputs = make_inputs(seed, n=max(n, classes), d=d, classes=classes)
    columns = one_hot(inputs["labels"])
    n = len(columns)
    nothing = 0.5 * (np.log(n / (columns**2).sum(0)) - 1 - np.log(2 * np.pi))
    assert float(log_maximum_evidence(inputs["features"], inputs["labels"])) >= nothing.mean() - 1e-9


def test_constant_and_zero_features():
    labels = torch.tensor([0, 1, 0, 1])
    zero = float(log_maximum_evidence(torch.zeros(4, 2), labels))
    assert zero == pytest.approx(0.5 * (np.log(2) - 1 - np.log(2 * np.pi)))
    assert float(log_maximum_evidence(torch.ones(4, 2), labels)) >= zero


def test_all_zero_target_column_is_finite():
    inputs = make_inputs(3)
    targets = torch.cat([inputs["targets"], torch.zeros(len(inputs["targets"]), 1)], dim=1)
    assert torch.isfinite(log_maximum_evidence(inputs["features"], targets))


def test_an_exact_fit_has_one_evidence_however_batches_are_cut():
    labels = torch.arange(24) % 3
    features = 2 * torch.eye(3)[labels].double() + 0.1
    value = float(log_maximum_evidence(features, labels))
    for sizes in ([1] * 24, [5, 19]):
        metric = feed(LogME(), {"features": features, "labels": labels}, sizes)
        assert float(metric.compute()) == pytest.approx(value, rel=1e-10)


def test_one_evaluation_off_the_grid_is_as_good_as_a_search(monkeypatch):
    calls = []
    at = _ProfileEvidence.at
    monkeypatch.setattr(_ProfileEvidence, "at", lambda self, log_t: (calls.append(1), at(self, log_t))[1])
    searched = []
    for seed, (n, d, shape) in enumerate(
        [(400, 12, 1.0), (60, 30, 1e-2), (50, 80, 1.0), (300, 5, 1e6), (90, 40, 30.0)]
    ):
        inputs = make_inputs(seed, n=n, d=d)
        features = inputs["features"].double() * torch.logspace(0, 1, d, dtype=torch.float64) * shape + seed * shape
        noise = torch.randint(9, (n,), generator=torch.Generator().manual_seed(seed))  # best without any weights
        for labels in (inputs["labels"], inputs["targets"], inputs["targets"][:, :1] * 1e5, noise):
            calls.clear()
            found = log_maximum_evidence(features, labels)
            searched.append(len(calls) > 1)
            with monkeypatch.context() as always:
                always.setattr(sys.modules[_ProfileEvidence.__module__], "_SURE", -1.0)
                assert float(found) == pytest.approx(
                    float(log_maximum_evidence(features, labels)), rel=1e-12, abs=1e-12
                )
            assert len(calls) > 4
    assert sum(searched) <= 2, searched


def test_evidence_of_integer_columns_is_that_of_targets():
    features, labels = attributes()
    expected = float(log_maximum_evidence(features, labels.double()))
    assert float(log_maximum_evidence(features, labels)) == pytest.approx(expected, rel=1e-13)
    assert float(log_maximum_evidence(features, labels.bool())) == pytest.approx(expected, rel=1e-13)
    with pytest.raises(ValueError, match="zeros and ones"):
        log_maximum_evidence(features, 2 * labels)
