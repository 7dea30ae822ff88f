"""Scores of several zeros and ones a sample, and of targets that are their own embedding, against definitions."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed, make_inputs

from lightning_transfer.functional import emms, log_maximum_evidence, ridge_probe
from lightning_transfer.metrics import EMMS, RidgeProbe


def attributes(n=60):
    inputs = make_inputs(n=n)
    columns = torch.stack([inputs["labels"] == 1, inputs["labels"] >= 2, inputs["targets"][:, 0] > 0], dim=1)
    return inputs["features"], columns.long()


def residual_share(features, responses):
    """Part of the variance of each response that least squares with an intercept leaves."""
    design = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    residuals = responses - design @ torch.linalg.lstsq(design, responses).solution
    return residuals.square().sum(0) / (responses - responses.mean(0)).square().sum(0)


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


def test_evidence_of_integer_columns_is_that_of_targets():
    features, labels = attributes()
    expected = float(log_maximum_evidence(features, labels.double()))
    assert float(log_maximum_evidence(features, labels)) == pytest.approx(expected, rel=1e-13)
    assert float(log_maximum_evidence(features, labels.bool())) == pytest.approx(expected, rel=1e-13)
    with pytest.raises(ValueError, match="zeros and ones"):
        log_maximum_evidence(features, 2 * labels)


def test_emms_of_targets_is_the_variance_that_least_squares_leaves():
    inputs = make_inputs()
    features, targets = inputs["features"], inputs["targets"]
    expected = -float(residual_share(features, targets).mean())
    assert float(emms(features, targets=targets)) == pytest.approx(expected, rel=1e-6)
    same = float(emms(features, embeddings=targets))
    assert same == pytest.approx(float(emms(features, targets=targets)), rel=1e-12)
    official = float(
        feed(EMMS(task="regression", variant="official"), {"features": features, "targets": targets}).compute()
    )
    assert official == pytest.approx(expected * 4, rel=1e-6)  # two targets, squared
    few = make_inputs(n=20, d=40)
    assert float(emms(few["features"], targets=few["targets"])) == pytest.approx(0, abs=1e-9)


def test_emms_of_attributes():
    features, labels = attributes()
    expected = -float(residual_share(features, labels.double()).mean())
    assert float(emms(features, labels)) == pytest.approx(expected, rel=1e-6)
    metric = feed(EMMS(task="multilabel", jackknife_groups=6), {"features": features, "labels": labels}, [13])
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
    interval = metric.compute_with_interval()
    assert interval.lower < interval.value - interval.bias < interval.upper


def test_emms_takes_one_kind_of_answer():
    features, labels = attributes()
    targets = labels.double()
    for wrong in ({"labels": labels, "embeddings": targets}, {"targets": targets, "embeddings": targets}):
        with pytest.raises(ValueError, match="their own embedding"):
            emms(features, **wrong)
    with pytest.raises(ValueError, match="their own embedding"):
        emms(features, labels[:, 0], targets=targets)
    with pytest.raises(ValueError, match="`embeddings` with class ids only"):
        EMMS(targets, task="regression")
