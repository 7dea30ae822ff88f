"""PARC: limits and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import feed, make_inputs
from hypothesis import given
from hypothesis import strategies as st

from lightning_transfer.functional.parc import parc
from lightning_transfer.metrics.parc import PARC
from tests.functional._inputs import data, pair, quick, some_data


@quick
@given(some_data, st.sampled_from([None, 2, 4]))
def test_parc_ignores_shift_and_scale_of_each_feature(inputs, pca_dim):
    features, labels = pair(inputs)
    score = float(parc(features, labels, pca_dim=pca_dim))
    assert -100 <= score <= 100
    moved = 7.0 * features - 3.0
    if pca_dim is None:
        moved = moved * torch.linspace(0.5, 4.0, features.shape[1], dtype=torch.float64)
    assert float(parc(moved, labels, pca_dim=pca_dim)) == pytest.approx(score, abs=1e-6)


def test_parc_uses_a_seeded_sample_at_most():
    features, labels = pair(make_inputs(n=400))
    scores = [float(parc(features, labels, keep_samples=100, seed=seed)) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]
    assert float(parc(features, labels)) == float(parc(features, labels, keep_samples=None))


def test_parc_refuses_what_has_no_correlation():
    features, labels = pair(make_inputs())
    with pytest.raises(ValueError, match="`features` to have at least 2 columns"):
        parc(features[:, :1], labels)
    with pytest.raises(ValueError, match="`labels` to differ"):
        parc(features, torch.zeros_like(labels))
    with pytest.raises(ValueError, match="2 or more columns of zeros and ones"):
        parc(features, torch.stack([labels, labels], dim=1))
    with pytest.raises(ValueError, match="`pca_dim`"):
        parc(features, labels, pca_dim=1)


def test_parc_of_attributes():
    x, y = data("plain")
    attributes = torch.stack([y > 1, y == 2, x[:, 0] > 0.5, x[:, 1] > x[:, 2]], dim=1)
    attributes[0] = False  # does not vary: at distance 1 from all
    rows = attributes.double().numpy()
    with np.errstate(invalid="ignore"):
        distances = 1 - np.nan_to_num(np.corrcoef(rows))
    upper = np.triu_indices(len(rows), 1)
    from scipy.stats import spearmanr
    from sklearn.preprocessing import StandardScaler

    features = 1 - np.corrcoef(StandardScaler().fit_transform(x.numpy()))
    expected = 100 * spearmanr(features[upper].round(10), distances[upper].round(10))[0]
    assert float(parc(x, attributes)) == pytest.approx(expected, rel=1e-9)
    metric = feed(PARC(), {"features": x, "labels": attributes}, [30, 30])
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-9)
