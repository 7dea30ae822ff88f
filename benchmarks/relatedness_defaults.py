"""Which ground cost should be the default of the bound: by value, by rank and by regret, on held-out halves.

    python benchmarks/relatedness_defaults.py --emoji emoji64.npz
    python benchmarks/relatedness_defaults.py --emoji emoji64.npz --pairs categories --costs loss feature

Thirteen encoders (EfficientNet-Lite 0 to 2 with ImageNet and random weights, two layers of each, 8 x 8 pixels) are
ranked for a target by each cost. ``emoji64.npz`` holds 1906 emoji in two drawing styles (arrays ``twitter`` and
``google`` of shape (1906, 64, 64, 3) uint8, ``category`` and ``subcategory`` int64), from the npm packages
``emoji-datasource-twitter`` and ``emoji-datasource-google``, version 16. Reference and target share no emoji. Columns:
median bound over the entropy of the target prior, how many are vacuous, Spearman correlation with the accuracy of a
cross-fitted linear probe of the target, the accuracy that choosing by the bound loses against the best encoder, and
processor seconds a bound. Writes ``benchmarks/results/relatedness_defaults.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from torch import nn

from lightning_transfer.backbones import EfficientNetLite
from lightning_transfer.functional import task_relatedness
from lightning_transfer.relatedness.config import GROUND_COSTS

RESULTS = Path(__file__).parent / "results" / "relatedness_defaults.json"
PAIRS = {"categories": ("category", 900, 572, 1), "subcategories": ("subcategory", 854, 1052, 6)}


def encode(images: dict[str, np.ndarray], cache: Path | None) -> dict[str, dict[str, torch.Tensor]]:
    """Features of both styles by encoder."""
    if cache is not None and cache.exists():
        stored = np.load(cache, allow_pickle=False)
        names = dict.fromkeys(key.rpartition("/")[0] for key in stored.files)
        return {name: {style: torch.from_numpy(stored[f"{name}/{style}"]) for style in images} for name in names}
    found: dict[str, dict[str, torch.Tensor]] = {"pixels": {}}
    for style, array in images.items():
        pictures = torch.from_numpy(array).permute(0, 3, 1, 2).float()
        found["pixels"][style] = nn.functional.avg_pool2d(pictures, 8).flatten(1)
    for variant in range(3):
        for pretrained in (True, False):
            backbone = EfficientNetLite(variant, pretrained=pretrained, input_size=64).eval()
            name = f"lite{variant}" + ("" if pretrained else "_random")
            caught: dict[str, torch.Tensor] = {}
            dense = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1]
            for share in (0.4, 0.75) if pretrained else ():
                key = f"{name}_layer{share:.0%}".rstrip("%")
                layer = dense[int(share * len(dense))]
                layer.register_forward_hook(partial(catch, caught, key))
            for style, array in images.items():
                parts: dict[str, list[torch.Tensor]] = {}
                for chunk in torch.from_numpy(array).permute(0, 3, 1, 2).split(64):
                    with torch.no_grad():
                        features, _ = backbone(chunk)
                    for key, values in {name: features, **caught}.items():
                        parts.setdefault(key, []).append(values.clone())
                for key, values in parts.items():
                    found.setdefault(key, {})[style] = torch.cat(values)
    if cache is not None:
        np.savez(cache, **{f"{name}/{style}": x.numpy() for name, both in found.items() for style, x in both.items()})
    return found


def catch(caught: dict[str, torch.Tensor], key: str, _: nn.Module, __: object, output: torch.Tensor) -> None:
    """Keep the mean over positions of what a layer gives."""
    caught[key] = output.mean((2, 3))


def rows_of(
    labels: torch.Tensor, num_reference: int, num_target: int, fewest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Disjoint rows of reference and target, of classes with enough samples in both."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    reference, target = order[:num_reference], order[num_reference : num_reference + num_target]
    size = int(labels.max()) + 1
    counts = [torch.bincount(labels[rows], minlength=size) for rows in (reference, target)]
    kept = ((counts[0] >= min(fewest, 4)) & (counts[1] >= fewest)).nonzero()[:, 0]
    return reference[torch.isin(labels[reference], kept)], target[torch.isin(labels[target], kept)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="where features are kept between runs (.npz)")
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--costs", nargs="*", choices=GROUND_COSTS, default=list(GROUND_COSTS))
    arguments = parser.parse_args()
    data = np.load(arguments.emoji, allow_pickle=False)
    encoders = encode({style: data[style] for style in ("google", "twitter")}, arguments.cache)
    record: dict[str, dict[str, dict[str, object]]] = {}
    table = Table("pair", "cost", "bound / guessing", "vacuous", "Spearman", "regret", "seconds")
    for pair in arguments.pairs:
        key, *sizes = PAIRS[pair]
        labels = torch.from_numpy(data[key])
        reference, target = rows_of(labels, *sizes)
        for cost in arguments.costs:
            bounds, accuracies, shares, began = {}, {}, [], time.process_time()
            for name, both in encoders.items():
                result = task_relatedness(
                    both["google"][reference], labels[reference], both["twitter"][target], labels[target],
                    ground_cost=cost,
                )  # fmt: skip
                bounds[name], accuracies[name] = result.bound, result.probe_accuracy
                shares.append(result.bound / result.certificate.guessing)
            seconds = (time.process_time() - began) / len(bounds)
            best = min(bounds, key=bounds.__getitem__)
            found = {
                "median_share": float(np.median(shares)),
                "vacuous": sum(share >= 1 for share in shares),
                "spearman": float(spearmanr([-value for value in bounds.values()], list(accuracies.values()))[0]),
                "regret": max(accuracies.values()) - accuracies[best],
                "seconds": seconds,
                "bounds": bounds,
                "accuracies": accuracies,
            }
            record.setdefault(pair, {})[cost] = found
            table.add_row(pair, cost, f"{found['median_share']:.3f}", f"{found['vacuous']} of {len(bounds)}",
                          f"{found['spearman']:.2f}", f"{found['regret']:.3f}", f"{seconds:.1f}")  # fmt: skip
    Console(width=120).print(table)
    RESULTS.write_text(json.dumps({"torch": torch.__version__, "pairs": record}, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
