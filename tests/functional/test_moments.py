"""Moments against their definitions."""

from __future__ import annotations

import dataclasses
import math

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


@pytest.mark.parametrize("duplicate", [False, True])
def test_fewer_samples_than_features_by_their_products(monkeypatch, duplicate):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 60, generator=generator) * torch.logspace(0, -3, 60) + 1
    if duplicate:
        features[1] = features[0]
    moments = ClassMoments.from_samples(features, torch.arange(40) % 3)
    rough = dataclasses.replace(moments, rough=True)
    for name in ("scatter_spectrum", "standard_spectrum"):
        exact, near = getattr(moments, name), getattr(rough, name)
        assert len(near.values) == len(exact.values) == 39 - duplicate
        torch.testing.assert_close(near.values, exact.values, rtol=1e-6, atol=0)
        torch.testing.assert_close(near.left @ near.left.T, exact.left @ exact.left.T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rough.mean_along.abs(), moments.mean_along.abs(), rtol=1e-5, atol=1e-7)
    penalty = 1e-3 * float(moments.products.trace())
    by_products = moments.least_squares(penalty)
    monkeypatch.setattr("lightning_transfer.functional.moments._SAFE", math.inf)
    for one, other in zip(by_products, moments.least_squares(penalty), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_rough_spectrum_leaves_a_rank_in_doubt_to_the_exact_one():
    features = torch.eye(12, 30)
    features[-1] = features[0]
    features[-1, -1] = 5.8e-7  # about what rounding can have made
    moments = ClassMoments.from_samples(features, torch.arange(12) % 2)
    rough = dataclasses.replace(moments, rough=True)
    assert rough._rough_spectrum(None, rough._input_noise(None)) is None
    assert torch.equal(rough.scatter_spectrum.values, moments.scatter_spectrum.values)
