"""Linear MSE, label MSE and the ridge probe against scikit-learn and explicit leave-one-out fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import make_inputs
from _reference.golden import formula_inputs
from _reference.moment_scores import reference_leave_one_out, reference_linear_mse

from lightning_transfer.functional import label_mse, linear_mse, ridge_probe
from lightning_transfer.functional.ridge_probe import fit_ridge_probe


@pytest.mark.parametrize(("n", "d"), [(110, 6), (20, 40)])
@pytest.mark.parametrize("regularization", [0.0, 0.01, 1.0])
def test_linear_mse_against_scikit_learn(n, d, regularization):
    inputs = make_inputs(1, n=n, d=d)
    expected = reference_linear_mse(inputs["features"].numpy(), inputs["targets"].numpy(), regularization)
    value = linear_mse(inputs["features"], inputs["targets"], regularization=regularization)
    assert float(value) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("seed", range(6))
def test_a_penalty_below_rounding_is_none(seed, variant):
    inputs = make_inputs(seed, n=20, d=12)
    features = inputs["features"] @ torch.ones(12, 30, dtype=torch.float64).triu()  # collinear
    plain = linear_mse(features, inputs["targets"], variant=variant)
    tiny = linear_mse(features, inputs["targets"], variant=variant, regularization=1e-300)
    assert float(tiny) == pytest.approx(float(plain), rel=1e-6)


def test_printed_values_of_linear_and_label_mse():
    inputs = formula_inputs()
    features, outputs = inputs["features"], inputs["source_probs"][:, :4]
    targets = torch.stack([features[:, 0] + 0.3 * features[:, 1] ** 2, torch.sin(features[:, 2])], dim=1)
    printed = {
        (linear_mse, 0.0, "paper"): -0.1105602689, (linear_mse, 0.0, "official"): -0.0552801345,
        (linear_mse, 1.0, "paper"): -0.5120912646, (linear_mse, 1.0, "official"): -0.1459467665,
        (label_mse, 0.0, "paper"): -1.1000681118, (label_mse, 1.0, "paper"): -1.3484961012,
    }  # fmt: skip
    for (function, regularization, variant), expected in printed.items():
        value = function(
            features if function is linear_mse else outputs, targets, regularization=regularization, variant=variant
        )
        assert float(value) == pytest.approx(expected, abs=1e-9)


def test_constant_target_costs_nothing():
    features = make_inputs(2)["features"]
    assert float(linear_mse(features, torch.full((len(features),), 1e6, dtype=torch.float64))) == 0


@pytest.mark.parametrize("options", [{"regularization": -1.0}, {"regularization": "1"}, {"variant": "code"}])
def test_bad_options(options):
    inputs = make_inputs(0)
    with pytest.raises(ValueError, match=next(iter(options))):
        linear_mse(inputs["features"], inputs["targets"], **options)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (25, 40)])
def test_ridge_accuracy_against_one_fit_a_sample(n, d):
    inputs = make_inputs(3, n=n, d=d)
    features, labels = inputs["features"].numpy(), inputs["labels"].numpy()
    for regularization in (1e-3, 0.1, 1.0):
        unit = ((features - features.mean(0)) ** 2).sum() / d
        predicted = reference_leave_one_out(features, np.eye(4)[labels], regularization * unit).argmax(1)
        value = ridge_probe(inputs["features"], inputs["labels"], regularization=regularization)
        assert float(value) == pytest.approx((predicted == labels).mean(), abs=1e-12)


def test_ridge_r2_against_one_fit_a_sample():
    inputs = make_inputs(4, n=40, d=6)
    features, targets = inputs["features"].numpy(), inputs["targets"].numpy()
    fitted = fit_ridge_probe(inputs["features"], inputs["targets"])
    unit = ((features - features.mean(0)) ** 2).sum() / 6
    predicted = reference_leave_one_out(features, targets, fitted.strength * unit)
    mean = np.stack([np.delete(targets, i, axis=0).mean(0) for i in range(40)])
    expected = (1 - ((targets - predicted) ** 2).sum(0) / ((targets - mean) ** 2).sum(0)).mean()
    assert float(fitted.score) == pytest.approx(expected, rel=1e-9)


def test_ridge_strength_has_the_smallest_error_left_out():
    inputs = make_inputs(5, n=50, d=30)
    chosen = fit_ridge_probe(inputs["features"], inputs["targets"])
    for strength in (chosen.strength / 10, chosen.strength * 10):
        other = fit_ridge_probe(inputs["features"], inputs["targets"], regularization=strength)
        assert float(other.score) <= float(chosen.score) + 0.02


@pytest.mark.parametrize(("n", "d"), [(40, 39), (20, 40)])
def test_ridge_probe_of_features_far_from_zero(n, d):
    inputs = make_inputs(7, n=n, d=d)
    far = inputs["features"] + 2.0**20
    near = far - 2.0**20  # exact
    expected = float(ridge_probe(near, inputs["targets"], regularization=1e-4))
    assert float(ridge_probe(far, inputs["targets"], regularization=1e-4)) == pytest.approx(expected, rel=1e-11)


def test_ridge_probe_refuses_constant_targets_and_tiny_data():
    features = make_inputs(6)["features"]
    with pytest.raises(ValueError, match="to vary"):
        ridge_probe(features, torch.ones(len(features)))
    with pytest.raises(ValueError, match="at least 3 samples"):
        ridge_probe(features[:2], torch.tensor([0, 1]))
