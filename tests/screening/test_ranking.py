"""Ranking statistics against SciPy, chance, and the published tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lightning_transfer.screening import ranking
from lightning_transfer.screening.ranking import ablate_largest, evaluate_over_targets, evaluate_ranking
from tests.screening._tables import SCORES


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
