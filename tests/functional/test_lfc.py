"""LFC: limits and invariances."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed
from _reference.sample_scores import (
    reference_lfc,
)
from hypothesis import given
from hypothesis import strategies as st

from lightning_transfer.functional.lfc import lfc
from lightning_transfer.metrics.lfc import LFC
from tests.functional._inputs import data, pair, quick, random_rotation, some_data


@quick
@given(some_data, st.floats(1e-3, 1e3))
def test_lfc_ignores_rotation_and_scale(inputs, scale):
    features, labels = pair(inputs)
    score = float(lfc(features, labels))
    assert -1 <= score <= 1
    moved = scale * features @ random_rotation(features.shape[1])
    assert float(lfc(moved, labels)) == pytest.approx(score, abs=1e-9)


def test_lfc_of_indicators_is_one():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    assert float(lfc(torch.nn.functional.one_hot(labels).double(), labels)) == pytest.approx(1.0, abs=1e-12)


def test_lfc_streams_without_loss_far_from_zero():
    x, y = data("plain")
    metric = feed(LFC(), {"features": x + 300.0, "labels": y}, [13, 40])
    assert float(metric.compute()) == pytest.approx(reference_lfc((x + 300.0).numpy(), y.numpy()), rel=1e-9)
