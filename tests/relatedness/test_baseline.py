"""Random copies of a reference: the same sizes and spectra, nothing else; and what the difference says."""

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import TaskRelatednessResult
from lightning_transfer.relatedness.baseline import Baseline, random_turn


def test_difference_spread_margin_and_verdict():
    baseline = Baseline(1.0, (2.0, 2.2, 1.8))
    assert baseline.difference == pytest.approx(-1)
    assert baseline.spread == pytest.approx(0.2)
    assert baseline.margin == pytest.approx(0.2 * 4.3026527 * (4 / 3) ** 0.5)  # Student, two degrees of freedom
    assert baseline.decided
    close = Baseline(1.9, (2.0, 2.2, 1.8))
    assert not close.decided
    assert "not decided" in str(close)
    assert not Baseline(1.0, (2.0,)).decided  # one copy says nothing of how far copies differ
    assert not Baseline(2.0, (2.0, 2.0)).decided
    assert not Baseline(2.745e-9, (3.347e-9, 3.311e-9, 3.315e-9)).decided  # bounds that are zero up to rounding


def test_a_turn_keeps_distances_and_the_centre():
    x = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    matrix, offset = random_turn(x.mean(0), 0)
    turned = x @ matrix.T + offset
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(x, x))
    torch.testing.assert_close(turned.mean(0), x.mean(0))
    assert not torch.allclose(turned, x, atol=0.1)
    assert torch.equal(random_turn(x.mean(0), 0)[0], matrix)
    assert not torch.allclose(random_turn(x.mean(0), 1)[0], matrix)


def related(seed=0, n=240, classes=6, width=12):
    generator = torch.Generator().manual_seed(seed)
    y, t = torch.arange(n) % classes, torch.arange(n) % classes
    corners = 0.7 * torch.randn(classes, width, generator=generator)
    draw = lambda labels: corners[labels] + torch.randn(n, width, generator=generator)  # noqa: E731
    return draw(y), y, draw(t), t


def test_a_related_reference_is_below_its_copies_and_a_permuted_one_is_not():
    z, y, x, t = related()
    result = task_relatedness(z, y, x, t, baselines=5)
    assert result.baseline.difference < -0.1
    assert result.baseline.decided
    assert len(result.baseline.copies) == 5
    assert "relatedness: " in str(result)
    again = TaskRelatednessResult.from_state(result.state_dict())
    assert again.baseline == result.baseline
    assert result.to_dict()["baseline"]["bound"] == result.baseline.bound
    generator = torch.Generator().manual_seed(3)
    permuted = task_relatedness(z, y[torch.randperm(len(y), generator=generator)], x, t, baselines=3)
    assert permuted.baseline.difference > result.baseline.difference + 0.1


def test_few_classes_are_told_from_copies_by_more_without_a_map_than_where_any_copy_can_be_turned_to_the_target():
    z, y, x, t = related(n=120, classes=3, width=24)
    options = {"baselines": 3, "rounds": 1}
    turned, plain = (task_relatedness(z, y, x, t, **options, baseline_map=kind) for kind in ("orthogonal", "identity"))
    assert plain.baseline.difference < turned.baseline.difference - 0.1
    assert plain.bound == turned.bound
    assert " without a map, " in str(plain.baseline)
    assert TaskRelatednessResult.from_state(plain.state_dict()).baseline == plain.baseline
    assert Baseline.of(plain.to_dict()["baseline"]) == plain.baseline
    alone = task_relatedness(z, y, x, t, feature_map="identity", rounds=1)
    assert plain.baseline.bound == alone.bound
    with pytest.raises(ValueError, match="`baseline_map`"):
        task_relatedness(z, y, x, t, baseline_map="affine")
