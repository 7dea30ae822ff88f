"""A public table of scores and accuracies."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from scipy import stats

TABLES = Path(__file__).parent.parent / "_fixtures" / "public_tables"


SCORES = pd.read_csv(TABLES / "thuml_scores_and_accuracy.csv")


SCIPY = {
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "kendall": lambda x, y: stats.kendalltau(x, y).statistic,
    "weighted_kendall": lambda x, y: stats.weightedtau(x, y, rank=True).statistic,
}
