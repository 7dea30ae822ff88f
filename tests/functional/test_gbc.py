"""GBC: limits and bad input."""

from __future__ import annotations

import importlib

import pytest
import torch
from _helpers import make_inputs
from hypothesis import given
from hypothesis import strategies as st

from lightning_transfer.functional.gbc import gbc
from tests.functional._inputs import pair, quick, some_data


@quick
@given(some_data, st.sampled_from(["spherical", "diagonal"]), st.sampled_from([None, 3, 64]))
def test_gbc_stays_in_its_range_and_scales(inputs, covariance, pca_dim):
    features, labels = pair(inputs)
    classes = len(labels.unique())
    score = gbc(features, labels, covariance=covariance, pca_dim=pca_dim)
    assert -classes * (classes - 1) <= score <= 0
    for scale in (1e-9, 30.0, 1e9):
        scaled = gbc(scale * features, labels, covariance=covariance, pca_dim=pca_dim)
        assert float(scaled) == pytest.approx(float(score), rel=1e-8)


def test_gbc_limits():
    features, labels = pair(make_inputs(n=60, classes=3))
    same = features[:20].repeat(3, 1)
    blocks = torch.arange(3).repeat_interleave(20)
    assert float(gbc(same, blocks)) == pytest.approx(-6.0, abs=1e-12)
    apart = same + 1e3 * blocks[:, None]
    assert -1e-300 <= float(gbc(apart, blocks)) <= 0
    # tiny overlaps keep their digits
    near = same + 12 * blocks[:, None]
    assert -1e-12 < float(gbc(near, blocks)) < 0
    assert gbc(features, labels, pca_dim=None) == gbc(features, labels)  # six features need no PCA


def test_gbc_works_in_chunks(monkeypatch):
    inputs = make_inputs(n=300, classes=40)
    expected = gbc(*pair(inputs), covariance="diagonal")
    monkeypatch.setattr(importlib.import_module("lightning_transfer.functional.gbc"), "_CHUNK", 500)
    torch.testing.assert_close(gbc(*pair(inputs), covariance="diagonal"), expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"covariance": "full"}, "covariance"), ({"pca_dim": 0}, "pca_dim"), ({"variance_floor": 0.0}, "variance_floor")],
)
def test_gbc_refuses_bad_options(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        gbc(*pair(make_inputs()), **options)
