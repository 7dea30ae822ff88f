"""Moments against their definitions."""

from __future__ import annotations

import pytest
import torch
from _helpers import make_inputs

from lightning_transfer.functional.moments import ClassMoments, FeatureMoments


def test_class_moments_against_their_definitions():
    inputs = make_inputs(5)
    features, labels = inputs["features"], inputs["labels"]
    moments = ClassMoments.from_samples(features, 3 * labels)
    centred = features - features.mean(0)
    torch.testing.assert_close(moments.mean, features.mean(0))
    torch.testing.assert_close(moments.scatter, centred.T @ centred)
    torch.testing.assert_close(moments.centred_norm_fourth, centred.square().sum(1).square().sum())
    within = sum((f := features[labels == c] - features[labels == c].mean(0)).T @ f for c in range(4))
    torch.testing.assert_close(moments.within_scatter, within)
    assert moments.present.tolist() == [0, 3, 6, 9]
    assert FeatureMoments.of_features(features).condition_number == pytest.approx(moments.condition_number, rel=1e-9)
