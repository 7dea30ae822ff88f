"""Intervals and chance levels of rank statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lightning_transfer.screening.ranking import evaluate_ranking


def test_null_matches_the_analytic_spread():
    n = 10
    x, y = np.arange(n, dtype=float), np.random.default_rng(0).permutation(n).astype(float)
    table = evaluate_ranking(x, y, statistics=["kendall", "spearman", "pearson"], num_resamples=5000)
    kendall, spearman, pearson = (table.get(name) for name in ("kendall", "spearman", "pearson"))
    assert kendall.null_std == pytest.approx(math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))), rel=0.05)
    assert spearman.null_std == pytest.approx(1 / math.sqrt(n - 1), rel=0.05)
    assert pearson.null_std == pytest.approx(1 / math.sqrt(n - 1), rel=0.05)
    assert abs(kendall.null_mean) < 0.02
    exact = stats.kendalltau(x, y, alternative="greater").pvalue
    assert kendall.p_value == pytest.approx(exact, abs=0.02)


def test_exact_null_for_few_models():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.3, 0.2, 0.4, 0.5]
    entry = evaluate_ranking(x, y, statistics=["kendall"]).get("kendall")
    assert entry.null == "exact"
    assert entry.null_std == pytest.approx(math.sqrt(2 * 15 / (9 * 5 * 4)), abs=1e-12)
    assert entry.p_value == pytest.approx(stats.kendalltau(x, y, alternative="greater").pvalue, abs=1e-12)
    regret = evaluate_ranking(x, y, statistics=["top1_regret"]).get("top1_regret")
    assert regret.value == 0
    assert regret.p_value == pytest.approx(1 / 5)


def test_jackknife_equals_its_definition():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 9))
    entry = evaluate_ranking(x, y, statistics=["kendall"], interval="jackknife").get("kendall")
    left_out = np.array([stats.kendalltau(np.delete(x, i), np.delete(y, i)).statistic for i in range(9)])
    error = math.sqrt(8 / 9 * ((left_out - left_out.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 8) * error
    assert (entry.lower, entry.upper) == pytest.approx((max(-1, entry.value - half), min(1, entry.value + half)))
    np.testing.assert_allclose(entry.leave_one_out, left_out, atol=1e-12)
    assert entry.most_influential == str(np.abs(left_out - entry.value).argmax())


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(4)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    ours = evaluate_ranking(x, y, statistics=["pearson"], num_resamples=4000).get("pearson")
    theirs = stats.bootstrap(
        (x, y), lambda a, b: stats.pearsonr(a, b).statistic, paired=True, vectorized=False, n_resamples=2000,
        method="BCa", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert ours.lower == pytest.approx(theirs.low, abs=0.05)
    assert ours.upper == pytest.approx(theirs.high, abs=0.05)


@pytest.mark.parametrize("interval", ["bootstrap", "jackknife"])
def test_interval_covers_the_population_value(interval):
    rng = np.random.default_rng(5)
    truth, covered, draws = 2 / math.pi * math.asin(0.6), 0, 150
    for _ in range(draws):
        x = rng.normal(size=12)
        y = 0.6 * x + 0.8 * rng.normal(size=12)
        entry = evaluate_ranking(x, y, statistics=["kendall"], interval=interval, num_resamples=300).get("kendall")
        covered += entry.lower <= truth <= entry.upper
    assert 0.88 <= covered / draws <= 1.0
