"""Rank correlations of many rows at once."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_transfer.screening import rank_kernels, ranking
from tests.screening._tables import SCIPY, SCORES, TABLES

KERNELS = {
    "pearson": rank_kernels.pearson_rows,
    "spearman": rank_kernels.spearman_rows,
    "kendall": rank_kernels.kendall_rows,
    "weighted_kendall": rank_kernels.weighted_kendall_rows,
}


def test_model_spider_uses_another_weighted_tau():
    """Its README follows from rank=None in 69 of 72 cells (the rest: rounding on Aircraft); ours is rank=True."""
    printed = pd.read_csv(TABLES / "model_spider_published_tau.csv").set_index("estimator")
    scores = pd.read_csv(TABLES / "model_spider_scores.csv")
    aliases = {"Cars": "StanfordCars", "Pet": "OxfordIIITPets"}
    follows, ours_differs = 0, 0
    for dataset, estimator in itertools.product(printed.columns, printed.index):
        accuracies = SCORES[SCORES.dataset == aliases.get(dataset, dataset)].finetune_accuracy.to_numpy()
        column = scores[scores.Dataset == dataset][estimator].to_numpy()
        other_convention = stats.weightedtau(accuracies, column, rank=None).statistic
        follows += abs(other_convention - printed.loc[estimator, dataset]) < 1e-3
        ours_differs += abs(ranking.weighted_kendall(column, accuracies) - printed.loc[estimator, dataset]) > 0.02
    assert follows == 69
    assert ours_differs == 51


def test_weighted_kendall_is_rank_true_and_symmetric():
    table = SCORES[SCORES.dataset == "Aircraft"]
    x, y = table.h_score.to_numpy(), table.finetune_accuracy.to_numpy()
    assert ranking.weighted_kendall(x, y) == pytest.approx(0.342907, abs=1e-6)
    assert ranking.weighted_kendall(x, y) == pytest.approx(ranking.weighted_kendall(y, x), abs=1e-12)
    assert stats.weightedtau(y, x, rank=None).statistic == pytest.approx(0.328245, abs=1e-6)
    assert stats.weightedtau(x, y, rank=None).statistic == pytest.approx(0.357570, abs=1e-6)


rows = st.integers(3, 9).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 5), min_size=n, max_size=n).filter(lambda v: len(set(v)) > 1)] * 2)
)


@pytest.mark.parametrize("name", SCIPY)
@settings(deadline=None, max_examples=25)
@given(rows)
def test_kernels_equal_scipy_with_ties(name, pair):
    x, y = np.array(pair, dtype=float)
    assert KERNELS[name](x[None], y[None])[0] == pytest.approx(SCIPY[name](x, y), abs=1e-12)
    assert getattr(ranking, name)(x, y) == pytest.approx(SCIPY[name](x, y), abs=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_give_nan_for_constant_rows_and_chunks_agree(name, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 5))
    x[3] = 0.1 + 0.2
    whole = KERNELS[name](x, y)
    assert np.isnan(whole[3])
    assert np.isfinite(np.delete(whole, 3)).all()
    monkeypatch.setattr(rank_kernels, "_PAIRS_AT_ONCE", 1)
    np.testing.assert_array_equal(KERNELS[name](x, y), whole)


@settings(deadline=None, max_examples=25)
@given(rows, st.integers(1, 3))
def test_top_k_statistics_equal_a_plain_computation(pair, k):
    x, y = np.array(pair, dtype=float)
    # the worst order that the ties allow
    order = sorted(range(len(x)), key=lambda i: (-x[i], y[i]))
    picked = y[order[:k]]
    assert ranking.rel_at_k(x, y, k) == pytest.approx(picked.max() / y.max())
    assert ranking.top1_regret(x, y) == pytest.approx(y.max() - y[order[0]])
    threshold = sorted(y)[-k]
    assert ranking.recall_at_k(x, y, k) == pytest.approx(min(k, sum(picked >= threshold)) / k)
    assert ranking.recall_at_k(x, y, k, best=1) == float(picked.max() == y.max())
