"""Which options should be the defaults of the bound: by value, by rank and by regret, on held-out halves.

    python benchmarks/relatedness_defaults.py --emoji emoji64.npz --cache features.npz
    python benchmarks/relatedness_defaults.py --emoji emoji64.npz --pairs categories --variants loss feature

The thirteen encoders of ``image_tasks.py`` (which says where the images come from) are ranked for a target by the bound
under each variant, and by two scores that need no reference. Columns: median bound over the entropy of the target
prior, how many are vacuous, Spearman correlation with the accuracy of a cross-fitted linear probe of the target and its
bootstrap interval over encoders, the accuracy that choosing by the bound loses against the best encoder, and processor
seconds a bound; beside each pair the least, middle and largest accuracy of an encoder. Adds to
``benchmarks/results/relatedness_defaults.json``, pair by pair and variant by variant.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tasks import Features, disjoint_rows, encode, load_labels
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from lightning_transfer.functional import knn_accuracy, logme, task_relatedness
from lightning_transfer.relatedness import TaskRelatednessResult

RESULTS = Path(__file__).parent / "results" / "relatedness_defaults.json"
VARIANTS: dict[str, dict[str, Any]] = {
    "loss": {},
    "logit_margin": {"ground_cost": "logit_margin"},
    "logit_range": {"ground_cost": "logit_range"},
    "feature": {"ground_cost": "feature"},
    "loss, dimension 32": {"dimension": 32},
    "loss, dimension 128": {"dimension": 128},
    "loss, orthogonal map": {"feature_map": "orthogonal"},
    "loss, tau 1": {"tau": 1.0},
    "loss, tau 4": {"tau": 4.0},
    "logit_margin, dimension 32": {"ground_cost": "logit_margin", "dimension": 32},
}
SCORES: dict[str, Callable[..., Any]] = {"logme": logme, "knn_accuracy": knn_accuracy}
Side = tuple[str, Tensor, Tensor]  # collection, rows, their classes


def pairs(labels: dict[str, Tensor]) -> dict[str, tuple[Side, Side]]:
    """Reference and target of each pair."""

    def emoji(key: str, *sizes: int) -> tuple[Side, Side]:
        reference, target = disjoint_rows(labels[key], *sizes)
        return ("google", reference, labels[key][reference]), ("twitter", target, labels[key][target])

    def some(name: str, classes: range, count: int = 1500) -> Side:
        rows = torch.isin(labels[name], torch.tensor(list(classes))).nonzero()[:count, 0]
        return name, rows, labels[name][rows]

    ten, patches = range(10), some("patches", range(20))
    return {
        "emoji, 9 categories": emoji("category", 900, 572, 1),
        "emoji, 70 sub-categories": emoji("subcategory", 854, 1052, 6),
        "emoji to photo patches": (emoji("subcategory", 854, 1052, 6)[0], patches),
        "halves of the garments": (some("garments", range(5)), some("garments", range(5, 10))),
        "garments to digits": (some("garments", ten), some("digits", ten)),
        "digits to garments": (some("digits", ten), some("garments", ten)),
        "emoji to garments": (emoji("category", 900, 572, 1)[0], some("garments", ten)),
        "halves of the digits": (some("digits", range(5)), some("digits", range(5, 10))),
    }


def measure(
    encoders: Features, reference: Side, target: Side, options: dict[str, Any], each: dict[str, Any]
) -> Iterator[tuple[str, TaskRelatednessResult]]:
    """Bounds of the encoders that have none yet for one pair, one after the other, added to ``each``."""
    for name in [name for name in encoders if name not in each.get("bounds", {})]:
        x, z = encoders[name][target[0]][target[1]], encoders[name][reference[0]][reference[1]]
        began = time.process_time()
        result = task_relatedness(z, reference[2], x, target[2], **options)
        spent, known = time.process_time() - began, len(each.setdefault("bounds", {}))
        each["bounds"][name] = result.bound
        each.setdefault("losses", {})[name] = result.target_loss
        each["seconds"] = (each.get("seconds", 0.0) * known + spent) / (known + 1)
        yield name, result


def judged(values: dict[str, float], accuracies: dict[str, float]) -> tuple[str, str, str]:
    """Spearman correlation of scores (higher is better) with accuracies, its interval, and the regret of the choice.

    The interval is that of 95 % over 2000 resamples of the encoders.
    """
    best = max(values, key=values.__getitem__)
    scores, truth = np.array([values[name] for name in accuracies]), np.array(list(accuracies.values()))
    rho = float(spearmanr(scores, truth)[0])
    drawn = np.random.default_rng(0).integers(0, len(truth), (2000, len(truth)))
    ranks = [rankdata(each[drawn], axis=1) for each in (scores, truth)]
    one, other = (each - each.mean(1, keepdims=True) for each in ranks)
    norms = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    low, high = np.quantile((one * other).sum(1)[norms > 0] / norms[norms > 0], (0.025, 0.975))
    return f"{rho:.2f}", f"{low:.2f} to {high:.2f}", f"{truth.max() - accuracies[best]:.3f}"


def show(record: dict[str, Any]) -> None:
    """One table over all pairs."""
    table = Table(
        "pair", "variant", "bound / guessing", "loss / guessing", "vacuous", "Spearman", "95 %", "regret", "s"
    )
    for pair, found in record.items():
        accuracies = found["accuracies"]
        least, middle, most = np.quantile(list(accuracies.values()), (0, 0.5, 1))
        table.add_row(f"{pair}: accuracies {least:.3f}, {middle:.3f}, {most:.3f}")
        for variant, each in found["variants"].items():
            shares = np.array(list(each["bounds"].values())) / found["guessing"]
            losses = np.array(list(each.get("losses", {"": float("nan")}).values())) / found["guessing"]
            figures = judged({name: -value for name, value in each["bounds"].items()}, accuracies)
            table.add_row(
                pair, variant, f"{np.median(shares):.3f}", f"{np.median(losses):.3f}",
                f"{int((shares >= 1).sum())} of {len(shares)}", *figures, f"{each['seconds']:.1f}",
            )  # fmt: skip
        for score, values in found["scores"].items():
            table.add_row(pair, score, "-", "-", "-", *judged(values, accuracies), "-")
        table.add_section()
    Console(width=140).print(table)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, help="emoji64.npz; left out, the table of what was measured is shown")
    parser.add_argument("--cache", type=Path, help="where features are kept between runs (.npz)")
    parser.add_argument("--pairs", nargs="*", help="some of the pairs; by default all")
    parser.add_argument("--resume", action="store_true", help="keep the bounds of a run that was stopped")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"pairs": {}}
    if arguments.emoji is not None:
        encoders = encode(arguments.emoji, arguments.cache)
        for pair, (reference, target) in pairs(load_labels(arguments.emoji)).items():
            if arguments.pairs and pair not in arguments.pairs:
                continue
            found = record["pairs"].setdefault(pair, {"variants": {}})
            if "scores" not in found:
                found["scores"] = {
                    score: {
                        name: float(function(features[target[0]][target[1]], target[2]))
                        for name, features in encoders.items()
                    }
                    for score, function in SCORES.items()
                }
            for variant in arguments.variants:
                each = found["variants"].setdefault(variant, {}) if arguments.resume else {}
                found["variants"][variant] = each
                for name, result in measure(encoders, reference, target, VARIANTS[variant], each):
                    found["guessing"] = result.certificate.guessing
                    accuracies = found.setdefault("accuracies", {})
                    if variant == "loss" or name not in accuracies:
                        accuracies[name] = result.probe_accuracy
                    record["torch"] = torch.__version__
                    RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
                print(f"{pair}, {variant}: {each['seconds']:.1f} s a bound", flush=True)
    show(record["pairs"])


if __name__ == "__main__":
    main()
