"""The options of the bound against full fine-tuning: the networks, targets and outcomes of ``benchmarks/study``.

    python benchmarks/relatedness_study.py                                             # what was measured, judged anew
    python benchmarks/relatedness_study.py --emoji emoji64.npz --zoo zoo --cache features.npz

``--zoo`` holds the networks that ``study/build_zoo.py`` trained. Every network that was trained on labelled data is
bounded on every target of one label a sample, with three references: what it was trained on (as the study does), what
was held out there, and photo patches for all. Truth is test accuracy after full fine-tuning, as ``study/rows`` has it
when the table is printed. Columns: how many bounds are below what guessing costs, Spearman correlation with the truth
and its bootstrap interval over networks, and the accuracy lost by the first choice. Adds to
``benchmarks/results/relatedness_study.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from relatedness_defaults import judged
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_transfer import extract
from lightning_transfer.functional import task_relatedness
from lightning_transfer.selection import StudyTable

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "relatedness_study.json"
ROWS = HERE / "study" / "rows"
SAMPLES = 1000  # of a reference
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "loss": ("own", {}),
    "loss, reference held out": ("held out", {}),
    "loss, photo patches": ("photos", {}),
    "loss, dimension 32": ("own", {"dimension": 32}),
    "loss, orthogonal map": ("own", {"feature_map": "orthogonal"}),
    "logit_margin": ("own", {"ground_cost": "logit_margin"}),
    "logit_range": ("own", {"ground_cost": "logit_range"}),
    "feature": ("own", {"ground_cost": "feature"}),
}
RIVALS = ("logme", "leep", "knn_accuracy", "parameters")
Side = tuple[Tensor, Tensor]


def encode(zoo: Path, emoji: Path, cache: Path) -> None:
    """Features of every trained network for its references and the targets, into the cache; what is there stays."""
    sys.path.insert(0, str(HERE / "study"))
    from plan import TRAIN, make_source, make_targets, make_zoo

    stored: dict[str, np.ndarray] = {}
    if cache.exists():
        with np.load(cache, allow_pickle=False) as opened:
            stored = dict(opened)
    backbones, about = make_zoo(zoo, emoji)
    targets = {name: data for name, data in make_targets(emoji).items() if data.task == "classification"}
    sources = {str(each["source"]) for each in about.values()} - {"none", "imagenet"}
    references = {source: make_source(source, emoji) for source in sorted(sources)}
    for name, backbone in backbones.items():
        source = str(about[name]["source"])
        if source not in references or f"{name}/photos, all" in stored:
            continue
        wanted = {
            "own": (references[source], "train", SAMPLES), "held out": (references[source], "test", SAMPLES),
            "photos, all": (references["photos"], "train", SAMPLES),
        } | {target: (data, "train", TRAIN) for target, data in targets.items()}  # fmt: skip
        for key, (data, split, count) in wanted.items():
            kept = extract(
                backbone, data, keep=("features", "labels"), split=split, max_samples=count,
                trainer={"accelerator": "cpu"}, progress=False,
            ).kept  # fmt: skip
            stored[f"{name}/{key}"], stored[f"{name}/{key}/labels"] = kept["features"].numpy(), kept["labels"].numpy()
        print(name, flush=True)
    np.savez(cache, **stored)


def measure(cache: Path, record: dict[str, Any], targets: list[str] | None, variants: list[str]) -> None:
    """Bounds that are not there yet."""
    with np.load(cache, allow_pickle=False) as opened:
        stored = {key: torch.from_numpy(opened[key]) for key in opened.files}

    def side(name: str, key: str) -> Side:
        return stored[f"{name}/{key}"], stored[f"{name}/{key}/labels"]

    keys = [key.split("/") for key in stored if not key.endswith("/labels")]
    names = dict.fromkeys(name for name, _ in keys)
    known = [key for key in dict.fromkeys(key for _, key in keys) if key not in ("own", "held out", "photos, all")]
    for target in targets or known:
        for variant in variants:
            reference, options = VARIANTS[variant]
            if reference == target:
                continue
            found = record.setdefault(target, {}).setdefault(variant, {})
            for name in names:
                if name not in found:
                    z, y = side(name, "photos, all" if reference == "photos" else reference)
                    result = task_relatedness(z, y, *side(name, target), **options)
                    found[name] = [round(result.bound, 6), round(result.certificate.guessing, 6)]
        RESULTS.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        print(target, flush=True)


def shown(record: dict[str, Any]) -> Table:
    """One row a variant and target, beside the scores that the study has of the same networks."""
    frames = StudyTable.load(ROWS).frames()
    table = Table("target", "score", "below guessing", "Spearman", "95 %", "regret")
    for target, variants in record.items():
        names = next(iter(variants.values())).keys() & set(frames[target].index)
        frame = frames[target].loc[sorted(names)].dropna(subset=list(RIVALS))
        truth = {str(name): float(value) for name, value in frame["truth"].items()}
        for variant, found in variants.items():
            below = sum(bound < guessing for bound, guessing in found.values())
            figures = judged({name: -found[name][0] for name in truth}, truth) if found else ("", "", "")
            table.add_row(target, variant, f"{below} of {len(found)}", *figures)
        for rival in RIVALS:
            values = {str(name): float(value) for name, value in frame[rival].items()}
            table.add_row(target, rival, "", *judged(values, truth))
        table.add_row(target, "chance", "", "", "", f"{max(truth.values()) - sum(truth.values()) / len(truth):.3f}")
        table.add_section()
    return table


def main() -> None:
    """Measure where files are given, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--zoo", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("relatedness_study.npz"), help="where features are kept")
    parser.add_argument("--targets", nargs="*", help="some of the targets; by default all")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.zoo is not None:
        encode(arguments.zoo, arguments.emoji, arguments.cache)
    if arguments.cache.exists():
        measure(arguments.cache, record, arguments.targets, arguments.variants)
    Console(width=170).print(shown(record))


if __name__ == "__main__":
    main()
