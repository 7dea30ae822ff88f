"""Statistics that judge scores against accuracies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lightning_transfer.screening import ranking
from lightning_transfer.screening.ranking import evaluate_ranking
from tests.screening._tables import SCIPY, SCORES, TABLES

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
