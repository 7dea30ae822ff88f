"""PACTran under its three priors."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from _helpers import make_inputs
from _reference.sample_scores import (
    reference_pactran_dirichlet,
    reference_pactran_gamma,
)

from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from tests.functional._inputs import data, pair, random_rotation


def test_pactran_prefers_separated_classes():
    features, labels = pair(make_inputs(n=200, d=10))
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    for variant, sign in (("paper", 1), ("official", -1)):
        apart, mixed = (pactran(features, y, variance_factor=0.1, variant=variant) for y in (labels, shuffled))
        assert sign * apart > sign * mixed


def test_pactran_dirichlet_ranks_sources():
    labels = make_inputs()["labels"]
    perfect = torch.nn.functional.one_hot(labels).double()
    uniform = torch.full_like(perfect, 0.25)
    noisy = (perfect + uniform) / 2
    scores = [float(pactran_dirichlet(probs, labels)) for probs in (perfect, noisy, uniform)]
    assert 0 > scores[0] > scores[1] > scores[2]
    shares = torch.bincount(labels).double() / len(labels)
    assert scores[2] <= float(torch.special.xlogy(shares, shares).sum())  # at best the entropy of the labels
    scores = [float(pactran_gamma(probs, labels)) for probs in (perfect, noisy, uniform)]
    assert scores[0] > scores[1] > scores[2]


def test_pactran_of_zero_probabilities_is_finite():
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    for score in (pactran_dirichlet, pactran_gamma):
        assert math.isfinite(score(probs, torch.tensor([0, 1, 1, 0])))


def test_pactran_sees_the_width_of_the_features_though_samples_span_less():
    features, labels = pair(make_inputs(n=30, d=12))
    padded = torch.cat([features, torch.zeros(30, 28, dtype=torch.float64)], dim=1)
    assert padded.shape[1] > len(padded)
    score = float(pactran(padded, labels, variance_factor=40.0))  # the same prior variance
    wide = float(pactran(features, labels, variance_factor=12.0))
    assert score < wide  # the same classifier, a larger space
    rotated = padded @ random_rotation(40)
    assert float(pactran(rotated, labels, variance_factor=40.0)) == pytest.approx(score, rel=1e-7)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"lambda_factor": 0.0}, "lambda_factor"), ({"variance_factor": -1}, "variance_factor"), ({"max_iter": 0},
    "max_iter")],
)  # fmt: skip
def test_pactran_refuses_bad_options(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        pactran(*pair(make_inputs()), **options)


@pytest.mark.parametrize(("options", "name"), [({"alpha": 0.0}, "alpha"), ({"iterations": 0}, "iterations")])
@pytest.mark.parametrize("score", [pactran_dirichlet, pactran_gamma])
def test_source_priors_refuse_bad_options(score, options, name):
    inputs = make_inputs()
    with pytest.raises(ValueError, match=f"`{name}`"):
        score(inputs["source_probs"], inputs["labels"], **options)


@pytest.mark.parametrize("kind", ["plain", "two classes", "singletons"])
def test_source_priors_equal_the_plain_version(kind):
    _, y = data(kind)
    probs = make_inputs(seed=3)["source_probs"]
    expected = reference_pactran_dirichlet(probs.numpy(), y.numpy(), alpha=2.0)
    assert float(pactran_dirichlet(probs, y, alpha=2.0)) == pytest.approx(-expected, abs=1e-7)
    expected = reference_pactran_gamma(probs.numpy(), y.numpy(), alpha=2.0)
    assert float(pactran_gamma(probs, y, alpha=2.0)) == pytest.approx(-expected, abs=1e-7)


@pytest.mark.parametrize("kind", ["plain", "small", "wide", "two classes", "singletons", "constant feature"])
@pytest.mark.parametrize("lambda_factor", [0.1, 10.0])
def test_both_solvers_find_the_same_minimum(monkeypatch, kind, lambda_factor):
    x, y = data(kind)
    dense = float(pactran(x, y, lambda_factor=lambda_factor))
    monkeypatch.setattr(sys.modules[pactran.__module__], "_DENSE", 0.0)
    assert float(pactran(x, y, lambda_factor=lambda_factor)) == pytest.approx(dense, rel=1e-6, abs=1e-7)


def test_large_problems_say_that_they_did_not_converge(monkeypatch):
    monkeypatch.setattr(sys.modules[pactran.__module__], "_DENSE", 0.0)
    with pytest.warns(UserWarning, match="did not converge in 1 iterations"):
        pactran(*data("plain"), max_iter=1)
