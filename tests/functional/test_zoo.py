"""Scores that are scaled over a zoo of models."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_transfer.functional.etran import combine_etran
from lightning_transfer.functional.ncti import combine_ncti

ZOO = [
    {"seli": 10.0, "ncc": 0.9, "variability": 2.0, "energy": 5.0, "fit": 0.7},
    {"seli": 30.0, "ncc": 0.5, "variability": 1.0, "energy": 9.0, "fit": 0.5},
    {"seli": 20.0, "ncc": 0.7, "variability": 4.0, "energy": 1.0, "fit": 0.9},
]


def test_combined_scores_are_min_max_scaled_over_the_zoo():
    expected = torch.tensor([1 + 0 - 1 / 3, 0 + 1 - 0, 0.5 + 0.5 - 1])
    torch.testing.assert_close(combine_ncti(ZOO), expected.double())
    expected = torch.tensor([0.15 * 0.5 + 0.85 * 0.5, 0.15, 0.85])
    torch.testing.assert_close(combine_etran(ZOO), expected.double())
    torch.testing.assert_close(combine_etran(ZOO, energy_weight=1.0), torch.tensor([0.5, 1.0, 0.0]).double())
    tensors = [{name: torch.tensor(value) for name, value in parts.items()} for parts in ZOO]
    torch.testing.assert_close(combine_ncti(tensors), combine_ncti(ZOO))


@pytest.mark.parametrize("combine", [combine_ncti, combine_etran])
def test_combination_of_one_model_of_ties_and_of_bad_parts(combine):
    assert combine(ZOO[:1]).tolist() == [0.5]
    assert combine([ZOO[0], ZOO[0]]).tolist() == [0.5, 0.5]
    order = combine([ZOO[0], ZOO[1], ZOO[2]])
    torch.testing.assert_close(combine([ZOO[2], ZOO[0], ZOO[1]]), order[[2, 0, 1]])
    with pytest.raises(ValueError, match="at least one model"):
        combine([])
    with pytest.raises(ValueError, match=r"lacks at \[1\]"):
        combine([ZOO[0], {}])
    with pytest.raises(ValueError, match="finite"):
        combine([ZOO[0], dict.fromkeys(ZOO[0], math.nan)])
