"""OTCE as a Metric."""

from __future__ import annotations

import pickle

import pytest
from _helpers import feed, make_inputs

from lightning_transfer.functional import otce
from lightning_transfer.metrics import (
    OTCE,
)


def test_source_of_otce_is_set_later_and_survives_reset():
    inputs = make_inputs()
    source = make_inputs(seed=3)
    source = source["features"], source["source_labels"]
    metric = OTCE()
    inputs = {name: inputs[name] for name in OTCE.requires}
    feed(metric, inputs)
    with pytest.raises(ValueError, match="`set_reference` to be called"):
        metric.compute()
    metric.set_reference(*source)
    expected = float(otce(*source, **inputs))
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-10)
    for copy in (metric, metric.clone(), pickle.loads(pickle.dumps(metric))):
        copy.reset()
        assert float(feed(copy, inputs, [50]).compute()) == pytest.approx(expected, abs=1e-10)


def test_another_source_gives_another_value():
    inputs = make_inputs()
    target = {name: inputs[name] for name in OTCE.requires}
    metric = feed(OTCE(inputs["features"], inputs["source_labels"]), target)
    same = float(metric.compute())
    metric.set_reference(inputs["features"] + 2, inputs["labels"])
    assert float(metric.compute()) == pytest.approx(float(otce(inputs["features"] + 2, inputs["labels"], **target)))
    assert float(metric.compute()) != same


def test_bad_sources_are_refused():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="together"):
        OTCE(inputs["features"])
    with pytest.raises(ValueError, match="`reference_labels`"):
        OTCE(inputs["features"], inputs["labels"][:-1])
    metric = feed(OTCE(), {name: inputs[name] for name in OTCE.requires})
    with pytest.raises(ValueError, match="`reference_features` to have 6 columns"):
        metric.set_reference(inputs["features"][:, :4], inputs["labels"])
    with pytest.raises(ValueError, match="`weights`"):
        OTCE(weights=(1.0, float("nan"), 0.0))
