"""Backbones for a target without labels: which of five ways follows the accuracy of a probe on the true labels?

    python benchmarks/relatedness_unlabelled.py --emoji emoji64.npz --cache features.npz

The thirteen encoders of ``image_tasks.py`` are ranked for five targets, whose labels are only used to judge. Ways, each
on held-out halves: ``classifier`` and ``kmeans`` (the bound on pseudo-labels, of the transformed classifier or of
clusters that are matched with reference classes), ``confidence`` (a bound that takes the most probable reference class
of each target sample for its label and learns no map), ``dimension`` (minus the width of the features) and
``reference_loss`` (held-out loss of a classifier of the reference). Figures: Spearman correlation with the probe's
accuracy, and what the first choice loses against the best. Writes ``benchmarks/results/relatedness_unlabelled.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from image_tasks import encode, load_labels
from relatedness_defaults import Side, judged, pairs
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_transfer.functional import task_relatedness
from lightning_transfer.relatedness.bound import Transforms, certify
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.crossfit import folds
from lightning_transfer.relatedness.probe import validated
from lightning_transfer.relatedness.problem import Problem
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import FeatureMap

RESULTS = Path(__file__).parent / "results" / "relatedness_unlabelled.json"
WAYS = ("classifier", "kmeans")
PAIRS = (
    "emoji, 9 categories",
    "emoji, 70 sub-categories",
    "emoji to photo patches",
    "halves of the garments",
    "garments to digits",
)


def by_confidence(reference: Tensor, labels: Tensor, target: Tensor) -> float:
    """Bound on the labels that a classifier of the reference gives, with that classifier and no map."""
    total = 0.0
    for learn, rest, _ in folds((reference, labels, target, None), 0):
        (z, y, x, _), problem = rest.data, Problem.build(*learn.data, head=None, config=BoundConfig())
        count = problem.reference.num_classes
        head = validated(problem.reference, problem.reference.prior).head
        numbers = (y[:, None] == problem.reference_ids).double().argmax(1)
        z, x = problem.frame.reference(z), problem.frame.target(x)
        same = torch.eye(count, dtype=torch.float64)
        transforms = Transforms(head, FeatureMap.identity(x), same, same)
        found = Sample(x, transforms.predict(x), count)
        total += certify(transforms, Sample(z, numbers, count), found, "loss", 1000).bound / 2
    return total


def measure(features: dict[str, Tensor], reference: Side, target: Side) -> dict[str, Any]:
    """Values of every way for one encoder, lower is better, and the accuracy of a probe on the true labels."""
    z, y, x, t = features[reference[0]][reference[1]], reference[2], features[target[0]][target[1]], target[2]
    count = len(t.unique())
    given = task_relatedness(z, y, x, t)
    found = {kind: task_relatedness(z, y, x, num_target_classes=count, pseudo_labels=kind) for kind in WAYS}
    return {
        **{kind: result.bound for kind, result in found.items()},
        "confidence": by_confidence(z, y, x),
        "dimension": -float(x.shape[1]),
        "reference_loss": found["classifier"].reference_loss,
        "with labels": given.bound,
        "accuracy": given.probe_accuracy,
    }


def main() -> None:
    """Measure, print and write; what the file holds is not measured again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where features are kept between runs (.npz)")
    arguments = parser.parse_args()
    encoders, tasks = encode(arguments.emoji, arguments.cache), pairs(load_labels(arguments.emoji))
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for pair in PAIRS:
        values = record.setdefault(pair, {})
        for name, features in encoders.items():
            if name not in values:
                values[name] = measure(features, *tasks[pair])
                RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    show(record)


def show(record: dict[str, Any]) -> None:
    """Spearman correlation and regret of each way on each target."""
    table = Table("way", *record)
    for way in ("classifier", "kmeans", "confidence", "dimension", "reference_loss", "with labels"):
        cells = []
        for pair in record:
            accuracies = {name: each["accuracy"] for name, each in record[pair].items()}
            rho, _, regret = judged({name: -each[way] for name, each in record[pair].items()}, accuracies)
            cells.append(f"{rho} / {regret}")
        table.add_row(way, *cells)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
