"""Features below full rank that came in single precision: their rounding is no variation, in functions and Metrics."""

import pytest
import torch

from lightning_transfer import functional
from lightning_transfer.metrics import EMMS, HScore, LinearMSE

SIZES = [(60, 512), (60, 40), (1500, 48)]  # the last one is more than waits as samples in a Metric
SCORES = ["h_score", "linear_mse", "emms", "ncti", "gbc", "ridge_probe", "logme", "lfc", "sfda", "etran"]


def low_rank(n, d, offset=0.0):
    generator = torch.Generator().manual_seed(n + d)
    left, right = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((n, 5), (5, d)))
    targets = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return left @ right + offset, torch.arange(n) % 5, targets


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCORES)
def test_functions(name, size):
    features, labels, targets = low_rank(*size)
    answers = targets if name == "linear_mse" else labels
    expected = getattr(functional, name)(features, answers)
    torch.testing.assert_close(getattr(functional, name)(features.float(), answers), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("metric", "name"), [(HScore, "h_score"), (LinearMSE, "linear_mse"), (EMMS, "emms")])
def test_metrics_in_batches_and_merged(metric, name, size, offset):
    features, labels, targets = low_rank(*size, offset)
    answers = targets if name == "linear_mse" else labels
    expected = getattr(functional, name)(features, answers)
    parts = [metric(), metric()]
    for i, batch in enumerate(zip(features.float().split(37), answers.split(37), strict=True)):
        parts[i % 2].update(*batch)
    parts[0].merge_state(parts[1])
    torch.testing.assert_close(parts[0].compute(), expected, rtol=2e-3, atol=1e-6)


def test_what_is_small_and_no_rounding_counts():
    """Features far smaller than the others keep their share, in single precision too."""
    features, labels, _ = low_rank(60, 12)
    features = torch.cat([features, 1e-9 * torch.eye(5, dtype=torch.float64)[labels]], dim=1)
    assert functional.h_score(features.float(), labels) == pytest.approx(4.0)
