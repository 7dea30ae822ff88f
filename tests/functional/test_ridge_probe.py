"""The ridge probe is the least squares that leave each sample out."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed

from lightning_transfer.functional import ridge_probe
from lightning_transfer.metrics import RidgeProbe
from tests.functional._inputs import attributes


def test_ridge_probe_leaves_each_sample_out():
    features, labels = attributes()
    strength = 0.1
    hits = []
    for left_out in range(len(features)):
        others = torch.arange(len(features)) != left_out
        x, y = features[others], labels[others].double()
        x_mean, y_mean = x.mean(0), y.mean(0)
        centred = features - features.mean(0)
        ridge = strength * centred.square().sum() / features.shape[1] * torch.eye(features.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve((x - x_mean).T @ (x - x_mean) + ridge, (x - x_mean).T @ (y - y_mean))
        predicted = (features[left_out] - x_mean) @ weights + y_mean > 0.5
        hits.append((predicted == labels[left_out].bool()).double().mean())
    expected = float(torch.stack(hits).mean())
    assert float(ridge_probe(features, labels, regularization=strength)) == pytest.approx(expected, abs=1e-12)
    assert expected < 1
    metric = feed(RidgeProbe("multilabel", regularization=strength), {"features": features, "labels": labels}, [20])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_ridge_probe_of_two_classes_is_that_of_their_indicator():
    features, labels = attributes()
    expected = float(ridge_probe(features, labels[:, 0]))
    assert float(ridge_probe(features, labels[:, :1])) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="`labels` to hold at least 2 classes"):
        ridge_probe(features, torch.stack([torch.ones(60), torch.zeros(60)], dim=1).long())


@pytest.mark.parametrize(("n", "d"), [(12, 20), (12, 12), (12, 11), (12, 4)])
def test_without_a_penalty_the_probes_are_those_of_least_norm(n, d):
    generator = torch.Generator().manual_seed(d)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    features[:, 0] = torch.eye(n, dtype=torch.float64)[0]  # only one sample has the first feature
    labels = torch.arange(n) % 3
    truth = torch.nn.functional.one_hot(labels).double()
    predicted = torch.empty_like(truth)
    for left_out in range(n):
        others = torch.arange(n) != left_out
        x, y = features[others], truth[others]
        weights = torch.linalg.pinv(x - x.mean(0), rtol=1e-10) @ (y - y.mean(0))
        predicted[left_out] = (features[left_out] - x.mean(0)) @ weights + y.mean(0)
    errors = (predicted - truth).square().sum(0) / ((truth - truth.mean(0)) * n / (n - 1)).square().sum(0)
    r_squared = float(ridge_probe(features, truth, regularization=0.0))
    assert r_squared == pytest.approx(float((1 - errors).mean()), rel=1e-7, abs=1e-7)
    hits = float((predicted.argmax(1) == labels).double().mean())
    assert float(ridge_probe(features, labels, regularization=0.0)) == pytest.approx(hits, abs=1e-12)
    assert hits < 1
    assert float(ridge_probe(features, truth, regularization=1e-9)) == pytest.approx(r_squared, rel=1e-4)
