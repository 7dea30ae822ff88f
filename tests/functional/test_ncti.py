"""NCTI: its three parts and their limits."""

from __future__ import annotations

import pytest
import torch
from _helpers import make_inputs

from lightning_transfer.functional import ncti, ncti_parts
from tests.functional._inputs import pair, random_rotation


def test_the_raw_score_is_the_sum_of_the_parts():
    features, labels = pair(make_inputs())
    parts = ncti_parts(features, labels)
    assert float(ncti(features, labels)) == pytest.approx(float(parts["ncc"] + parts["seli"] - parts["variability"]))
    turned = ncti_parts(features @ random_rotation(features.shape[1]) + 5, labels)
    for name, part in parts.items():
        assert float(turned[name]) == pytest.approx(float(part), rel=1e-8, abs=1e-10)


def test_collapsed_classes_have_no_variability_and_a_sure_classifier():
    labels = torch.arange(60) % 3
    means = 4 * torch.eye(3, 6, dtype=torch.float64)
    noise = torch.randn(60, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near, far = (ncti_parts(means[labels] + size * noise, labels) for size in (1e-3, 3.0))
    assert float(near["ncc"]) > float(far["ncc"])
    assert float(near["variability"]) < float(far["variability"])
    assert float(ncti(means[labels] + 1e-3 * noise, labels)) > float(ncti(means[labels] + 3 * noise, labels))
