from __future__ import annotations

import pytest
import torch
from _reference.golden import formula_inputs
from scipy.special import logsumexp

from lightning_transfer.functional import energy_score


def test_value_of_the_formula_set():
    assert float(energy_score(formula_inputs()["features"])) == pytest.approx(2.5512646701, abs=1e-10)


@pytest.mark.parametrize(("fraction", "count"), [(0.005, 1), (0.3, 18), (1.0, 60)])
def test_lowest_fraction(fraction, count):
    features = formula_inputs()["features"]
    energies = sorted(logsumexp(features.numpy(), axis=1))
    expected = sum(energies[:count]) / count
    assert float(energy_score(features, lowest_fraction=fraction)) == pytest.approx(expected, abs=1e-12)


def test_large_outputs_do_not_overflow():
    assert float(energy_score(torch.full((2, 3), 5e4))) == pytest.approx(5e4 + 1.0986123, rel=1e-9)


@pytest.mark.parametrize("fraction", [0, -1.0, 1.5, None])
def test_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match="`lowest_fraction`"):
        energy_score(torch.zeros(2, 3), lowest_fraction=fraction)
