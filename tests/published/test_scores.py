"""Released code: the values that it printed, and the two ways to ask for it."""

from __future__ import annotations

import importlib

import pytest
import torch
from _helpers import feed, make_inputs
from _reference.golden import formula_inputs, golden_inputs, golden_values
from _reference.sample_scores import reference_pactran

from lightning_transfer import functional
from lightning_transfer.functional import (
    emms,
    etran_parts,
    gbc,
    ncti_parts,
    pactran,
    pactran_dirichlet,
    pactran_gamma,
    parc,
    sfda,
    transrate,
)
from lightning_transfer.metrics import EMMS, GBC, NCTI, SFDA, ETran, PACTran, TransRate


def wave_embeddings():
    """Three embeddings of three classes, width 6, by a formula."""
    c, q, k = torch.arange(3)[:, None, None].double(), torch.arange(6)[None, :, None].double(), torch.arange(3).double()
    return torch.cos((k + 1) * c + 0.5 * (k + 2) * q).double()


FEATURES, PROBS = ("features", "labels"), ("source_probs", "labels")
OFFICIAL = {"variant": "official"}
PUBLISHED = [
    ("transrate", transrate, TransRate, FEATURES, {}, 0.9123473219),  # balanced classes: both variants
    ("transrate official", transrate, TransRate, FEATURES, OFFICIAL, 0.9123473219),
    ("gbc google", gbc, GBC, FEATURES, OFFICIAL, -1.2443941839),
    ("gbc", gbc, GBC, FEATURES, {}, -1.2442723551),
    ("gbc diagonal", gbc, GBC, FEATURES, {"covariance": "diagonal"}, -1.2135414068),
    ("gbc streamed", gbc, GBC, FEATURES, {"pca_dim": None}, -1.2442723551),
    ("gbc diagonal streamed", gbc, GBC, FEATURES, {"pca_dim": None, "covariance": "diagonal"}, -1.2135414068),
    ("sfda", sfda, SFDA, FEATURES, OFFICIAL, 0.9657194934),
    ("dirichlet", pactran_dirichlet, lambda **o: PACTran("dirichlet", **o), PROBS, OFFICIAL, 0.3661579801),
    ("gamma", pactran_gamma, lambda **o: PACTran("gamma", **o), PROBS, OFFICIAL, 1.3357252476),
    ("emms", emms, EMMS, FEATURES, {"embeddings": wave_embeddings(), **OFFICIAL}, -0.2826873177),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "metric", "names", "options", "expected"),
    [row[1:] for row in PUBLISHED],
    ids=[r[0] for r in PUBLISHED],
)
def test_published_values_of_the_formula_data(function, metric, names, options, expected):
    inputs = {name: formula_inputs()[name] for name in names}
    assert float(function(**inputs, **options)) == pytest.approx(expected, abs=6e-11)
    for sizes in ([], [1, 7, 30], [20] * 3):
        assert float(feed(metric(**options), inputs, sizes).compute()) == pytest.approx(expected, abs=6e-11)


def test_published_parts_of_the_formula_data():
    inputs = {name: formula_inputs()[name] for name in FEATURES}
    for parts in (ncti_parts(**inputs, pca_dim=8), feed(NCTI(pca_dim=8), inputs, [9, 9]).parts()):
        assert float(parts["seli"]) == pytest.approx(59.4833496950, abs=6e-11)
        assert float(parts["ncc"]) == pytest.approx(0.9999149973, abs=6e-11)
        assert float(parts["variability"]) == pytest.approx(2.5966798112, abs=6e-11)
    for parts in (etran_parts(**inputs, variant="official"), feed(ETran(variant="official"), inputs, [31]).parts()):
        assert float(parts["fit"]) == pytest.approx(0.7041317777, abs=6e-11)
    for parts in (etran_parts(**inputs), feed(ETran(), inputs, [31]).parts()):
        assert float(parts["energy"]) == pytest.approx(2.5512646701, abs=6e-11)


@pytest.mark.parametrize(
    ("lambda_factor", "variance_factor", "expected"),
    [(1, 100, 13.0516629181), (1, 10, 1.5061622766), (10, 1000, 15.1588), (10, 100, 1.5715), (0.1, 10, 10.2630), (0.1,
    1, 1.5422)],
)  # fmt: skip
def test_published_pactran_gauss_of_the_formula_data(lambda_factor, variance_factor, expected):
    # the published code stops early, at a value that is good to four digits only
    inputs = {name: formula_inputs()[name] for name in FEATURES}
    options = {"lambda_factor": lambda_factor, "variance_factor": variance_factor, "variant": "official"}
    score = float(pactran(**inputs, **options))
    assert score == pytest.approx(expected, rel=4e-4)
    assert float(feed(PACTran(**options), inputs, [1, 7, 30]).compute()) == pytest.approx(score, rel=1e-7)
    x, y = inputs["features"].numpy(), inputs["labels"].numpy()
    assert score == pytest.approx(reference_pactran(x, y, lambda_factor, variance_factor, True), rel=1e-6)


def test_published_parc_of_the_formula_data():
    # ties broken by rounding errors move the published value, 33.99157, which is of one machine, off the exact 33.91297
    inputs = {name: formula_inputs()[name] for name in FEATURES}
    assert float(parc(**inputs)) == pytest.approx(33.9129735465, abs=1e-9)
    assert float(parc(**inputs, variant="official")) == pytest.approx(33.9915690803, abs=3)
    inputs = {name: golden_inputs("digits")[name] for name in FEATURES}
    official = float(parc(**inputs, variant="official", keep_samples=None))
    assert official == pytest.approx(golden_values("digits")["parc[TencentARC/SFDA]"], abs=3)


@pytest.mark.parametrize(("case", "tolerance"), [("gaussian", 3), ("many_classes", 3), ("wide", 1e-6), ("digits", 3)])
def test_published_parc_of_32_components(case, tolerance):
    inputs = {name: golden_inputs(case)[name] for name in FEATURES}
    official = float(parc(**inputs, pca_dim=32, variant="official", keep_samples=None))
    assert official == pytest.approx(golden_values(case)["parc32[TencentARC/SFDA]"], abs=tolerance)


def test_official_source_priors_are_the_bound_over_the_entries_of_the_one_hot_labels():
    inputs = make_inputs(seed=3)
    probs, y = inputs["source_probs"], inputs["labels"]
    bound = float(pactran_dirichlet(probs, y, variant="official"))
    assert bound * 4 == pytest.approx(-float(pactran_dirichlet(probs, y)))
    bound = float(pactran_gamma(probs, y, variant="official"))
    assert (bound - 1) * 4 + 1 == pytest.approx(-float(pactran_gamma(probs, y)))


SCORES = {
    "transrate": ["features", "labels"], "gbc": ["features", "labels"], "sfda": ["features", "labels"],
    "parc": ["features", "labels"], "etran_parts": ["features", "labels"], "pactran": ["features", "labels"],
    "pactran_dirichlet": ["source_probs", "labels"], "pactran_gamma": ["source_probs", "labels"],
    "linear_mse": ["features", "targets"], "label_mse": ["source_outputs", "targets"], "emms": ["features", "labels"],
}  # fmt: skip
MODULES = {
    "etran_parts": "etran",
    "pactran_dirichlet": "pactran",
    "pactran_gamma": "pactran",
    "label_mse": "linear_mse",
}


@pytest.mark.parametrize("name", SCORES)
def test_the_variant_is_the_published_function(name):
    inputs = make_inputs(2)
    arguments = [inputs[kind] for kind in SCORES[name]]
    module = importlib.import_module(f"lightning_transfer.published.{MODULES.get(name, name)}")
    value = getattr(module, name)(*arguments)
    expected = getattr(functional, name)(*arguments, variant="official")
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    paper = getattr(functional, name)(*arguments)
    if name == "etran_parts":
        value, paper = value["fit"], paper["fit"]
    if name != "parc":  # here no tie is broken and there is no PCA
        assert abs(float(value) - float(paper)) > 1e-6


def test_published_gbc_has_an_absolute_floor():
    inputs = make_inputs(3)
    features, labels = inputs["features"], inputs["labels"]
    assert float(gbc(1e-9 * features, labels)) == pytest.approx(float(gbc(features, labels)), rel=1e-9)
    assert float(gbc(1e-9 * features, labels, variant="official")) == pytest.approx(-12)  # all classes overlap
