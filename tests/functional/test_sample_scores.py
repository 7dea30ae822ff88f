"""TransRate, GBC, SFDA, PARC, NCTI, ETran, PACTran, LFC and EMMS against plain versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import feed, make_inputs
from _reference.sample_scores import (
    reference_emms,
    reference_etran_parts,
    reference_etran_regression,
    reference_gbc,
    reference_lfc,
    reference_ncti_parts,
    reference_pactran,
    reference_pactran_dirichlet,
    reference_pactran_gamma,
    reference_parc,
    reference_sfda,
    reference_transrate,
)

from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.etran import etran, etran_parts
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.ncti import ncti
from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.sfda import sfda
from lightning_transfer.functional.transrate import transrate
from lightning_transfer.metrics.emms import EMMS
from lightning_transfer.metrics.lfc import LFC
from lightning_transfer.metrics.parc import PARC

# ---- plain versions --------------------------------------------------------------------------------------------------


def one_hot(labels):
    return np.eye(labels.max() + 1)[labels]


def raw_ncti(features, labels):
    parts = reference_ncti_parts(features, labels)
    return parts["ncc"] + parts["seli"] - parts["variability"]


def raw_etran(features, labels, official=False):
    parts = reference_etran_parts(features, labels, official)
    return 0.15 * parts["energy"] + 0.85 * parts["fit"]


REFERENCES = [
    ("transrate", transrate, reference_transrate, 1e-9),
    ("transrate eps", lambda x, y: transrate(x, y, eps=0.3), lambda x, y: reference_transrate(x, y, eps=0.3), 1e-9),
    ("transrate official", lambda x, y: transrate(x, y, variant="official"),
     lambda x, y: reference_transrate(x, y, weighted=False), 1e-9),
    ("gbc", gbc, reference_gbc, 1e-9),
    ("gbc official", lambda x, y: gbc(x, y, variant="official"),
     lambda x, y: reference_gbc(x, y, official=True), 1e-9),
    ("gbc pca", lambda x, y: gbc(x, y, pca_dim=5, covariance="diagonal"),
     lambda x, y: reference_gbc(x, y, pca_dim=5, covariance="diagonal"), 1e-9),
    ("gbc floor", lambda x, y: gbc(x, y, pca_dim=None, variance_floor=0.8),
     lambda x, y: reference_gbc(x, y, pca_dim=None, floor=0.8), 1e-9),
    ("sfda", sfda, reference_sfda, 1e-6),
    ("sfda official", lambda x, y: sfda(x, y, variant="official"), lambda x, y: reference_sfda(x, y, True), 1e-6),
    ("parc", parc, lambda x, y: reference_parc(x, one_hot(y)), 1e-9),
    ("parc pca", lambda x, y: parc(x, y, pca_dim=4), lambda x, y: reference_parc(x, one_hot(y), 4), 1e-7),
    ("ncti", ncti, raw_ncti, 1e-7),
    ("etran", etran, raw_etran, 1e-6),
    ("etran official", lambda x, y: etran(x, y, variant="official"), lambda x, y: raw_etran(x, y, True), 1e-9),
    ("pactran", pactran, lambda x, y: -reference_pactran(x, y, 1.0, 10.0, False), 1e-6),
    ("lfc", lfc, reference_lfc, 1e-9),
    ("emms", emms, lambda x, y: reference_emms(x, one_hot(y)[:, :, None]) / (len(y) * (y.max() + 1)), 1e-8),
]  # fmt: skip


def data(name):
    """Features and labels 0 .. c - 1 of a kind."""
    sizes = {"plain": {}, "wide": {"n": 30, "d": 45}, "barely wide": {"n": 30, "d": 31}, "two classes": {"classes": 2}}
    inputs = make_inputs(seed=7, **sizes.get(name, {}))
    x, y = inputs["features"], inputs["labels"]
    if name == "singletons":
        y = torch.cat([torch.tensor([0, 1, 2, 3]).repeat_interleave(27)[: len(y) - 2], torch.tensor([4, 5])])
    if name == "constant feature":
        x[:, 2] = 3.0
    if name == "far from zero":
        x = x + 1e4
    if name == "small":
        x = 0.2 * x
    return x, y


@pytest.mark.parametrize(
    "kind",
    ["plain", "small", "wide", "barely wide", "two classes", "singletons", "constant feature", "far from zero"],
)
@pytest.mark.parametrize(
    ("function", "reference", "tolerance"), [row[1:] for row in REFERENCES], ids=[row[0] for row in REFERENCES]
)
@pytest.mark.filterwarnings("ignore:Degrees of freedom")
def test_equals_the_plain_version(function, reference, tolerance, kind):
    x, y = data(kind)
    if kind == "far from zero":
        tolerance = max(tolerance, 1e-6)
    assert float(function(x, y)) == pytest.approx(float(reference(x.numpy(), y.numpy())), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("kind", ["plain", "two classes", "singletons"])
def test_source_priors_equal_the_plain_version(kind):
    _, y = data(kind)
    probs = make_inputs(seed=3)["source_probs"]
    expected = reference_pactran_dirichlet(probs.numpy(), y.numpy(), alpha=2.0)
    assert float(pactran_dirichlet(probs, y, alpha=2.0)) == pytest.approx(-expected, abs=1e-7)
    expected = reference_pactran_gamma(probs.numpy(), y.numpy(), alpha=2.0)
    assert float(pactran_gamma(probs, y, alpha=2.0)) == pytest.approx(-expected, abs=1e-7)


@pytest.mark.parametrize("kind", ["plain", "wide", "far from zero"])
def test_etran_of_targets_equals_least_squares(kind):
    x, _ = data(kind)
    targets = make_inputs(seed=7, n=len(x))["targets"]
    expected = reference_etran_regression(x.numpy(), targets.numpy())
    assert float(etran_parts(x, targets=targets)["fit"]) == pytest.approx(expected, rel=1e-6, abs=1e-10)


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


def test_lfc_streams_without_loss_far_from_zero():
    x, y = data("plain")
    metric = feed(LFC(), {"features": x + 300.0, "labels": y}, [13, 40])
    assert float(metric.compute()) == pytest.approx(reference_lfc((x + 300.0).numpy(), y.numpy()), rel=1e-9)


def test_parc_of_attributes():
    x, y = data("plain")
    attributes = torch.stack([y > 1, y == 2, x[:, 0] > 0.5, x[:, 1] > x[:, 2]], dim=1)
    attributes[0] = False  # does not vary: at distance 1 from all
    rows = attributes.double().numpy()
    with np.errstate(invalid="ignore"):
        distances = 1 - np.nan_to_num(np.corrcoef(rows))
    upper = np.triu_indices(len(rows), 1)
    from scipy.stats import spearmanr
    from sklearn.preprocessing import StandardScaler

    features = 1 - np.corrcoef(StandardScaler().fit_transform(x.numpy()))
    expected = 100 * spearmanr(features[upper].round(10), distances[upper].round(10))[0]
    assert float(parc(x, attributes)) == pytest.approx(expected, rel=1e-9)
    metric = feed(PARC(), {"features": x, "labels": attributes}, [30, 30])
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-9)
