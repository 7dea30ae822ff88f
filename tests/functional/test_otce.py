from __future__ import annotations

import pytest
from _helpers import make_inputs
from _reference.golden import formula_inputs
from _reference.label_scores import reference_otce

from lightning_transfer.functional import negative_conditional_entropy, otce


def halves(n=60, seed=0):
    inputs = make_inputs(seed, n=n)
    features, source_labels, labels = inputs["features"], inputs["source_labels"], inputs["labels"]
    cut = n // 2 + 3
    return features[:cut], source_labels[:cut], features[cut:], labels[cut:]


def test_values_of_the_formula_set():
    inputs = formula_inputs()
    x, y = inputs["features"], inputs["labels"]
    sets = (x[:30], y[:30], x[30:], y[30:])
    assert float(otce(*sets)) == pytest.approx(-0.4297326021, abs=1e-10)
    assert float(otce(*sets, weights=(1.0, 0.0, 0.0))) == pytest.approx(1.6914708925, abs=1e-10)
    combined = otce(*sets, weights=(-2.0, -3.0, 0.5))
    assert float(combined) == pytest.approx(-2 * 1.6914708925 - 3 * 0.4297326021 + 0.5, abs=1e-9)


@pytest.mark.parametrize("label_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_linear_programming(label_weight, seed):
    sets = halves(40, seed)
    distance, entropy = reference_otce(*(part.numpy() for part in sets), label_weight)
    assert float(otce(*sets, label_weight=label_weight, weights=(1, 0, 0))) == pytest.approx(distance, rel=1e-9)
    if label_weight < 1:  # with the classes alone the plan is not unique
        assert float(otce(*sets, label_weight=label_weight)) == pytest.approx(-entropy, abs=1e-9)


def test_a_set_transported_to_itself_gives_nce():
    inputs = make_inputs()
    value = otce(inputs["features"], inputs["source_labels"], inputs["features"], inputs["labels"])
    expected = negative_conditional_entropy(inputs["source_labels"], inputs["labels"])
    assert float(value) == pytest.approx(float(expected), abs=1e-10)


def test_far_from_zero_costs_no_digits():
    source, source_labels, target, labels = halves()
    near = otce(source, source_labels, target, labels, weights=(1, 0, 0))
    far = otce(source + 1e4, source_labels, target + 1e4, labels, weights=(1, 0, 0))
    assert float(far) == pytest.approx(float(near), rel=1e-6)


def test_an_unfinished_plan_is_refused(monkeypatch):
    import ot

    original = ot.emd
    monkeypatch.setattr(ot, "emd", lambda *args, numItermax, log: original(*args, numItermax=2, log=log))
    with pytest.raises(RuntimeError, match="did not reach the optimum"):
        otce(*halves())


def test_bad_input_is_refused():
    source, source_labels, target, labels = halves()
    with pytest.raises(ValueError, match="`features` to be as wide as `reference_features`"):
        otce(source, source_labels, target[:, :3], labels)
    with pytest.raises(ValueError, match="`reference_labels`"):
        otce(source, source_labels[:-1], target, labels)
    with pytest.raises(ValueError, match="`reference_features`"):
        otce(source * float("nan"), source_labels, target, labels)
    with pytest.raises(ValueError, match="`label_weight`"):
        otce(source, source_labels, target, labels, label_weight=2.0)
    with pytest.raises(ValueError, match="`weights` to be three finite numbers"):
        otce(source, source_labels, target, labels, weights=(1.0, 2.0))
