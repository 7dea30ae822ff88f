"""RankMe against scipy, and where it ends."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed
from _reference.sample_scores import reference_rankme

from lightning_transfer.functional import rankme
from lightning_transfer.functional.rankme import largest_rank
from lightning_transfer.metrics import RankMe


@pytest.mark.parametrize(("n", "d"), [(80, 6), (20, 50), (40, 40)])
@pytest.mark.parametrize("decay", [0.0, 1.0, 4.0])
def test_equals_the_entropy_of_the_singular_values(n, d, decay):
    generator = torch.Generator().manual_seed(n)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.arange(1.0, d + 1) ** -decay + 0.1
    expected = reference_rankme(features)
    assert float(rankme(features)) == pytest.approx(expected, rel=1e-9)
    assert float(feed(RankMe(), {"features": features}, [7, 5]).compute()) == pytest.approx(expected, rel=1e-9)


def test_ends_of_the_range():
    assert float(rankme(torch.zeros(5, 3))) == 0
    assert float(rankme(torch.ones(5, 3))) == pytest.approx(1, abs=1e-5)
    orthogonal = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double())[0]
    assert float(rankme(orthogonal)) == pytest.approx(largest_rank(40, 40), rel=1e-9)
    assert largest_rank(40, 40) == pytest.approx(40, rel=1e-4)


def test_wrong_features_are_refused():
    metric = feed(RankMe(), {"features": torch.randn(5, 3)})
    with pytest.raises(ValueError, match="`features` to have 3 columns like before, but got 4"):
        metric.update(torch.randn(5, 4))
    with pytest.raises(ValueError, match="no argument `ignore_index`: RankMe reads no labels"):
        RankMe(ignore_index=0)
    for wrong in (
        torch.tensor([[float("nan")]]),
        torch.zeros(3),
        torch.zeros(2, 3, 0),
        torch.zeros(2, 2, dtype=torch.long),
    ):
        with pytest.raises(ValueError, match="`features`"):
            rankme(wrong)
