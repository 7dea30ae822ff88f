"""EMMS: limits and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers import feed, make_inputs
from _reference.sample_scores import (
    reference_emms,
)
from hypothesis import given

from lightning_transfer.functional.emms import emms
from lightning_transfer.metrics.emms import EMMS
from tests.functional._inputs import attributes, data, pair, quick, some_data


@quick
@given(some_data)
def test_emms_ignores_shift_and_scale_of_each_feature(inputs):
    features, labels = pair(inputs)
    score = float(emms(features, labels))
    assert -1 - 1e-9 <= score <= 0  # predicting the mean gives minus the variance, 1
    moved = features * torch.linspace(0.5, 4.0, features.shape[1], dtype=torch.float64) + 2.0
    assert float(emms(moved, labels)) == pytest.approx(score, abs=1e-6)


def test_emms_gives_weight_to_embeddings_that_fit():
    features, labels = pair(make_inputs())
    generator = torch.Generator().manual_seed(0)
    fitting = torch.stack([features[labels == c].mean(0) for c in range(4)])[:, :, None]
    noise = torch.randn(4, 6, 1, dtype=torch.float64, generator=generator)
    both = float(emms(features, labels, embeddings=torch.cat([fitting, noise], dim=2)))
    assert both >= float(emms(features, labels, embeddings=noise)) - 1e-9
    assert float(emms(features, labels, embeddings=fitting[:, :, 0])) == pytest.approx(
        float(emms(features, labels, embeddings=torch.cat([fitting, fitting], dim=2)))
    )


def test_emms_refuses_bad_embeddings():
    features, labels = pair(make_inputs())
    good = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for bad in (good[:3], good.long(), good[0, 0], good * math.nan, [1.0]):
        with pytest.raises(ValueError, match="`embeddings`"):
            emms(features, labels, embeddings=bad)
    with pytest.raises(ValueError, match="to have 110 rows"):
        emms(features, embeddings=good)
    with pytest.raises(ValueError, match="`labels`, `targets` or `embeddings`"):
        emms(features)
    with pytest.raises(ValueError, match="`variant`"):
        emms(features, labels, variant="best")


@pytest.mark.parametrize("width", [6, 40])
def test_emms_with_embeddings_of_each_sample(width):
    x, _ = data("plain")
    embeddings = torch.randn(len(x), width, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    embeddings[:, :, 1] += 2 * x[:, :1]
    expected = reference_emms(x.numpy(), embeddings.numpy())
    assert float(emms(x, embeddings=embeddings)) == pytest.approx(expected / (len(x) * width))
    official = emms(x, embeddings=embeddings, variant="official")
    assert float(official) == pytest.approx(expected / len(x) * width)


def test_emms_with_embeddings_of_the_classes_is_that_with_their_rows():
    x, y = data("singletons")
    embeddings = torch.randn(9, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = emms(x, embeddings=embeddings[y])
    torch.testing.assert_close(emms(x, y, embeddings=embeddings), expected)
    metric = feed(EMMS(embeddings), {"features": x, "labels": y}, [50])
    torch.testing.assert_close(metric.compute(), expected)


def residual_share(features, responses):
    """Part of the variance of each response that least squares with an intercept leaves."""
    design = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    residuals = responses - design @ torch.linalg.lstsq(design, responses).solution
    return residuals.square().sum(0) / (responses - responses.mean(0)).square().sum(0)


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
