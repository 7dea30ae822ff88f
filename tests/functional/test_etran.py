"""ETran: limits and bad input."""

from __future__ import annotations

import pytest
import torch
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


@pytest.mark.parametrize(("n", "d", "rank"), [(9, 14, 8), (12, 12, 11), (22, 7, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_features_that_somebody_has_centred_do_not_span_the_constant(n, d, rank, dtype):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, rank, generator=generator).double() @ torch.randn(rank, d, generator=generator).double()
    x = (x - x.mean(0)).to(dtype)
    targets = 3 + torch.randn(n, generator=generator).double()
    axes = torch.linalg.svd(x.double(), full_matrices=False).U[:, :rank]
    expected = -float((targets - axes @ (axes.T @ targets)).square().mean())
    assert expected < -3  # the mean of the targets is left over
    assert float(etran_parts(x, targets=targets)["fit"]) == pytest.approx(expected, rel=1e-5)
