"""The statement about new samples: never below the mean too often, and not trivial."""

import math

import numpy as np
import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness.population import mean_bound, smoothed


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_the_bound_of_a_mean(confidence):
    rng = np.random.default_rng(0)
    draws = 200
    for sample, mean in (
        (lambda n: rng.integers(0, 2, n) * 1.0, 0.5),
        (lambda n: rng.random(n) ** 8, 1 / 9),
        (lambda n: (rng.random(n) < 0.02) * 1.0, 0.02),
    ):
        covered = sum(mean_bound(torch.from_numpy(sample(80)), 1.0, confidence) >= mean for _ in range(draws))
        assert covered >= confidence * draws - 3 * math.sqrt(confidence * (1 - confidence) * draws)


def test_the_bound_of_a_mean_narrows_and_scales():
    x = torch.from_numpy(np.random.default_rng(0).random(4000))
    widths = [mean_bound(x[:n], 1.0, 0.95) - float(x[:n].mean()) for n in (40, 400, 4000)]
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0
    assert mean_bound(3 * x, 3.0, 0.95) == pytest.approx(3 * mean_bound(x, 1.0, 0.95))
    assert mean_bound(x[:50], 1.0, 0.99) > mean_bound(x[:50], 1.0, 0.9)
    assert mean_bound(torch.ones(5).double(), 1.0, 0.95) == 1


def test_smoothed_predictions_are_probabilities_above_a_floor():
    log_p = torch.tensor([[0.0, -math.inf], [-0.5, math.log(1 - math.exp(-0.5))]]).double()
    prior = torch.tensor([0.25, 0.75]).double().log()
    mixed = smoothed(log_p, prior)
    torch.testing.assert_close(mixed.exp().sum(1), torch.ones(2).double())
    assert float(mixed.min()) == pytest.approx(math.log(0.02 * 0.75))


def draw(generator, n):
    labels = torch.randint(10, (n,), generator=generator)
    corners = 2.2 * torch.nn.functional.one_hot(labels, 10).float()
    return corners + torch.randn(n, 10, generator=generator), labels


def coverage(draws):
    """How often the bound is above the mean loss in a large pool, and how far it is above the held-out loss."""
    generator = torch.Generator().manual_seed(0)
    z, y = draw(generator, 400)
    fit = draw(generator, 300)
    pool = draw(generator, 20_000)
    covered, above = 0, []
    for _ in range(draws):
        x, t = draw(generator, 500)
        result = task_relatedness(
            z[:200], y[:200], *fit, evaluation=(z[200:], y[200:], x, t), ground_cost="loss", confidence=0.95
        )
        truth = -float(result.classifier(pool[0]).gather(1, pool[1][:, None]).mean())
        held_out = -float(result.classifier(x).gather(1, t[:, None]).mean())
        covered += result.population_bound >= truth
        above.append(result.population_bound - held_out)
    return covered, above


def test_population_bound_of_a_classifier_covers_and_is_not_trivial():
    covered, above = coverage(8)
    assert covered >= 6
    assert 0 < max(above) <= 0.3


@pytest.mark.long
def test_population_bound_covers_in_465_of_500_draws():
    covered, above = coverage(500)
    assert covered >= 465
    assert max(above) <= 0.3


def test_two_halves_share_what_may_go_wrong():
    generator = torch.Generator().manual_seed(0)
    z, y = draw(generator, 300)
    x, t = draw(generator, 300)
    result = task_relatedness(z, y, x, t, ground_cost="loss", confidence=0.9)
    assert [part.config.confidence for part in result.folds] == pytest.approx([0.95, 0.95])
    counts = [part.certificate.num_target for part in result.folds]
    mean = sum(n * part.population_bound for n, part in zip(counts, result.folds, strict=True)) / sum(counts)
    assert result.population_bound == pytest.approx(mean)
    assert "loss on new samples at most" in str(result)
    assert task_relatedness(z, y, x, t, ground_cost="loss", folds=1, confidence=0.9).population_bound is None
