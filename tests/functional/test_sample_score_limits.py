"""Limits, invariances and options of TransRate, GBC, SFDA, PARC, NCTI, ETran, PACTran, LFC and EMMS."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers import make_inputs
from hypothesis import given

from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.etran import etran, etran_parts
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.ncti import ncti, ncti_parts
from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.sfda import sfda
from lightning_transfer.functional.transrate import transrate
from tests.functional._inputs import pair, quick, random_rotation, some_data

CLASS_SCORES = [transrate, gbc, sfda, parc, ncti, etran, pactran, lfc, emms]


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_all_features_the_same(score):
    labels = torch.tensor([0, 1, 2] * 5)
    assert math.isfinite(score(torch.full((15, 4), 0.1), labels))


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_every_class_a_single_sample(score):
    features = make_inputs(n=12)["features"]
    assert math.isfinite(score(features, torch.arange(12)))


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_samples_on_the_means_of_their_classes(score):
    labels = torch.arange(4).repeat(6)
    assert math.isfinite(score(make_inputs(n=4)["features"][labels], labels))


@pytest.mark.parametrize("score", CLASS_SCORES)
def test_a_thousand_classes(score):
    inputs = make_inputs(n=1200, d=8, classes=1000)
    assert math.isfinite(score(*pair(inputs)))


@pytest.mark.parametrize("score", [s for s in CLASS_SCORES if s is not pactran])
def test_separated_classes_score_higher_than_mixed_ones(score):
    features, labels = pair(make_inputs(n=200, d=10))
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert score(features, labels) > score(features, shuffled)


@pytest.mark.parametrize("score", [transrate, gbc, sfda, parc, etran, pactran, pactran_dirichlet, pactran_gamma, emms])
def test_unknown_variant_is_refused(score):
    inputs = make_inputs()
    first = inputs["source_probs" if score in (pactran_dirichlet, pactran_gamma) else "features"]
    with pytest.raises(ValueError, match="Expected argument `variant` to be one of"):
        score(first, inputs["labels"], variant="best")


@quick
@given(some_data)
def test_discriminants_stay_in_their_ranges_under_rotation(inputs):
    features, labels = pair(inputs)
    rotated = features @ random_rotation(features.shape[1]) + 5.0
    log_score, score = sfda(features, labels), sfda(features, labels, variant="official")
    assert log_score <= 0 <= score <= 1
    assert log_score.exp() <= 1
    assert float(sfda(rotated, labels)) == pytest.approx(float(log_score), abs=1e-6)
    parts = ncti_parts(features, labels)
    assert 0 <= parts["ncc"] <= 1 + 1e-12
    assert parts["seli"] >= 0
    assert 0 <= etran_parts(features, labels)["fit"] <= 1 + 1e-12
