"""Intervals that leave out groups of samples: their arithmetic, and how often they hold the value of all data."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from _helpers import feed, make_inputs, rows
from scipy.stats import t
from sklearn.datasets import load_digits

from lightning_transfer.functional import gbc, leep, transrate
from lightning_transfer.metrics import GBC, LEEP, NCE, NLEEP, HScore, LogME, TransRate
from lightning_transfer.metrics.jackknife import jackknife_interval


def test_of_a_mean_it_is_the_interval_of_a_mean():
    values = torch.tensor([1.0, 4.0, 2.0, 7.0, 6.0], dtype=torch.float64)
    without = [(values.sum() - value) / 4 for value in values]
    interval = jackknife_interval(float(values.mean()), without, 0.9)
    error = float(values.std()) / math.sqrt(5)
    assert interval.standard_error == pytest.approx(error)
    assert interval.bias == pytest.approx(0, abs=1e-12)
    assert interval.upper - interval.value == pytest.approx(t.ppf(0.95, 4) * error)
    assert (interval.level, interval.method) == (0.9, "jackknife")


def test_the_bias_of_a_variance_is_found():
    values = torch.tensor([1.0, 4.0, 2.0, 7.0, 6.0], dtype=torch.float64)
    variance = partial(torch.var, unbiased=False)
    without = [variance(values[torch.arange(5) != left]) for left in range(5)]
    interval = jackknife_interval(float(variance(values)), without, 0.95)
    assert interval.value - interval.bias == pytest.approx(float(values.var()))


def test_too_few_groups_are_refused():
    inputs = make_inputs()
    metric = feed(HScore(), {name: inputs[name] for name in HScore.requires})
    with pytest.raises(ValueError, match="`jackknife_groups` to be at least 2 for an interval, but got 1"):
        metric.compute_with_interval()


def digits():
    return tuple(torch.from_numpy(values) for values in load_digits(return_X_y=True))


def probabilities():
    """Digits as probabilities of ten source classes by a fixed random head."""
    pixels, labels = digits()
    head = torch.randn(64, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"source_probs": (pixels / 16 @ head).softmax(1), "labels": labels}


def projections():
    """Two digits in four dimensions."""
    pixels, labels = digits()
    head = torch.randn(64, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {"features": (pixels / 16 @ head)[labels < 2], "labels": labels[labels < 2]}


@pytest.mark.parametrize(
    ("metric", "function", "population", "n"),
    [(LEEP, leep, probabilities, 250), (TransRate, transrate, projections, 60), (GBC, gbc, projections, 60)],
    ids=["leep", "transrate", "gbc"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_intervals_of_biased_scores_hold_the_score_of_all_data(metric, function, population, n):
    everything = population()
    truth, generator = float(function(**everything)), torch.Generator().manual_seed(0)
    held = 0
    for _ in range(60):
        drawn = rows(everything, torch.randint(len(everything["labels"]), (n,), generator=generator))
        interval = feed(metric(), drawn).compute_with_interval(level=0.95)
        held += interval.lower <= truth <= interval.upper
    assert held >= 55  # 0.92


@pytest.mark.parametrize("batches", [None, [50, 7, 1000]])
def test_the_order_of_classes_hardly_matters(batches):
    generator, order = torch.Generator().manual_seed(0), torch.arange(2000)
    labels = order % 4  # as many jackknife groups are a multiple of
    features = torch.randn(2000, 3, generator=generator) + labels[:, None]
    shuffled = torch.randperm(2000, generator=generator)
    inputs = {"features": features, "labels": labels, "source_labels": (features[:, 0] > 1).long()}
    for metric in (LogME(jackknife_groups=16), HScore(jackknife_groups=16), NCE(jackknife_groups=16)):
        of = {name: inputs[name] for name in metric.requires}
        kept = feed(metric.clone(), of, batches).compute_with_interval().standard_error
        mixed = feed(metric.clone(), rows(of, shuffled)).compute_with_interval().standard_error
        assert kept == pytest.approx(mixed, rel=0.5)


def test_a_class_that_a_group_takes_with_it_is_said():
    probs = torch.tensor([[0.9, 0.1]] * 5 + [[0.2, 0.8]])
    metric = feed(LEEP(), {"source_probs": probs, "labels": torch.tensor([0] * 5 + [1])})
    with pytest.raises(RuntimeError, match="without a group of samples"):
        metric.compute_with_interval()
    assert feed(NLEEP(components_per_class=1), {"features": torch.randn(40, 2), "labels": torch.arange(40) % 2})
