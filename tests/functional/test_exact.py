"""Scores against their definitions in 60 digits, at any rank, conditioning and origin of the features.

Integers stand for features whose rank has to be exact; all others have singular values above 1e-6 of the largest.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from _helpers import feed
from _reference import exact

from lightning_transfer.functional import (
    emms,
    etran_parts,
    gbc,
    h_score,
    lfc,
    linear_mse,
    log_maximum_evidence,
    ncti,
    nleep,
    pactran,
    parc,
    ridge_probe,
    sfda,
    transrate,
)
from lightning_transfer.metrics import EMMS, GBC, LFC, HScore, LabelMSE, LinearMSE, LogME

SHAPES = {"n > d": (13, 5), "n = d": (11, 11), "n < d": (9, 20)}
KINDS = ["plain", "ill-conditioned", "far", "far and ill-conditioned", "low rank", "rows twice", "constant", "small"]


pytestmark = pytest.mark.filterwarnings("ignore:.*(collinear|one direction|any labelling)")


def make(shape, kind):
    """Features, class ids and targets, as arrays."""
    n, d = SHAPES[shape]
    rng = np.random.default_rng(n + KINDS.index(kind))
    if kind == "low rank":
        features = rng.integers(-9, 9, (n, 3)) @ rng.integers(-9, 9, (3, d)) + 1e6 * rng.integers(1, 9, d)
    elif kind == "rows twice":
        features = np.repeat(rng.standard_normal(((n + 1) // 2, d)), 2, axis=0)[:n]
    else:
        r = min(n - 1, d)
        rows, columns = (np.linalg.qr(rng.standard_normal((size, r)))[0] for size in (n, d))
        features = (rows * np.geomspace(1, 2e-6 if "ill" in kind else 0.1, r)) @ columns.T
    if "far" in kind:
        features = features - features.mean(axis=0) + 1e6 * features.std() * rng.standard_normal(d)
    if kind == "constant":
        features[:, ::2] = 0.1 + np.arange(features[0, ::2].size)
    if kind == "small":
        features *= 1e-30
    labels = np.arange(n) % 3
    labels[0] = 1
    return features, labels, np.array([0.0, 50.0]) + rng.standard_normal((n, 2))


def indicators(labels):
    return np.eye(3)[labels]


def of_classes(function, metric, reference):
    return ("features", "labels"), function, metric, reference


def of_targets(function, metric, reference, name="features"):
    return (name, "targets"), function, metric, reference


SCORES = {
    "h_score": of_classes(h_score, HScore, exact.exact_h_score),
    "h_score ledoit_wolf": of_classes(
        partial(h_score, shrinkage="ledoit_wolf"), partial(HScore, "ledoit_wolf"),
        partial(exact.exact_h_score, shrinkage="ledoit_wolf"),
    ),
    "h_score fixed": of_classes(
        partial(h_score, shrinkage=0.125), partial(HScore, 0.125), partial(exact.exact_h_score, shrinkage=0.125)
    ),
    "lfc": of_classes(lfc, LFC, exact.exact_lfc),
    "logme": of_classes(log_maximum_evidence, LogME, lambda x, y: exact.exact_logme(x, indicators(y))),
    "logme regression": of_targets(log_maximum_evidence, partial(LogME, task="regression"), exact.exact_logme),
    "linear_mse": of_targets(linear_mse, LinearMSE, exact.exact_linear_mse),
    "label_mse": of_targets(linear_mse, LabelMSE, exact.exact_linear_mse, "source_outputs"),
    "linear_mse ridge": of_targets(
        partial(linear_mse, regularization=0.125), partial(LinearMSE, 0.125),
        partial(exact.exact_linear_mse, regularization=0.125),
    ),
    "ridge_probe": of_targets(
        partial(ridge_probe, regularization=1e-3), None, partial(exact.exact_ridge_probe, regularization=1e-3)
    ),
    "emms": of_classes(emms, EMMS, lambda x, y: exact.exact_emms(x, indicators(y))),
    "emms regression": of_targets(
        lambda x, t: emms(x, targets=t), partial(EMMS, task="regression"), exact.exact_emms
    ),
    "etran regression": of_targets(
        lambda x, t: etran_parts(x, targets=t)["fit"], None, exact.exact_etran_regression
    ),
    "etran": of_classes(lambda x, y: etran_parts(x, y)["fit"], None, exact.exact_etran_fit),
    "sfda": of_classes(sfda, None, exact.exact_sfda),
    "transrate": of_classes(transrate, None, exact.exact_transrate),
    "gbc": of_classes(
        partial(gbc, covariance="diagonal"), partial(GBC, pca_dim=None, covariance="diagonal"), exact.exact_gbc
    ),
}  # fmt: skip
SEVERAL_SECONDS = ("logme", "logme regression")
FEW = [("n > d", "far"), ("n = d", "low rank"), ("n < d", "ill-conditioned")]
CASES = [
    (score, *case)
    for score in SCORES
    for case in (FEW if score in SEVERAL_SECONDS else itertools.product(SHAPES, KINDS))
]


@pytest.mark.parametrize(("score", "shape", "kind"), CASES)
def test_ten_digits(score, shape, kind):
    names, function, metric, reference = SCORES[score]
    features, labels, targets = make(shape, kind)
    arrays = features, targets if "targets" in names else labels
    tensors = [torch.from_numpy(array) for array in arrays]
    values = [function(*tensors)]
    if metric is not None:
        values.append(feed(metric(), dict(zip(names, tensors, strict=True)), [4]).compute())
    expected = reference(*arrays)
    for value in values:
        # an exact fit leaves 0, where there are no digits to compare
        assert float(value) == pytest.approx(float(expected), rel=1e-9, abs=1e-13), exact.mp.nstr(expected, 20)


def test_the_same_row_again_and_again_tells_nothing():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(512, dtype=torch.float64, generator=generator).repeat(60, 1)
    labels, targets = torch.arange(60) % 5, torch.randn(60, dtype=torch.float64, generator=generator)
    for shrinkage in (None, "ledoit_wolf", 0.5):
        assert float(h_score(features, labels, shrinkage=shrinkage)) == 0
    assert float(lfc(features, labels)) == float(transrate(features, labels)) == 0
    assert float(linear_mse(features, targets)) == pytest.approx(-float(targets.var(correction=0)), rel=1e-12)
    assert float(sfda(features, labels)) == pytest.approx(-np.log(5), rel=1e-12)
    assert float(etran_parts(features, labels)["fit"]) == pytest.approx(0.2, rel=1e-12)
    assert float(ncti(features, labels)) == pytest.approx(0.2 - np.log(5 * np.sqrt(12 / 5)), rel=1e-12)
    assert float(gbc(features, labels)) == pytest.approx(-20, rel=1e-12)


@pytest.mark.parametrize(
    "function", [h_score, lfc, log_maximum_evidence, emms, sfda, transrate, gbc, pactran, parc, nleep]
)
@pytest.mark.parametrize("size", [1e76, 1e153, 1e307])
def test_features_whose_powers_overflow_are_refused(function, size):
    features = torch.eye(12, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"`features` to be at most 1e\+75 in size"):
        function(size * features, torch.arange(12) % 2)
    with pytest.raises(ValueError, match=r"`features` to be at most 1e\+75 in size"):
        HScore().update(size * features, torch.arange(12) % 2)


def test_targets_whose_powers_overflow_are_refused():
    features, targets = torch.eye(12, 3), torch.full((12,), 1e160, dtype=torch.float64)
    with pytest.raises(ValueError, match="`targets` to be at most"):
        linear_mse(features, targets)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e70])
def test_scores_that_do_not_see_the_scale(scale):
    features, labels, targets = (torch.from_numpy(array) for array in make("n > d", "plain"))
    for function in (h_score, partial(h_score, shrinkage="ledoit_wolf"), lfc, log_maximum_evidence, emms, gbc):
        expected = float(function(features, labels))
        assert float(function(scale * features, labels)) == pytest.approx(expected, rel=1e-9)
    expected = float(linear_mse(features, targets))
    assert float(linear_mse(scale * features, targets)) == pytest.approx(expected, rel=1e-9)


def test_nothing_left_over_has_no_sign():
    features, labels, _ = (torch.from_numpy(array) for array in make("n > d", "plain"))
    constant = torch.ones(len(features), dtype=torch.float64)
    zeros = [linear_mse(features, constant), linear_mse(features, constant, regularization=1.0)]
    zeros += [emms(features, targets=constant), etran_parts(constant[:, None], targets=0 * constant)["fit"]]
    zeros += [transrate(0 * features, labels), lfc(0 * features, labels), h_score(0 * features, labels)]
    assert [f"{float(zero)}" for zero in zeros] == ["0.0"] * len(zeros)
