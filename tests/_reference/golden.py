"""Seeded inputs and what public code gave on them, for tests of every estimator.

``golden_inputs`` rebuilds the arrays; ``_fixtures/golden.json`` holds the values, one entry a case, keyed by score and
by the code that gave the value. Public code is not always right: the tests say where they compare and where they must
differ.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

FIXTURE = Path(__file__).parents[1] / "_fixtures" / "golden.json"
CLASSIFICATION = ("gaussian", "many_classes", "imbalanced", "wide", "offset", "digits")
REGRESSION = ("regression", "regression_wide")

# seed, samples, features, classes, source classes, spread of the class centres, offset, class shares
_MIXTURES = {
    "gaussian": (11, 600, 32, 5, 8, 1.0, 0.0, None),
    "many_classes": (12, 2000, 48, 50, 20, 0.7, 0.0, None),
    "imbalanced": (13, 500, 24, 5, 6, 1.0, 0.0, np.array([0.6, 0.2, 0.1, 0.06, 0.04])),
    "wide": (14, 90, 160, 4, 10, 1.0, 0.0, None),
    "offset": (15, 800, 16, 3, 5, 1.0, 100.0, None),
}
# seed, samples, features, targets, source outputs, noise
_LINEAR = {"regression": (21, 400, 24, 3, 5, 0.5), "regression_wide": (22, 60, 100, 2, 3, 0.2)}


def _softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _with_probs(features, labels, logits):
    probs = _softmax(logits)
    return {
        "features": features,
        "labels": labels.astype(np.int64),
        "source_probs": probs,
        "source_labels": probs.argmax(axis=1),
    }


def _mixture(seed, n, d, classes, source_classes, spread, offset, shares):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=n, p=shares)
    labels[:classes] = np.arange(classes)
    centres = spread * rng.standard_normal((classes, d))
    features = offset + centres[labels] + np.linspace(0.3, 2.0, d) * rng.standard_normal((n, d))
    return _with_probs(features, labels, features @ rng.standard_normal((d, source_classes)) / np.sqrt(d))


def _linear(seed, n, d, m, s, noise):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    targets = features @ rng.standard_normal((d, m)) / np.sqrt(d) + noise * rng.standard_normal((n, m))
    outputs = features @ rng.standard_normal((d, s)) / np.sqrt(d) + 0.1 * rng.standard_normal((n, s))
    return {"features": features, "targets": targets, "source_outputs": outputs}


def _digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    features = images / 16.0
    return _with_probs(features, labels, features @ np.random.default_rng(31).standard_normal((64, 12)))


@cache
def golden_inputs(case: str) -> dict[str, torch.Tensor]:
    """Inputs of a case: features and labels, source_probs, source_labels or targets, source_outputs."""
    if case in _MIXTURES:
        arrays = _mixture(*_MIXTURES[case])
    else:
        arrays = _digits() if case == "digits" else _linear(*_LINEAR[case])
    return {name: torch.as_tensor(values) for name, values in arrays.items()}


@cache
def golden_values(case: str) -> dict[str, float]:
    """Values of a case, keyed ``score[code]``."""
    return json.loads(FIXTURE.read_text())[case]


@cache
def formula_inputs() -> dict[str, torch.Tensor]:
    """A small set without random numbers: 60 samples, 8 features, 3 classes, 5 source classes."""
    i = np.arange(60)[:, None]
    labels = np.arange(60) % 3
    j, k = np.arange(8), np.arange(5)
    features = np.sin(0.7 * i + 1.3 * j) + 0.5 * np.cos(0.1 * i * j) + 0.8 * np.cos(2 * labels[:, None] + j)
    logits = 1.5 * np.cos(0.9 * i + 1.7 * k) + (k == labels[:, None])
    arrays = _with_probs(features, labels, logits)
    return {name: torch.as_tensor(values) for name, values in arrays.items()}
