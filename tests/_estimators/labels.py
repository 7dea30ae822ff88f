"""Scores of labels, source predictions, neighbours and transport."""

from __future__ import annotations

import functools
import math

import torch
from _helpers import Estimator, Golden, make_inputs

from lightning_transfer import functional, metrics


def label_entropy(inputs):
    shares = torch.bincount(inputs["labels"]).double() / len(inputs["labels"])
    return -float(torch.xlogy(shares, shares).sum())


def minus_entropy_to_zero(inputs):
    return -label_entropy(inputs), 0.0


SOURCE = make_inputs(seed=50, n=90)
SOURCE = (SOURCE["features"], SOURCE["source_labels"])


def as_wide_as_the_source(inputs):
    return {**inputs, "features": inputs["features"][:, : SOURCE[0].shape[1]]}


ROWS = [
    Estimator(
        "nce",
        functional.negative_conditional_entropy,
        metrics.NCE,
        inputs=("source_labels", "labels"),
        golden=Golden("nce[thuml/LogME]", absolute=1e-9),
        bounds=minus_entropy_to_zero,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "nce_miller_madow",
        functional.negative_conditional_entropy,
        metrics.NCE,
        inputs=("source_labels", "labels"),
        arguments={"miller_madow": True, "source_log_likelihood": -0.25},
        metric_arguments={"jackknife_groups": 6},
    ),
    Estimator(
        "task_hardness",
        functional.task_hardness,
        metrics.TaskHardness,
        inputs=("labels",),
        bounds=lambda inputs: (0.0, math.log(len(inputs["labels"].unique()))),
        invariances=frozenset({"repeat"}),
        one_class="defined",
        golden=Golden("hardness[definition]", absolute=1e-9),
    ),
    Estimator(
        "leep",
        functional.leep,
        metrics.LEEP,
        inputs=("source_probs", "labels"),
        golden=Golden("leep[thuml/LogME]", absolute=1e-9),
        bounds=minus_entropy_to_zero,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "nleep",
        functional.nleep,
        metrics.NLEEP,
        inputs=("features", "labels"),
        arguments={"components_per_class": 2},
        bounds=minus_entropy_to_zero,
        invariances=frozenset({"shift"}),
        tolerance=1e-8,
    ),
    Estimator(
        "knn_accuracy",
        functional.knn_accuracy,
        metrics.KNNAccuracy,
        inputs=("features", "labels"),
        bounds=lambda inputs: (0.0, 1.0),
        invariances=frozenset({"shift", "scale", "rotation"}),
        golden=Golden("knn1_leave_one_out[scikit-learn]", absolute=1e-3),
    ),
    Estimator(
        "knn_accuracy_5",
        functional.knn_accuracy,
        metrics.KNNAccuracy,
        inputs=("features", "labels"),
        arguments={"k": 5},
        class_order_matters=True,
        bounds=lambda inputs: (0.0, 1.0),
        invariances=frozenset({"shift", "scale", "rotation"}),
        golden=Golden("knn5_leave_one_out[scikit-learn]", absolute=1e-3),
    ),
    Estimator(
        "knn_accuracy_cosine",
        functional.knn_accuracy,
        metrics.KNNAccuracy,
        inputs=("features", "labels"),
        arguments={"k": 5, "distance": "cosine"},
        class_order_matters=True,
        bounds=lambda inputs: (0.0, 1.0),
        invariances=frozenset({"scale", "rotation"}),
    ),
    Estimator(
        "otce",
        functools.partial(functional.otce, *SOURCE),
        functools.partial(metrics.OTCE, *SOURCE),
        inputs=("features", "labels"),
        prepare=as_wide_as_the_source,
        bounds=minus_entropy_to_zero,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "jc_nce",
        functools.partial(functional.otce, *SOURCE),
        functools.partial(metrics.OTCE, *SOURCE),
        inputs=("features", "labels"),
        prepare=as_wide_as_the_source,
        arguments={"label_weight": 0.5},
        bounds=minus_entropy_to_zero,
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "energy",
        functional.energy_score,
        metrics.Energy,
        inputs=("source_outputs",),
        invariances=frozenset({"repeat"}),
    ),
    Estimator(
        "energy_lowest",
        functional.energy_score,
        metrics.Energy,
        inputs=("source_outputs",),
        arguments={"lowest_fraction": 0.3},
    ),
]
