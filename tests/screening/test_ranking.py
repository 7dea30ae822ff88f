"""Ranking statistics against SciPy, chance, and the published tables."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lightning_transfer.screening import rank_kernels, ranking
from lightning_transfer.screening.ranking import ablate_largest, evaluate_over_targets, evaluate_ranking

TABLES = Path(__file__).parent.parent / "_fixtures" / "public_tables"
SCORES = pd.read_csv(TABLES / "thuml_scores_and_accuracy.csv")
PUBLISHED = pd.read_csv(TABLES / "thuml_published_correlations.csv").melt(
    ["dataset", "statistic"], var_name="estimator", value_name="printed"
)
FUNCTIONS = {"Pearson Corr": ranking.pearson, "Weighted Tau": ranking.weighted_kendall}

# printed values that do not follow from the printed scores and accuracies
MISMATCHES = {
    (dataset, statistic, estimator)
    for dataset in ("Aircraft", "OxfordIIITPets")
    for statistic in FUNCTIONS
    for estimator in ("h_score", "leep", "logme", "nce")
} | {
    ("DTD", "Pearson Corr", "nce"),
    ("DTD", "Weighted Tau", "nce"),
    ("Caltech101", "Weighted Tau", "logme"),
}

# TransRate repository, CIFAR-100, 13 models: accuracies and NCE
TRANSRATE_ACCURACIES = [
    0.8158, 0.8391, 0.8405, 0.69, 0.7512, 0.7865, 0.8083, 0.8269, 0.8418,
    0.8435, 0.8375, 0.67, 0.7811,
]  # fmt: skip
TRANSRATE_NCE = [
    -2.7121, -2.515, -2.5163, -3.0111, -2.791, -2.7456, -2.6407, -2.5036, -2.4182,
    -2.3052, -2.6147, -2.7423, -2.6433,
]  # fmt: skip

SCIPY = {
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "kendall": lambda x, y: stats.kendalltau(x, y).statistic,
    "weighted_kendall": lambda x, y: stats.weightedtau(x, y, rank=True).statistic,
}
KERNELS = {
    "pearson": rank_kernels.pearson_rows,
    "spearman": rank_kernels.spearman_rows,
    "kendall": rank_kernels.kendall_rows,
    "weighted_kendall": rank_kernels.weighted_kendall_rows,
}


@pytest.mark.parametrize("row", list(PUBLISHED.itertuples()), ids=lambda r: f"{r.dataset}-{r.statistic}-{r.estimator}")
def test_published_correlations_recompute_where_the_table_supports_them(row):
    table = SCORES[SCORES.dataset == row.dataset]
    value = FUNCTIONS[row.statistic](table[row.estimator], table.finetune_accuracy)
    follows = abs(value - row.printed) <= 0.02
    assert follows == ((row.dataset, row.statistic, row.estimator) not in MISMATCHES)


def test_forty_five_of_sixty_four_values_follow():
    assert len(PUBLISHED) == 64
    assert len(MISMATCHES) == 19


def test_transrate_fixture_to_the_printed_digits():
    printed = {
        "pearson": 0.7937116563,
        "spearman": 0.8956043956,
        "kendall": 0.7435897436,
        "weighted_kendall": 0.8315470368,
    }
    table = evaluate_ranking(TRANSRATE_NCE, TRANSRATE_ACCURACIES, statistics=list(printed), num_resamples=100)
    for name, value in printed.items():
        assert getattr(ranking, name)(TRANSRATE_NCE, TRANSRATE_ACCURACIES) == pytest.approx(value, abs=5e-11)
        assert table.get(name).value == pytest.approx(value, abs=5e-11)


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


def test_perfect_and_reversed_scores():
    accuracies = np.array([0.5, 0.6, 0.7, 0.9])
    for name in SCIPY:
        assert getattr(ranking, name)(accuracies, accuracies) == pytest.approx(1)
        assert getattr(ranking, name)(-accuracies, accuracies) == pytest.approx(-1)
        assert getattr(ranking, name)(-accuracies, accuracies, higher_is_better=False) == pytest.approx(1)
    assert ranking.rel_at_k(accuracies, accuracies) == 1
    assert ranking.recall_at_k(-accuracies, accuracies, k=2) == 0
    assert ranking.top1_regret(-accuracies, accuracies) == pytest.approx(0.4)
    assert ranking.top1_regret(-accuracies, accuracies, higher_is_better=False) == 0


def test_lower_is_better_scores_are_turned():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=8), rng.random(8)
    ours = evaluate_ranking({"bound": -x}, y, higher_is_better={"bound": False}, num_resamples=200)
    assert (
        ours.to_pandas()
        .drop(columns="estimator")
        .equals(evaluate_ranking(x, y, num_resamples=200).to_pandas().drop(columns="estimator"))
    )


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


def test_seed_alone_decides_and_global_state_is_untouched():
    x, y = np.random.default_rng(6).normal(size=(2, 10))
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, again, other = (evaluate_ranking(x, y, statistics=["pearson"], seed=s, num_resamples=300) for s in (1, 1, 2))
    assert first == again
    assert first.get("pearson").lower != other.get("pearson").lower
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_static_baseline_is_compared_on_the_same_models():
    y = np.arange(10, dtype=float)
    sizes = np.array([3, 1, 2, 5, 4, 9, 7, 8, 10, 6], dtype=float)
    noise = np.random.default_rng(0).normal(size=10)
    table = evaluate_ranking(
        {"perfect": y, "noise": noise, "same": sizes}, y, parameters=sizes, statistics=["kendall", "top1_regret"]
    )
    baseline = table.get("kendall", "parameters")
    assert baseline.baseline is None
    assert baseline.value == pytest.approx(stats.kendalltau(sizes, y).statistic)
    perfect, noisy, same = (table.get("kendall", name).baseline for name in ("perfect", "noise", "same"))
    assert perfect.value == baseline.value
    assert perfect.advantage == pytest.approx(1 - baseline.value)
    assert perfect.lower > 0
    assert noisy.advantage < 0
    assert (same.advantage, same.lower, same.upper) == (0, 0, 0)
    regret = table.get("top1_regret", "perfect").baseline
    assert regret.advantage == regret.value == 1.0  # less regret is a positive advantage


def test_leave_one_out_names_the_model_that_carries_the_correlation():
    x = np.array([0.0, 0.1, -0.1, 0.05, 10.0])
    y = np.array([0.1, 0.0, 0.05, -0.1, 10.0])
    entry = evaluate_ranking(x, y, models=list("abcde"), statistics=["pearson"]).get("pearson")
    assert entry.value > 0.99
    assert entry.most_influential == "e"
    assert entry.leave_one_out[4] < 0.1
    row = evaluate_ranking(x, y, statistics=["pearson"]).to_pandas().iloc[0]
    assert row.leave_one_out_lowest == min(entry.leave_one_out)


def test_leave_one_out_of_a_single_odd_score_is_undefined_not_nan():
    entry = evaluate_ranking([1, 1, 1, 2], [1, 2, 3, 4], statistics=["pearson"]).get("pearson")
    assert entry.leave_one_out[3] is None
    assert entry.undefined_resamples > 0
    assert all(math.isfinite(v) for v in (entry.lower, entry.upper, entry.null_std, entry.p_value))


def test_ablation_of_the_largest_models():
    sizes = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 6.0])
    scores = {"size": sizes, "good": [4.0, 1.0, 3.0, 2.0, 5.0, 6.0]}
    accuracies = np.array([4.0, 1.0, 3.0, 2.0, 5.0, 6.0])
    tables = ablate_largest(scores, accuracies, sizes, statistics=["kendall"], num_resamples=100)
    assert list(tables) == [0, 1, 2]
    assert [table.get("kendall", "good").num_models for table in tables.values()] == [6, 5, 4]
    assert tables[1].models == ("0", "1", "2", "3", "4")
    assert tables[1].get("kendall", "parameters").value == pytest.approx(
        stats.kendalltau(sizes[:5], accuracies[:5]).statistic
    )
    assert tables[2].get("kendall", "good").value == pytest.approx(1)


def test_mean_over_targets_shares_the_models():
    targets = ["CIFAR10", "CIFAR100", "SUN397"]
    tables = {t: SCORES[SCORES.dataset == t].reset_index(drop=True) for t in targets}
    scores = {t: table[["logme", "h_score"]] for t, table in tables.items()}
    accuracies = {t: table.finetune_accuracy for t, table in tables.items()}
    sizes = np.arange(10.0)
    options = {"parameters": sizes, "statistics": ["weighted_kendall", "top1_regret"], "num_resamples": 500}
    pooled = evaluate_over_targets(scores, accuracies, models=list(tables["CIFAR10"].model), **options)
    single = {t: evaluate_ranking(scores[t], accuracies[t], **options) for t in targets}
    for estimator, name in itertools.product(["logme", "h_score", "parameters"], options["statistics"]):
        entry = pooled.get(name, estimator)
        entries = [single[t].get(name, estimator) for t in targets]
        assert entry.value == pytest.approx(np.mean([e.value for e in entries]), abs=1e-12)
        assert entry.null_mean == pytest.approx(np.mean([e.null_mean for e in entries]), abs=1e-12)
        np.testing.assert_allclose(entry.leave_one_out, np.mean([e.leave_one_out for e in entries], axis=0), atol=1e-12)
        if estimator != "parameters":
            assert entry.baseline.advantage == pytest.approx(
                np.mean([e.baseline.advantage for e in entries]), abs=1e-12
            )
    one = evaluate_over_targets({"SUN397": scores["SUN397"]}, {"SUN397": accuracies["SUN397"]}, **options)
    assert one.to_pandas().equals(single["SUN397"].to_pandas())


def test_mean_over_targets_refuses():
    x, y = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="same targets"):
        evaluate_over_targets({"a": x}, {"b": y})
    with pytest.raises(ValueError, match="same models and estimators"):
        evaluate_over_targets({"a": x, "b": {"other": x}}, {"a": y, "b": y})
    with pytest.raises(ValueError, match="scores of 'score' for 'b' to be finite"):
        evaluate_over_targets({"a": x, "b": [1.0, 2.0, 3.0, None]}, {"a": y, "b": y})
    with pytest.raises(ValueError, match="4 entries"):
        evaluate_over_targets({"a": x, "b": x[:3]}, {"a": y, "b": y[:3]})


def test_missing_scores():
    scores = {"leep": [0.1, None, 0.3, 0.4, 0.2], "logme": [1.0, 2.0, 3.0, 4.0, 5.0]}
    accuracies = [0.5, 0.6, 0.7, 0.8, float("nan")]
    with pytest.raises(ValueError, match="scores of 'leep' to be finite, but got 1 NaN"):
        evaluate_ranking(scores, accuracies)
    table = evaluate_ranking(scores, accuracies, models=list("abcde"), nan_policy="omit", statistics=["kendall"])
    assert table.omitted == {"leep": ("b", "e"), "logme": ("e",)}
    assert table.get("kendall", "leep").num_models == 3
    assert table.get("kendall", "leep").leave_one_out == ()
    assert table.get("kendall", "leep").null == "exact"
    with pytest.raises(ValueError, match="at least 3 models, but got 2"):
        evaluate_ranking([1.0, 2.0, None], [1.0, 2.0, 3.0], nan_policy="omit", statistics=["kendall"])
    with pytest.raises(ValueError, match="finite"):
        evaluate_ranking([1.0, 2.0, 3.0, math.inf], [1.0, 2.0, 3.0, 4.0], nan_policy="omit", statistics=["kendall"])


def test_inputs_of_any_kind_and_the_table():
    x, y = [1.0, 3.0, 2.0, 4.0], [0.1, 0.3, 0.2, 0.5]
    tensor = torch.tensor(x, dtype=torch.bfloat16, requires_grad=True)
    assert ranking.kendall(tensor, torch.tensor(y)) == ranking.kendall(np.array(x), pd.Series(y)) == 1
    table = evaluate_ranking(pd.DataFrame({"a": x, "b": y}), y, parameters=[1, 2, 3, 4], num_resamples=100)
    frame = table.to_pandas()
    assert len(frame) == 3 * 8
    assert {"estimator", "name", "value", "lower", "upper", "null_std", "p_value", "baseline_advantage"} <= set(frame)
    assert frame[frame.estimator != "parameters"].notna().all().all()
    assert "weighted_kendall" in str(table)
    with pytest.raises(KeyError, match="3 entries for 'kendall'"):
        table.get("kendall")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scores": [1.0, 2.0]}, "4 entries, but got 2"),
        ({"scores": [1.0, 1.0, 1.0, 1.0]}, "to differ between models"),
        ({"accuracies": [1.0, 1.0, 1.0, 1.0]}, "to differ between models"),
        ({"scores": ["a", "b", "c", "d"]}, "to be numbers"),
        ({"scores": [[1.0, 2.0]]}, "one number a model"),
        ({"scores": {}}, "at least one estimator"),
        ({"statistics": ["kendall", "tau"]}, "but got 'tau'"),
        ({"statistics": ["rel_at_0"]}, "but got 'rel_at_0'"),
        ({"statistics": ["rel_at_5"]}, "at most 4 models"),
        ({"accuracies": [-1.0, 2.0, 3.0, 4.0]}, "non-negative for `rel_at_1`"),
        ({"interval": "percentile"}, "`interval` to be one of"),
        ({"nan_policy": "drop"}, "`nan_policy` to be one of"),
        ({"num_resamples": 10}, "at least 100"),
        ({"level": 1.0}, "`level`"),
        ({"models": ["a"]}, "to name 4 models"),
        ({"parameters": [1, 1, 1, 1]}, "to differ between models"),
        ({"scores": {"parameters": [1, 2, 3, 4]}, "parameters": [1, 2, 3, 4]}, "without a column 'parameters'"),
        ({"higher_is_better": {"bound": False}}, "to name estimators"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(**{"scores": [1.0, 2.0, 3.0, 4.0], "accuracies": [1.0, 2.0, 4.0, 3.0], **kwargs})


def test_bad_input_of_single_statistics():
    with pytest.raises(ValueError, match="at least 3 models, but got 2"):
        ranking.pearson([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        ranking.kendall([1.0, 2.0, math.nan], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="`k` to be an integer"):
        ranking.rel_at_k([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], k=0)
    with pytest.raises(ValueError, match="at most 3 models"):
        ranking.recall_at_k([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], k=4)
    with pytest.raises(ValueError, match="have 3 entries"):
        ranking.spearman([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="at least 4 models"):
        evaluate_ranking([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], statistics=["kendall"], interval="jackknife")
