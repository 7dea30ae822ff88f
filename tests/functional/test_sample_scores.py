"""TransRate, GBC, SFDA, PARC, NCTI, ETran, PACTran, LFC and EMMS against plain versions."""

from __future__ import annotations

import numpy as np
import pytest
from _reference.sample_scores import (
    reference_emms,
    reference_etran_parts,
    reference_gbc,
    reference_lfc,
    reference_ncti_parts,
    reference_pactran,
    reference_parc,
    reference_sfda,
    reference_transrate,
)

from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.etran import etran
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.ncti import ncti
from lightning_transfer.functional.pactran import pactran
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.sfda import sfda
from lightning_transfer.functional.transrate import transrate
from tests.functional._inputs import data


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
