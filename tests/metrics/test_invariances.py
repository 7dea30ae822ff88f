"""Every cell of the table of docs/scores.md that says what leaves a score as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lightning_transfer.metrics.registry import METRICS

DOCS = Path(__file__).parents[2] / "docs/scores.md"
CHANGES = ("scaled", "shifted", "rotated", "each feature scaled", "classes renamed")
N, D, C = 90, 5, 3


def samples():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N) % C
    features = torch.randn(N, D, generator=generator, dtype=torch.float64) + torch.eye(C, D)[labels] + 1
    features = 0.3 * features  # small, so that what is added to a covariance counts
    probs = torch.softmax(torch.randn(N, 4, generator=generator, dtype=torch.float64) + torch.eye(C, 4)[labels], 1)
    return {"features": features, "labels": labels, "source_probs": probs, "source_labels": probs.argmax(1)}


def changed(values, how):
    features, labels = values["features"], values["labels"]
    if how == "scaled":
        features = 3 * features
    elif how == "shifted":
        features = features + torch.arange(1.0, D + 1)
    elif how == "rotated":
        generator = torch.Generator().manual_seed(1)
        features = features @ torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))[0]
    elif how == "each feature scaled":
        features = features * torch.logspace(-1, 1, D)
    else:
        labels = (labels + 1) % C
    return {**values, "features": features, "labels": labels}


def score(name, values):
    metric = METRICS[name].build("classification")
    metric.update(**{need: values[need] for need in metric.requires})
    return float(metric.compute())


def table():
    text = DOCS.read_text().partition("## What leaves a score as it is")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {re.findall(r"`(\w+)`", row[0])[0]: dict(zip(CHANGES, row[1:], strict=True)) for row in rows}


TABLE = table()


def test_the_table_names_every_score_of_features_and_classes():
    wanted = {
        name
        for name, spec in METRICS.items()
        if "classification" in spec.tasks and "features" in spec.requires and not spec.metric_class.needs_reference
    }
    assert {name for name in TABLE if "features" in METRICS[name].requires} >= wanted - {"ridge_probe"}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.filterwarnings("ignore")
def test_cells(name):
    values = samples()
    before = score(name, values)
    seen = {}
    for how in CHANGES:
        same = score(name, changed(values, how)) == pytest.approx(before, rel=1e-6, abs=1e-9)
        seen[how] = "✓" if same else "\u2013"
    assert seen == TABLE[name]
