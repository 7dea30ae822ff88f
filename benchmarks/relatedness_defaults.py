"""Which options should be the defaults of the bound: by value, by rank and by regret, on held-out halves.

    python benchmarks/relatedness_defaults.py --emoji emoji64.npz --cache features.npz
    python benchmarks/relatedness_defaults.py --emoji emoji64.npz --pairs categories --variants loss feature

The thirteen encoders of ``image_tasks.py`` (which says where the images come from) are ranked for a target by the bound
under each variant, and by two scores that need no reference. Columns: median bound over the entropy of the target
prior, how many are vacuous, Spearman correlation with the accuracy of a cross-fitted linear probe of the target, the
accuracy that choosing by the bound loses against the best encoder, and processor seconds a bound. Adds to
``benchmarks/results/relatedness_defaults.json``, pair by pair and variant by variant.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tasks import Features, disjoint_rows, encode, load_labels
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

from lightning_transfer.functional import knn_accuracy, logme, task_relatedness

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


def measure(encoders: Features, reference: Side, target: Side, options: dict[str, Any]) -> dict[str, Any]:
    """Bounds of all encoders for one pair."""
    bounds, losses, accuracies, began = {}, {}, {}, time.process_time()
    for name, features in encoders.items():
        x, z = features[target[0]][target[1]], features[reference[0]][reference[1]]
        result = task_relatedness(z, reference[2], x, target[2], **options)
        bounds[name], losses[name], accuracies[name] = result.bound, result.target_loss, result.probe_accuracy
    seconds = (time.process_time() - began) / len(bounds)
    guessing = result.certificate.guessing
    return {"bounds": bounds, "losses": losses, "accuracies": accuracies, "guessing": guessing, "seconds": seconds}


def judged(values: dict[str, float], accuracies: dict[str, float]) -> tuple[float, float]:
    """Spearman correlation of scores (higher is better) with accuracies, and the regret of the first choice."""
    best = max(values, key=values.__getitem__)
    rho = float(spearmanr([values[name] for name in accuracies], list(accuracies.values()))[0])
    return rho, max(accuracies.values()) - accuracies[best]


def show(record: dict[str, Any]) -> None:
    """One table over all pairs."""
    table = Table("pair", "variant", "bound / guessing", "loss / guessing", "vacuous", "Spearman", "regret", "seconds")
    for pair, found in record.items():
        accuracies = found["accuracies"]
        for variant, each in found["variants"].items():
            shares = np.array(list(each["bounds"].values())) / found["guessing"]
            losses = np.array(list(each.get("losses", {"": float("nan")}).values())) / found["guessing"]
            rho, regret = judged({name: -value for name, value in each["bounds"].items()}, accuracies)
            table.add_row(
                pair, variant, f"{np.median(shares):.3f}", f"{np.median(losses):.3f}",
                f"{int((shares >= 1).sum())} of {len(shares)}", f"{rho:.2f}", f"{regret:.3f}", f"{each['seconds']:.1f}",
            )  # fmt: skip
        for score, values in found["scores"].items():
            rho, regret = judged(values, accuracies)
            table.add_row(pair, score, "-", "-", "-", f"{rho:.2f}", f"{regret:.3f}", "-")
        table.add_section()
    Console(width=140).print(table)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, help="emoji64.npz; left out, the table of what was measured is shown")
    parser.add_argument("--cache", type=Path, help="where features are kept between runs (.npz)")
    parser.add_argument("--pairs", nargs="*", help="some of the pairs; by default all")
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
                each = measure(encoders, reference, target, VARIANTS[variant])
                accuracies, found["guessing"] = each.pop("accuracies"), each.pop("guessing")
                if variant == "loss" or "accuracies" not in found:
                    found["accuracies"] = accuracies
                found["variants"][variant] = each
                record["torch"] = torch.__version__
                RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
                print(f"{pair}, {variant}: {each['seconds']:.1f} s a bound", flush=True)
    show(record["pairs"])


if __name__ == "__main__":
    main()
