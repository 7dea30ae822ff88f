"""Rows of the scores of features with class ids that need samples, and of LFC and EMMS."""

from __future__ import annotations

import math
from functools import partial

from _helpers import Estimator, Golden

from lightning_transfer.functional.cka import cka
from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.etran import etran
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.ncti import ncti
from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.rankme import rankme
from lightning_transfer.functional.sfda import sfda
from lightning_transfer.functional.transrate import transrate
from lightning_transfer.metrics.cka import CKA
from lightning_transfer.metrics.emms import EMMS
from lightning_transfer.metrics.etran import ETran
from lightning_transfer.metrics.gbc import GBC
from lightning_transfer.metrics.lfc import LFC
from lightning_transfer.metrics.ncti import NCTI
from lightning_transfer.metrics.pactran import PACTran
from lightning_transfer.metrics.parc import PARC
from lightning_transfer.metrics.rankme import RankMe
from lightning_transfer.metrics.sfda import SFDA
from lightning_transfer.metrics.transrate import TransRate

CLASSES = ("features", "labels")
RIGID = frozenset({"shift", "rotation", "repeat"})
FEW = {"num_resamples": 4}


def gbc_bounds(inputs):
    classes = len(inputs["labels"].unique())
    return -classes * (classes - 1), 0.0


def at_most_zero(inputs):
    return -math.inf, 0.0


ROWS = [
    Estimator(
        "transrate", transrate, TransRate, CLASSES, metric_arguments=FEW, bounds=lambda inputs: (0.0, math.inf),
        invariances=RIGID,
    ),
    Estimator(
        "transrate_official", transrate, TransRate, CLASSES, {"variant": "official"}, FEW,
        invariances=RIGID, golden=Golden("transrate[tllib]", relative=1e-6),
    ),
    Estimator("gbc", gbc, GBC, CLASSES, metric_arguments=FEW, bounds=gbc_bounds, invariances=RIGID),
    Estimator(
        "gbc_pca_diagonal", gbc, GBC, CLASSES, {"pca_dim": 4, "covariance": "diagonal"}, FEW, bounds=gbc_bounds,
        invariances=RIGID,
    ),
    Estimator(
        "gbc_streaming", gbc, GBC, CLASSES, {"pca_dim": None, "covariance": "diagonal"}, {"jackknife_groups": 5},
        bounds=gbc_bounds, invariances=frozenset({"shift", "repeat"}),
    ),
    Estimator("sfda", sfda, SFDA, CLASSES, metric_arguments=FEW, bounds=at_most_zero, invariances=RIGID),
    Estimator(
        "sfda_official", sfda, SFDA, CLASSES, {"variant": "official"}, FEW, bounds=lambda inputs: (0.0, 1.0),
        invariances=frozenset({"shift", "repeat"}), golden=Golden("sfda[TencentARC/SFDA]", relative=1e-6),
    ),
    Estimator(
        "parc", partial(parc, keep_samples=None), PARC, CLASSES, metric_arguments=FEW,
        bounds=lambda inputs: (-100.0, 100.0), invariances=frozenset({"shift", "scale"}), tolerance=1e-7,
    ),
    Estimator(  # ties are broken by rounding errors, which differ by some points between processors
        "parc_official", partial(parc, keep_samples=None), PARC, CLASSES, {"variant": "official"},
        {"keep_samples": None, **FEW}, class_order_matters=True, tolerance=1e-7,
        golden=Golden("parc[TencentARC/SFDA]", absolute=3.0),
    ),
    Estimator(
        "parc_pca", partial(parc, keep_samples=None), PARC, CLASSES, {"pca_dim": 32}, {"keep_samples": None, **FEW},
        tolerance=1e-7, invariances=frozenset({"shift"}),
        golden=Golden("parc32[TencentARC/SFDA]", absolute=0.5, without=("wide",)),
    ),
    Estimator("ncti", ncti, NCTI, CLASSES, metric_arguments=FEW, invariances=frozenset({"shift", "rotation"})),
    Estimator("etran", etran, ETran, CLASSES, metric_arguments=FEW, invariances=frozenset({"repeat"})),
    Estimator("etran_official", etran, ETran, CLASSES, {"variant": "official"}, FEW),
    Estimator(
        "etran_regression", etran, partial(ETran, "regression"), ("features", "targets"), metric_arguments=FEW,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "pactran", pactran, PACTran, CLASSES, metric_arguments=FEW, bounds=at_most_zero,
        invariances=frozenset({"shift", "rotation"}), tolerance=1e-6, dtype_tolerance=1e-6,
    ),
    Estimator(
        "pactran_official", pactran, PACTran, CLASSES, {"variant": "official", "lambda_factor": 0.1}, FEW,
        bounds=lambda inputs: (0.0, math.inf), tolerance=1e-6,
    ),
    Estimator(
        "pactran_dirichlet", pactran_dirichlet, partial(PACTran, "dirichlet"), ("source_probs", "labels"),
        metric_arguments=FEW, bounds=at_most_zero,
    ),
    Estimator(
        "pactran_gamma", pactran_gamma, partial(PACTran, "gamma"), ("source_probs", "labels"), metric_arguments=FEW,
    ),
    Estimator(
        "lfc", lfc, LFC, CLASSES, metric_arguments={"jackknife_groups": 5}, bounds=lambda inputs: (-1.0, 1.0),
        invariances=frozenset({"scale", "rotation", "repeat"}),
    ),
    Estimator(
        "cka", cka, CKA, CLASSES, metric_arguments={"jackknife_groups": 5}, bounds=lambda inputs: (0.0, 1.0),
        invariances=frozenset({"shift", "scale", "rotation", "repeat"}),
    ),
    Estimator(
        "rankme", rankme, RankMe, ("features",), metric_arguments=FEW,
        bounds=lambda inputs: (0.0, min(inputs["features"].shape) * (1 + 1e-4)),
        invariances=frozenset({"scale", "rotation", "repeat"}),
    ),
    Estimator(
        "emms", emms, EMMS, CLASSES, metric_arguments={"jackknife_groups": 5}, bounds=at_most_zero,
        invariances=frozenset({"shift", "scale", "repeat"}),
    ),
    Estimator(
        "emms_regression", emms, partial(EMMS, task="regression"), ("features", "targets"),
        metric_arguments={"jackknife_groups": 5}, bounds=at_most_zero,
        invariances=frozenset({"shift", "scale", "rotation", "repeat"}), tolerance=1e-9,
    ),
]  # fmt: skip
