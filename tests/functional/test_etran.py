"""ETran: limits and bad input."""

from __future__ import annotations

import pytest
from _helpers import make_inputs
from _reference.sample_scores import (
    reference_etran_regression,
)

from lightning_transfer.functional.etran import etran, etran_parts
from tests.functional._inputs import data


def test_etran_wants_exactly_one_kind_of_target():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="exactly one"):
        etran(inputs["features"])
    with pytest.raises(ValueError, match="exactly one"):
        etran(inputs["features"], inputs["labels"], targets=inputs["targets"])


@pytest.mark.parametrize("kind", ["plain", "wide", "far from zero"])
def test_etran_of_targets_equals_least_squares(kind):
    x, _ = data(kind)
    targets = make_inputs(seed=7, n=len(x))["targets"]
    expected = reference_etran_regression(x.numpy(), targets.numpy())
    assert float(etran_parts(x, targets=targets)["fit"]) == pytest.approx(expected, rel=1e-6, abs=1e-10)
