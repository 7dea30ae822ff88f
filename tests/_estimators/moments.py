"""Scores that follow from moments, and the ridge probe."""

from __future__ import annotations

import functools
import math

from _helpers import Estimator, Golden
from _reference.golden import CLASSIFICATION, REGRESSION

from lightning_transfer.functional import h_score, label_mse, linear_mse, log_maximum_evidence, ridge_probe
from lightning_transfer.metrics import HScore, LabelMSE, LinearMSE, LogME, RidgeProbe

CLASSES = ("features", "labels")
TARGETS = ("features", "targets")
OUTPUTS = ("source_outputs", "targets")


def up_to_classes(inputs):
    return 0.0, min(inputs["features"].shape[1], len(inputs["labels"].unique()) - 1)


def at_most_zero(inputs):
    return -math.inf, 0.0


def wide(inputs):
    """More features than samples."""
    features = inputs["features"]
    stretched = (features[:, None, :] * features[:, :, None]).flatten(1)
    return {name: values[:30] for name, values in {**inputs, "features": stretched}.items()}


@functools.wraps(log_maximum_evidence)
def evidence_of_targets(features, targets):
    return log_maximum_evidence(features, targets)


@functools.wraps(ridge_probe)
def probe_of_targets(features, targets):
    return ridge_probe(features, targets)


JACKKNIFE = {"jackknife_groups": 6}
# With fewer samples than features public code stops early, or leaves out part of the evidence: test_logme.py.
OTHER_THAN_CLASSES = (*REGRESSION, "wide")
OTHER_THAN_TARGETS = (*CLASSIFICATION, "regression_wide")

ROWS = [
    Estimator(
        "h_score", h_score, HScore, CLASSES, metric_arguments=JACKKNIFE, bounds=up_to_classes,
        invariances=frozenset({"shift", "scale", "rotation", "affine", "repeat"}),
        golden=Golden("h_score[tllib]", relative=1e-6),
    ),
    Estimator(
        "h_score_shrunk", h_score, HScore, CLASSES, {"shrinkage": "ledoit_wolf"}, JACKKNIFE, bounds=up_to_classes,
        invariances=frozenset({"shift", "scale", "rotation"}),
        golden=Golden("h_score_ledoit_wolf[tllib]", relative=1e-5, factor=lambda n: n / (n - 1)),
    ),
    Estimator(
        "h_score_half", h_score, HScore, CLASSES, {"shrinkage": 0.5}, JACKKNIFE, bounds=up_to_classes,
        invariances=frozenset({"shift", "scale", "rotation", "repeat"}),
    ),
    Estimator(
        "h_score_shrunk_wide", h_score, HScore, CLASSES, {"shrinkage": "ledoit_wolf"}, JACKKNIFE, prepare=wide,
        invariances=frozenset({"shift", "scale", "rotation"}),
    ),
    Estimator(
        "logme", log_maximum_evidence, LogME, CLASSES, metric_arguments=JACKKNIFE, reads_targets=True,
        invariances=frozenset({"scale", "rotation"}),
        golden=Golden("logme_icml[thuml/LogME]", absolute=2e-4, without=OTHER_THAN_CLASSES),
    ),
    Estimator(
        "logme_wide", log_maximum_evidence, LogME, CLASSES, metric_arguments=JACKKNIFE, reads_targets=True,
        prepare=wide, tolerance=1e-8, invariances=frozenset({"scale", "rotation"}),
    ),
    Estimator(
        "logme_regression", evidence_of_targets, LogME, TARGETS,
        metric_arguments={"task": "regression", **JACKKNIFE}, reads_targets=True,
        invariances=frozenset({"scale", "rotation"}),
        golden=Golden("logme_icml[thuml/LogME]", absolute=2e-4, without=OTHER_THAN_TARGETS),
    ),
    Estimator(
        "linear_mse", linear_mse, LinearMSE, TARGETS, metric_arguments=JACKKNIFE, bounds=at_most_zero,
        invariances=frozenset({"shift", "scale", "rotation", "affine", "repeat"}),
    ),
    Estimator(
        "linear_mse_1", linear_mse, LinearMSE, TARGETS, {"regularization": 1.0}, JACKKNIFE, bounds=at_most_zero,
        invariances=frozenset({"shift", "rotation", "repeat"}),
    ),
    Estimator(
        "linear_mse_official", linear_mse, LinearMSE, TARGETS, {"variant": "official"}, JACKKNIFE,
        bounds=at_most_zero, invariances=frozenset({"shift", "rotation", "repeat"}),
        # least squares interpolates the other case: the public value is 1e-30
        golden=Golden("lin_mse0_features[scikit-learn]", relative=1e-8, absolute=1e-14),
    ),
    Estimator(
        "linear_mse_official_1", linear_mse, LinearMSE, TARGETS, {"regularization": 1.0, "variant": "official"},
        JACKKNIFE, bounds=at_most_zero, golden=Golden("lin_mse_ridge1_features[scikit-learn]", relative=1e-8),
    ),
    Estimator(
        "linear_mse_official_0.01", linear_mse, LinearMSE, TARGETS, {"regularization": 0.01, "variant": "official"},
        JACKKNIFE, bounds=at_most_zero, golden=Golden("lin_mse_ridge0.01_features[scikit-learn]", relative=1e-8),
    ),
    Estimator(
        "label_mse", label_mse, LabelMSE, OUTPUTS, metric_arguments=JACKKNIFE, bounds=at_most_zero,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "label_mse_official", label_mse, LabelMSE, OUTPUTS, {"variant": "official"}, JACKKNIFE, bounds=at_most_zero,
        golden=Golden("lin_mse0_labels[scikit-learn]", relative=1e-8),
    ),
    Estimator(
        "label_mse_official_1", label_mse, LabelMSE, OUTPUTS, {"regularization": 1.0, "variant": "official"},
        JACKKNIFE, bounds=at_most_zero, golden=Golden("lin_mse_ridge1_labels[scikit-learn]", relative=1e-8),
    ),
    Estimator(
        "ridge_probe", ridge_probe, RidgeProbe, CLASSES, bounds=lambda inputs: (0.0, 1.0), class_order_matters=True,
        reads_targets=True, invariances=frozenset({"shift", "scale", "rotation"}),
    ),
    Estimator(
        "ridge_probe_regression", probe_of_targets, RidgeProbe, TARGETS, metric_arguments={"task": "regression"},
        reads_targets=True, bounds=lambda inputs: (-math.inf, 1.0),
        invariances=frozenset({"shift", "scale", "rotation"}),
    ),
]  # fmt: skip
