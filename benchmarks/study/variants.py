"""The same scores with other options on the study's backbones and targets: ``rows/variants.jsonl``, one pair a line.

Nothing is trained: features are extracted once a pair, and what each variant would have chosen is looked up in the
truth of the study by ``learn.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from plan import TRAIN, make_targets, make_zoo
from torch import Tensor

from lightning_transfer import extract, functional
from lightning_transfer.utilities.files import write_atomically

HERE = Path(__file__).parent
Score = Callable[[Tensor, Tensor], Tensor]


def standardised(features: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 each, constant features 0."""
    centred = features - features.mean(0)
    return centred / features.std(0).clamp_min(1e-12)


def scaled(features: Tensor) -> Tensor:
    """Length 1 each sample."""
    return features / features.norm(dim=1, keepdim=True).clamp_min(1e-12)


FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda features: features,
    "standardised": standardised,
    "unit length": scaled,
}
SCORES: dict[str, Score] = {
    "logme": functional.logme,
    "h_score_shrunk": lambda x, y: functional.h_score(x, y, shrinkage="ledoit_wolf"),
    "lfc": functional.lfc,
    "gbc": functional.gbc,
    "ridge_probe": functional.ridge_probe,
    "knn_accuracy": functional.knn_accuracy,
}
SHARES = {"a quarter of the samples": 0.25, "half of the samples": 0.5}
NEIGHBOURS = (3, 5, 10)


def variants(features: Tensor, labels: Tensor, seed: int = 0) -> dict[str, float]:
    """Every score by its name and variant.

    Args:
        features: Shape ``(n, d)``.
        labels: Shape ``(n,)``.
        seed: Of the samples that are left out.
    """
    features = features.double()
    found = {
        f"{name}, {how}": float(score(prepare(features), labels))
        for how, prepare in FEATURES.items()
        for name, score in SCORES.items()
    }
    for k in NEIGHBOURS:
        found[f"knn_accuracy, k = {k}"] = float(functional.knn_accuracy(features, labels, k=k))
    found["knn_accuracy, cosine"] = float(functional.knn_accuracy(features, labels, distance="cosine"))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    for how, share in SHARES.items():
        some = order[: round(share * len(order))].sort().values
        for name, score in SCORES.items():
            found[f"{name}, {how}"] = float(score(features[some], labels[some]))
    return found


def main() -> None:
    """Write the rows that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--backbones", nargs="*", default=[""], help="names, or beginnings of names")
    options = parser.parse_args()
    backbones, _ = make_zoo(options.zoo, options.emoji, tuple(options.backbones))
    path = HERE / "rows" / "variants.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    done = {(row["target"], row["backbone"]) for row in map(json.loads, lines)}
    for target, data in make_targets(options.emoji).items():
        data.setup()
        if data.task != "classification":
            continue
        for name, backbone in backbones.items():
            if (target, name) in done:
                continue
            kept = extract(
                backbone, data, keep=("features", "labels"), max_samples=TRAIN, trainer={"accelerator": "cpu"},
                progress=False,
            ).kept  # fmt: skip
            values = {key: round(value, 6) for key, value in variants(kept["features"], kept["labels"]).items()}
            lines.append(json.dumps({"backbone": name, "target": target, "values": values}))
        print(f"{target}: {len(backbones)} backbones", flush=True)
        write_atomically(path, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
