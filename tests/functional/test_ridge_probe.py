"""The ridge probe is the least squares that leave each sample out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import feed
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

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


@pytest.mark.parametrize("width", [4, 60], ids=["tall", "wide"])
@pytest.mark.parametrize("strength", [1.0, 1e-3, 1e-9])
def test_groups_are_left_out_whole(width, strength):
    generator = torch.Generator().manual_seed(width)
    labels = torch.randint(3, (48,), generator=generator)
    features = torch.randn(48, width, generator=generator, dtype=torch.float64)
    features[:, 0] += labels
    groups = torch.randint(7, (48,), generator=generator) ** 2
    targets = features[:, :2] + 0.5 * torch.randn(48, 2, generator=generator, dtype=torch.float64)
    penalty = strength * float((features - features.mean(0)).square().sum()) / width

    def predict(model, truth):
        return cross_val_predict(model, features.numpy(), truth, groups=groups.numpy(), cv=LeaveOneGroupOut())

    codes = torch.nn.functional.one_hot(labels).double().numpy()
    ridge = Ridge(penalty, solver="svd")
    expected = (predict(ridge, codes).argmax(1) == labels.numpy()).mean()
    assert float(ridge_probe(features, labels, regularization=strength, groups=groups)) == pytest.approx(expected)
    truth = targets.numpy()
    errors = [((truth - predict(model, truth)) ** 2).sum(0) for model in (ridge, DummyRegressor())]
    score = ridge_probe(features, targets, regularization=strength, groups=groups)
    assert float(score) == pytest.approx((1 - errors[0] / errors[1]).mean(), rel=1e-6)


@pytest.mark.parametrize("width", [4, 60], ids=["tall", "wide"])
def test_without_a_penalty_the_smallest_weights_are_meant(width):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, width, generator=generator, dtype=torch.float64)
    targets = features[:, :1] + 0.3 * torch.randn(40, 1, generator=generator, dtype=torch.float64)
    groups = torch.arange(40) // 5
    x, truth, errors = features.numpy(), targets.numpy(), np.zeros(2)
    for train, test in LeaveOneGroupOut().split(x, truth, groups.numpy()):
        mean, offset = x[train].mean(0), truth[train].mean(0)
        weights = np.linalg.pinv(x[train] - mean, rcond=1e-10) @ (truth[train] - offset)
        for i, predicted in enumerate((offset + (x[test] - mean) @ weights, offset)):
            errors[i] += ((truth[test] - predicted) ** 2).sum()
    assert float(ridge_probe(features, targets, regularization=0.0, groups=groups)) == pytest.approx(
        1 - errors[0] / errors[1], rel=1e-6
    )


@pytest.mark.parametrize("strength", [None, 0.1, 0.0])
def test_groups_of_one_sample_change_nothing(strength):
    generator = torch.Generator().manual_seed(0)
    features, targets = (
        torch.randn(30, 5, generator=generator).double(),
        torch.randn(30, 2, generator=generator).double(),
    )
    alone = ridge_probe(features, targets, regularization=strength)
    grouped = ridge_probe(features, targets, regularization=strength, groups=torch.arange(30))
    assert float(grouped) == pytest.approx(float(alone), rel=1e-9)


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="`groups` to hold at least 2 groups, but got 1"):
        ridge_probe(torch.randn(6, 2), torch.arange(6) % 2, groups=torch.ones(6, dtype=torch.long))
