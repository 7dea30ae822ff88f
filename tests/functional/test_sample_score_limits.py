"""Limits, invariances and options of TransRate, GBC, SFDA, PARC, NCTI, ETran, PACTran, LFC and EMMS."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from _helpers import make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.etran import combine_etran, etran, etran_parts
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.functional.ncti import combine_ncti, ncti, ncti_parts
from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.sfda import sfda, sfda_first_step
from lightning_transfer.functional.transrate import transrate

CLASS_SCORES = [transrate, gbc, sfda, parc, ncti, etran, pactran, lfc, emms]
some_data = st.builds(
    lambda seed, n, d, classes: make_inputs(seed=seed, n=n, d=d, classes=classes),
    st.integers(0, 10_000), st.integers(12, 40), st.integers(2, 30), st.integers(2, 5),
)  # fmt: skip
quick = settings(deadline=None, max_examples=25)


def pair(inputs):
    return inputs["features"], inputs["labels"]


def random_rotation(d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))[0]


# ---- every score -----------------------------------------------------------------------------------------------------


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
    inputs = make_inputs(n=2000, d=8, classes=1000)
    assert math.isfinite(score(*pair(inputs)))


@pytest.mark.parametrize("score", [s for s in CLASS_SCORES if s is not pactran])
def test_separated_classes_score_higher_than_mixed_ones(score):
    features, labels = pair(make_inputs(n=200, d=10))
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert score(features, labels) > score(features, shuffled)


def test_pactran_prefers_separated_classes():
    features, labels = pair(make_inputs(n=200, d=10))
    shuffled = labels[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    for variant, sign in (("paper", 1), ("official", -1)):
        apart, mixed = (pactran(features, y, variance_factor=0.1, variant=variant) for y in (labels, shuffled))
        assert sign * apart > sign * mixed


@pytest.mark.parametrize("score", [transrate, gbc, sfda, parc, etran, pactran, pactran_dirichlet, pactran_gamma, emms])
def test_unknown_variant_is_refused(score):
    inputs = make_inputs()
    first = inputs["source_probs" if score in (pactran_dirichlet, pactran_gamma) else "features"]
    with pytest.raises(ValueError, match="Expected argument `variant` to be one of"):
        score(first, inputs["labels"], variant="best")


# ---- TransRate -------------------------------------------------------------------------------------------------------


@quick
@given(some_data)
def test_transrate_is_not_negative_and_ignores_rotation(inputs):
    features, labels = pair(inputs)
    score = float(transrate(features, labels))
    assert score >= -1e-9
    rotated = features @ random_rotation(features.shape[1]) + 5.0
    assert float(transrate(rotated, labels)) == pytest.approx(score, rel=1e-8, abs=1e-8)


def test_transrate_refuses_a_distortion_of_zero():
    with pytest.raises(ValueError, match="`eps`"):
        transrate(*pair(make_inputs()), eps=0.0)


# ---- GBC -------------------------------------------------------------------------------------------------------------


@quick
@given(some_data, st.sampled_from(["spherical", "diagonal"]), st.sampled_from([None, 3, 64]))
def test_gbc_stays_in_its_range_and_scales(inputs, covariance, pca_dim):
    features, labels = pair(inputs)
    classes = len(labels.unique())
    score = gbc(features, labels, covariance=covariance, pca_dim=pca_dim)
    assert -classes * (classes - 1) <= score <= 0
    for scale in (1e-9, 30.0, 1e9):
        scaled = gbc(scale * features, labels, covariance=covariance, pca_dim=pca_dim)
        assert float(scaled) == pytest.approx(float(score), rel=1e-8)


def test_gbc_limits():
    features, labels = pair(make_inputs(n=60, classes=3))
    same = features[:20].repeat(3, 1)
    blocks = torch.arange(3).repeat_interleave(20)
    assert float(gbc(same, blocks)) == pytest.approx(-6.0, abs=1e-12)
    apart = same + 1e3 * blocks[:, None]
    assert -1e-300 <= float(gbc(apart, blocks)) <= 0
    # tiny overlaps keep their digits
    near = same + 12 * blocks[:, None]
    assert -1e-12 < float(gbc(near, blocks)) < 0
    assert gbc(features, labels, pca_dim=None) == gbc(features, labels)  # six features need no PCA


def test_gbc_works_in_chunks(monkeypatch):
    inputs = make_inputs(n=300, classes=40)
    expected = gbc(*pair(inputs), covariance="diagonal")
    monkeypatch.setattr(importlib.import_module("lightning_transfer.functional.gbc"), "_CHUNK", 500)
    torch.testing.assert_close(gbc(*pair(inputs), covariance="diagonal"), expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"covariance": "full"}, "covariance"), ({"pca_dim": 0}, "pca_dim"), ({"variance_floor": 0.0}, "variance_floor")],
)
def test_gbc_refuses_bad_options(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        gbc(*pair(make_inputs()), **options)


# ---- SFDA, NCTI, ETran -----------------------------------------------------------------------------------------------


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


def test_sfda_of_wide_separable_features_keeps_the_order_that_probabilities_lose():
    # with more features than samples every published score is 1: the logarithm still says which is nearer to it
    features, labels = pair(make_inputs(n=60, d=6))
    good, bad = (torch.cat([scale * features, 0.05 * random_rotation(60)], dim=1) for scale in (3.0, 0.1))
    assert sfda(good, labels) >= sfda(bad, labels)


def test_step_one_of_sfda_follows_exactly_from_moments():
    features, labels = pair(make_inputs(n=300))
    streamed = sfda_first_step(ClassMoments.from_samples(features, labels)).log_posterior(features)
    expected = etran_parts(features, labels)["fit"]  # the mean probability of the same classifier
    own = streamed.exp().gather(1, labels[:, None]).mean()
    torch.testing.assert_close(own, expected)


# ---- zoo-relative scores ---------------------------------------------------------------------------------------------

ZOO = [
    {"seli": 10.0, "ncc": 0.9, "variability": 2.0, "energy": 5.0, "fit": 0.7},
    {"seli": 30.0, "ncc": 0.5, "variability": 1.0, "energy": 9.0, "fit": 0.5},
    {"seli": 20.0, "ncc": 0.7, "variability": 4.0, "energy": 1.0, "fit": 0.9},
]


def test_combined_scores_are_min_max_scaled_over_the_zoo():
    expected = torch.tensor([1 + 0 - 1 / 3, 0 + 1 - 0, 0.5 + 0.5 - 1])
    torch.testing.assert_close(combine_ncti(ZOO), expected.double())
    expected = torch.tensor([0.15 * 0.5 + 0.85 * 0.5, 0.15, 0.85])
    torch.testing.assert_close(combine_etran(ZOO), expected.double())
    torch.testing.assert_close(combine_etran(ZOO, energy_weight=1.0), torch.tensor([0.5, 1.0, 0.0]).double())
    tensors = [{name: torch.tensor(value) for name, value in parts.items()} for parts in ZOO]
    torch.testing.assert_close(combine_ncti(tensors), combine_ncti(ZOO))


@pytest.mark.parametrize("combine", [combine_ncti, combine_etran])
def test_combination_of_one_model_of_ties_and_of_bad_parts(combine):
    assert combine(ZOO[:1]).tolist() == [0.5]
    assert combine([ZOO[0], ZOO[0]]).tolist() == [0.5, 0.5]
    order = combine([ZOO[0], ZOO[1], ZOO[2]])
    torch.testing.assert_close(combine([ZOO[2], ZOO[0], ZOO[1]]), order[[2, 0, 1]])
    with pytest.raises(ValueError, match="at least one model"):
        combine([])
    with pytest.raises(ValueError, match=r"lacks at \[1\]"):
        combine([ZOO[0], {}])
    with pytest.raises(ValueError, match="finite"):
        combine([ZOO[0], dict.fromkeys(ZOO[0], math.nan)])


def test_etran_wants_exactly_one_kind_of_target():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="exactly one"):
        etran(inputs["features"])
    with pytest.raises(ValueError, match="exactly one"):
        etran(inputs["features"], inputs["labels"], targets=inputs["targets"])


# ---- PARC ------------------------------------------------------------------------------------------------------------


@quick
@given(some_data, st.sampled_from([None, 2, 4]))
def test_parc_ignores_shift_and_scale_of_each_feature(inputs, pca_dim):
    features, labels = pair(inputs)
    score = float(parc(features, labels, pca_dim=pca_dim))
    assert -100 <= score <= 100
    moved = 7.0 * features - 3.0
    if pca_dim is None:
        moved = moved * torch.linspace(0.5, 4.0, features.shape[1], dtype=torch.float64)
    assert float(parc(moved, labels, pca_dim=pca_dim)) == pytest.approx(score, abs=1e-6)


def test_parc_uses_a_seeded_sample_at_most():
    features, labels = pair(make_inputs(n=400))
    scores = [float(parc(features, labels, keep_samples=100, seed=seed)) for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]
    assert float(parc(features, labels)) == float(parc(features, labels, keep_samples=None))


def test_parc_refuses_what_has_no_correlation():
    features, labels = pair(make_inputs())
    with pytest.raises(ValueError, match="`features` to have at least 2 columns"):
        parc(features[:, :1], labels)
    with pytest.raises(ValueError, match="`labels` to differ"):
        parc(features, torch.zeros_like(labels))
    with pytest.raises(ValueError, match="2 or more columns of zeros and ones"):
        parc(features, torch.stack([labels, labels], dim=1))
    with pytest.raises(ValueError, match="`pca_dim`"):
        parc(features, labels, pca_dim=1)


# ---- PACTran ---------------------------------------------------------------------------------------------------------


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


# ---- LFC, EMMS -------------------------------------------------------------------------------------------------------


@quick
@given(some_data, st.floats(1e-3, 1e3))
def test_lfc_ignores_rotation_and_scale(inputs, scale):
    features, labels = pair(inputs)
    score = float(lfc(features, labels))
    assert -1 <= score <= 1
    moved = scale * features @ random_rotation(features.shape[1])
    assert float(lfc(moved, labels)) == pytest.approx(score, abs=1e-9)


def test_lfc_of_indicators_is_one():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    assert float(lfc(torch.nn.functional.one_hot(labels).double(), labels)) == pytest.approx(1.0, abs=1e-12)


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
