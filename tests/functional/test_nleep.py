from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from _helpers import make_inputs
from _reference.golden import formula_inputs, golden_inputs
from _reference.label_scores import reference_nleep

from lightning_transfer.functional import nleep, task_hardness
from lightning_transfer.functional.nleep import responsibilities


@pytest.mark.parametrize("covariance", ["full", "diag", "spherical"])
def test_equals_scikit_learn(covariance):
    inputs = golden_inputs("gaussian")
    value = nleep(inputs["features"], inputs["labels"], covariance=covariance)
    expected = reference_nleep(inputs["features"], inputs["labels"], covariance=covariance)
    assert float(value) == pytest.approx(expected, abs=1e-8)


def test_seed_decides_and_numpy_is_left_alone():
    inputs = golden_inputs("imbalanced")
    state = np.random.get_state()[1].copy()
    values = [float(nleep(inputs["features"], inputs["labels"], seed=seed)) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert (np.random.get_state()[1] == state).all()


def test_separated_classes_reach_zero():
    labels = torch.arange(120) % 3
    generator = torch.Generator().manual_seed(0)
    features = torch.eye(3)[labels] * 50 + torch.randn(120, 3, generator=generator)
    assert float(nleep(features, labels, variance=1.0)) == pytest.approx(0, abs=1e-6)


def test_noise_stays_near_the_floor():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2000) % 2
    features = torch.randn(2000, 4, generator=generator)
    value = float(nleep(features, labels, components_per_class=1, variance=1.0))
    assert -float(task_hardness(labels)) <= value < -0.6


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e8, 1e70])
def test_scale_of_the_features_does_not_matter(scale):
    inputs = golden_inputs("gaussian")
    expected = float(nleep(inputs["features"], inputs["labels"]))
    assert float(nleep(scale * inputs["features"], inputs["labels"])) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 9, 21])
def test_components_never_outnumber_samples(n):
    inputs = make_inputs(n=110)
    found = responsibilities(inputs["features"][:n], torch.arange(n) % 2)
    assert found.probs.shape[0] == n
    assert found.probs.shape[1] < n
    assert found.probs.shape[1] <= 10


@pytest.mark.filterwarnings("error")
def test_constant_features_say_nothing():
    labels = torch.arange(30) % 3
    value = nleep(torch.ones(30, 4), labels)
    assert float(value) == pytest.approx(-float(task_hardness(labels)), abs=1e-9)


def test_more_features_than_samples():
    inputs = golden_inputs("wide")
    value = float(nleep(inputs["features"], inputs["labels"]))
    assert -float(task_hardness(inputs["labels"])) <= value <= 0


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_a_fit_that_stops_early_is_told(monkeypatch, covariance):
    import sklearn.mixture

    hasty = functools.partial(sklearn.mixture.GaussianMixture, max_iter=1, tol=0)
    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", hasty)
    monkeypatch.setattr("lightning_transfer.functional._mixture._MOST_STEPS", 1)
    inputs = formula_inputs()
    with pytest.warns(UserWarning, match="did not converge"):
        nleep(inputs["features"], inputs["labels"], covariance=covariance)


@pytest.mark.parametrize(
    ("option", "value"),
    [("variance", 0), ("variance", 1.5), ("components_per_class", 0), ("covariance", "tied"), ("seed", -1)],
)
def test_options_are_checked(option, value):
    inputs = make_inputs()
    with pytest.raises(ValueError, match=f"`{option}`"):
        nleep(inputs["features"], inputs["labels"], **{option: value})
