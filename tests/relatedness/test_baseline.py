"""Random copies of a reference: the same sizes and spectra, nothing else; and what the difference says."""

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import TaskRelatednessResult
from lightning_transfer.relatedness.baseline import Baseline, random_copy


def spectra(features, labels):
    ids, numbers = labels.unique(return_inverse=True)
    means = torch.stack([features[labels == i].mean(0) for i in ids.tolist()])
    within = features - means[numbers]
    between = (means - features.mean(0))[numbers]
    n = len(features)
    return (torch.linalg.eigvalsh(within.T @ within / n), torch.linalg.eigvalsh(between.T @ between / n))


@pytest.mark.parametrize(("classes", "width"), [(2, 5), (4, 5), (7, 3)])
def test_copies_keep_spectra_and_nothing_else(classes, width):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40_000) % classes + 3
    corners = torch.randn(classes + 3, width, generator=generator, dtype=torch.float64)
    scale = torch.linspace(0.3, 2, width, dtype=torch.float64)
    features = 3 * corners[labels] + scale * torch.randn(40_000, width, generator=generator, dtype=torch.float64) + 5
    copy = random_copy(features, labels, 0)
    for mine, theirs in zip(spectra(copy, labels), spectra(features, labels), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.1, atol=0.05)
    assert torch.equal(copy, random_copy(features, labels, 0))
    assert not torch.allclose(copy, random_copy(features, labels, 1))


def test_difference_spread_and_verdict():
    baseline = Baseline(1.0, (2.0, 2.2, 1.8))
    assert baseline.difference == pytest.approx(-1)
    assert baseline.spread == pytest.approx(0.2)
    assert baseline.decided
    close = Baseline(1.9, (2.0, 2.2, 1.8))
    assert not close.decided
    assert "not decided" in str(close)


def related(seed=0, n=240, classes=6, width=12):
    generator = torch.Generator().manual_seed(seed)
    y, t = torch.arange(n) % classes, torch.arange(n) % classes
    corners = 0.7 * torch.randn(classes, width, generator=generator)
    draw = lambda labels: corners[labels] + torch.randn(n, width, generator=generator)  # noqa: E731
    return draw(y), y, draw(t), t


def test_a_related_reference_is_below_its_copies_and_a_permuted_one_is_not():
    z, y, x, t = related()
    result = task_relatedness(z, y, x, t, baselines=3)
    assert result.baseline.difference < -0.1
    assert result.baseline.decided
    assert len(result.baseline.copies) == 3
    assert "relatedness: " in str(result)
    again = TaskRelatednessResult.from_state(result.state_dict())
    assert again.baseline == result.baseline
    assert result.to_dict()["baseline"]["bound"] == result.baseline.bound
    generator = torch.Generator().manual_seed(3)
    permuted = task_relatedness(z, y[torch.randperm(len(y), generator=generator)], x, t, baselines=3)
    assert permuted.baseline.difference > result.baseline.difference + 0.1
