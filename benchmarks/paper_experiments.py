"""The experiments of the paper in small: settings, pre-training, architecture and reference, on images and on texts.

    python benchmarks/paper_experiments.py --emoji emoji64.npz --cache features.npz
    python benchmarks/paper_experiments.py --parts fine_tuning       # from the rows of benchmarks/study that are there

Image tasks are those of ``image_tasks.py``, text tasks are topics of Debian's ``fortunes``; features of texts come from
all-MiniLM-L6-v2, trained and not, and from hashed words. Held-out bounds at default settings but for what is compared:

- settings: ``fixed_all`` and ``learned_a`` with a random label map, ``learned_all``; bound and the loss that it bounds;
- encoders: pre-trained or not, small or large, for the same tasks, with the loss of a linear probe of the target;
- references: the same target under related and unrelated ones, against five random copies of each; among them Gaussian
  blobs, and the related one with its classes permuted at random;
- unmapped: the same without a map of the target, where turning maps leave it open;
- fine_tuning: how the bound and other scores rank the networks of ``benchmarks/study`` by their accuracy after full
  fine-tuning, with what each network was trained on as its reference.

Prints tables and writes ``paper_experiments.json``, ``.md`` and ``.png`` to ``benchmarks/results``. With ``--parts``
some of them are measured anew. Correlations of the encoders are those with linear probes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_tasks import Features, disjoint_rows, encode, load_labels
from relatedness_defaults import judged
from torch import Tensor

from lightning_transfer.functional import task_relatedness
from lightning_transfer.report.text import title as title_of
from lightning_transfer.selection import StudyTable

STUDY = Path(__file__).parent / "study" / "rows"
JUDGED = ("task_relatedness", "logme", "leep", "knn_accuracy", "parameters")
FEWEST = 7  # networks of a target that is shown by itself
RESULTS = Path(__file__).parent / "results" / "paper_experiments"
FORTUNES = Path("/usr/share/games/fortunes")
TOPICS = {
    "daily life": ("computers", "food", "love", "medicine", "science", "sports"),
    "public life": ("drugs", "education", "law", "pets", "politics", "work"),
}
IMAGE_ENCODERS = ("lite0", "lite1", "lite2", "lite0_layer75", "lite0_random", "pixels")
TEXT_ENCODERS = ("minilm", "minilm_random", "words")
SETTINGS: dict[str, dict[str, Any]] = {
    "fixed_all": {"transforms": "fixed_all", "label_map": "random"},
    "learned_a": {"transforms": "learned_a", "label_map": "random"},
    "learned_all": {},
}
Task = tuple[dict[str, Tensor], Tensor]  # features by encoder, classes


def read_topics(topics: tuple[str, ...], most: int = 50) -> tuple[list[str], Tensor]:
    """The first fortunes of some topics, and which topic each is from."""
    texts: list[str] = []
    labels: list[int] = []
    for number, topic in enumerate(topics):
        found = (FORTUNES / topic).read_text(encoding="utf-8", errors="replace").split("\n%\n")
        kept = [" ".join(text.split()) for text in found if text.strip()][:most]
        texts += kept
        labels += [number] * len(kept)
    return texts, torch.tensor(labels)


def text_tasks(cache: Path | None) -> dict[str, Task]:
    """Topics in two groups, with features of each encoder."""
    from sklearn.feature_extraction.text import HashingVectorizer

    from lightning_transfer.backbones import SentenceEncoder

    read = {name: read_topics(topics) for name, topics in TOPICS.items()}
    stored: dict[str, np.ndarray] = {}
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as opened:
            stored = dict(opened)
    if not stored:
        words = HashingVectorizer(n_features=512, alternate_sign=False)
        for encoder, pretrained in (("minilm", True), ("minilm_random", False)):
            network = SentenceEncoder(max_length=32, pretrained=pretrained).eval()
            for name, (texts, _) in read.items():
                with torch.no_grad():
                    parts = [network(texts[i : i + 50])[0] for i in range(0, len(texts), 50)]
                stored[f"{encoder}/{name}"] = torch.cat(parts).numpy()
        for name, (texts, _) in read.items():
            stored[f"words/{name}"] = words.transform(texts).toarray().astype(np.float32)
        if cache is not None:
            np.savez(cache, **stored)
    return {
        name: ({encoder: torch.from_numpy(stored[f"{encoder}/{name}"]) for encoder in TEXT_ENCODERS}, labels)
        for name, (_, labels) in read.items()
    }


def image_tasks(emoji: Path, cache: Path | None) -> dict[str, Task]:
    """Emoji in two styles without a common one, halves of the garments, digits, photo patches."""
    encoders, labels = encode(emoji, cache), load_labels(emoji)
    reference, target = disjoint_rows(labels["category"], 900, 572, 1)

    def task(collection: str, key: str, rows: Tensor) -> Task:
        return {name: encoders[name][collection][rows] for name in IMAGE_ENCODERS}, labels[key][rows]

    def of(name: str, low: int, high: int, most: int = 1000) -> Tensor:
        return ((labels[name] >= low) & (labels[name] < high)).nonzero()[:most, 0]

    return {
        "emoji, one style": task("google", "category", reference),
        "emoji, other style": task("twitter", "category", target),
        "garments": task("garments", "garments", of("garments", 0, 10)),
        "garments 0-4": task("garments", "garments", of("garments", 0, 5)),
        "garments 5-9": task("garments", "garments", of("garments", 5, 10)),
        "digits": task("digits", "digits", of("digits", 0, 10)),
        "photo patches": task("patches", "patches", of("patches", 0, 20)),
    } | unrelated(encoders, reference, labels["category"][reference])


def unrelated(encoders: Features, rows: Tensor, labels: Tensor) -> dict[str, Task]:
    """Blobs that are easily told apart, as spread as the emoji; and the emoji with their classes permuted."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(900) % 9
    blobs, emoji = {}, {}
    for name in IMAGE_ENCODERS:
        emoji[name] = encoders[name]["google"][rows]
        centres, noise = (torch.randn(count, emoji[name].shape[1], generator=generator) for count in (9, 900))
        blobs[name] = emoji[name].std() * (0.5 * centres[numbers] + noise)
    return {BLOBS: (blobs, numbers), PERMUTED: (emoji, labels[torch.randperm(len(labels), generator=generator)])}


PAIRS = (
    ("emoji, one style", "emoji, other style"),
    ("garments 0-4", "garments 5-9"),
    ("garments", "digits"),
    ("digits", "garments"),
    ("photo patches", "digits"),
    ("public life", "daily life"),
    ("daily life", "public life"),
)
BLOBS, PERMUTED = "Gaussian blobs", "emoji, classes permuted"
REFERENCES = {
    "emoji, other style": ("emoji, one style", "garments", "digits", "photo patches", BLOBS, PERMUTED),
    "garments 5-9": ("garments 0-4", "emoji, one style", "digits", "photo patches", BLOBS),
    "digits": ("garments", "emoji, one style", "photo patches", BLOBS),
}
REFERENCE_ENCODERS = ("lite0", "lite1", "pixels")


def related(tasks: dict[str, Task], reference: str, target: str, encoder: str, **options: Any) -> dict[str, Any]:
    """One bound as a row of the tables."""
    (z, y), (x, t) = tasks[reference], tasks[target]
    result = task_relatedness(z[encoder], y, x[encoder], t, **options)
    row = {"reference": reference, "target": target, "encoder": encoder, **result.certificate.to_dict()}
    row |= {"probe_loss": result.probe_loss, "probe_accuracy": result.probe_accuracy}
    if result.baseline is not None:
        row |= {key: getattr(result.baseline, key) for key in ("difference", "spread", "margin", "decided")}
        row["turned_bound"] = result.baseline.bound
    return row


def settings(tasks: dict[str, Task], _: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Bounds and losses under the settings of the paper."""
    rows = []
    for reference, target in PAIRS:
        encoder = "minilm" if reference in TOPICS else "lite1"
        for name, options in SETTINGS.items():
            if reference == "emoji, one style" and name != "learned_all":
                continue  # eight of its nine categories are those of the target: a random map says nothing of them
            rows.append({"setting": name, **related(tasks, reference, target, encoder, **options)})
    yield rows


def compared(tasks: dict[str, Task], _: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Every encoder for every pair."""
    yield [
        related(tasks, reference, target, encoder)
        for reference, target in PAIRS
        for encoder in (TEXT_ENCODERS if reference in TOPICS else IMAGE_ENCODERS)
    ]


def references(tasks: dict[str, Task], known: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same target under several references; for each target and encoder by how related they are."""
    measured = {(row["target"], row["encoder"]) for row in known}
    for target, several in REFERENCES.items():
        for encoder in REFERENCE_ENCODERS if target.startswith("emoji") else ("lite1",):
            if (target, encoder) not in measured:
                found = [related(tasks, reference, target, encoder, baselines=5) for reference in several]
                print(f"references of {target}, {encoder}", flush=True)
                yield sorted(found, key=lambda row: row["difference"])


def unmapped(tasks: dict[str, Task], known: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same references without a map of the target, for one encoder."""
    measured = {row["target"] for row in known}
    for target, several in REFERENCES.items():
        if target not in measured:
            options = {"baselines": 5, "feature_map": "identity", "baseline_map": "identity"}
            found = [related(tasks, reference, target, "lite1", **options) for reference in several]
            yield sorted(found, key=lambda row: row["difference"])


def fine_tuned(_: dict[str, Task], __: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Each target of one label a sample of the study, the networks there that have a bound; and means over these."""
    means: dict[str, list[tuple[float, float]]] = {name: [] for name in (*JUDGED, "chance")}
    study = StudyTable(row for row in StudyTable.load(STUDY).rows if row.task == "classification")
    for target, frame in study.frames().items():
        if "task_relatedness" not in frame:
            continue
        frame = frame.dropna(subset=list(JUDGED))
        if len(frame) < FEWEST:
            continue
        truth = {str(name): float(value) for name, value in frame["truth"].items()}
        rows = []
        for name in JUDGED:
            sign = -1.0 if name == "task_relatedness" else 1.0
            values = {str(key): sign * float(value) for key, value in frame[name].items()}
            rho, interval, regret = judged(values, truth)
            means[name].append((float(rho), float(regret)))
            found = {"target": target, "networks": len(truth), "score": title_of(name), "spearman": float(rho)}
            rows.append({**found, "interval": interval, "regret": float(regret)})
        means["chance"].append((0.0, max(truth.values()) - sum(truth.values()) / len(truth)))
        yield rows
    yield [
        {
            "target": f"mean of {len(each)}", "networks": "", "score": title_of(name), "interval": "",
            "spearman": sum(rho for rho, _ in each) / len(each),
            "regret": sum(regret for _, regret in each) / len(each),
        }
        for name, each in means.items() if each
    ]  # fmt: skip


PARTS = {"settings": settings, "encoders": compared, "references": references}
PARTS |= {"unmapped": unmapped, "fine_tuning": fine_tuned}


def verdict(row: dict[str, Any]) -> str:
    """Whether a reference differs from its copies, and whether the bound under turning maps is vacuous."""
    return f"{'yes' if row['decided'] else 'no'}{', vacuous' * (row['turned_bound'] >= row['guessing'])}"


def markdown(record: dict[str, Any]) -> str:
    """The tables."""

    def table(title: str, columns: dict[str, str], rows: list[dict[str, Any]], part: str = "") -> list[str]:
        def cell(value: Any) -> str:
            return f"{value:.3f}" if isinstance(value, float) else str(value)

        if not rows:
            return [f"## {title}", "", f"Not measured with this version: `--parts {part or title.lower()}`.", ""]
        lines = [f"## {title}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        lines += [f"| {' | '.join(cell(row[key]) for key in columns.values())} |" for row in rows]
        return [*lines, ""]

    terms = {
        "reference loss": "reweighted_reference_loss", "label mismatch": "label_mismatch",
        "distribution mismatch": "distribution_mismatch", "bound": "bound", "loss it bounds": "target_loss",
        "guessing": "guessing",
    }  # fmt: skip
    pair = {"reference": "reference", "target": "target"}
    correlations = []
    for reference, target in PAIRS:
        rows = [row for row in record["encoders"] if (row["reference"], row["target"]) == (reference, target)]
        accuracies = {row["encoder"]: row["probe_accuracy"] for row in rows}
        rho, interval, _ = judged({row["encoder"]: -row["bound"] for row in rows}, accuracies)
        least, most = min(accuracies.values()), max(accuracies.values())
        correlations.append(
            f"- {reference} to {target}: {rho} ({interval}; {len(rows)} encoders, accuracies {least:.3f} to {most:.3f})"
        )
    left = [target for target in REFERENCES if target not in {row["target"] for row in record["references"]}]
    gaps = [f"Not measured with this version: {', '.join(left)}.", ""] if left and record["references"] else []
    seconds = record["seconds"]
    spent = f", {', '.join(seconds)} in {sum(seconds.values()):.0f} s of one core, features aside" if seconds else ""
    lines = [
        "# The experiments of the paper in small", "",
        f"Held-out bounds, nats, lower is better. Written by `python benchmarks/paper_experiments.py`{spent}.", "",
        *table("Settings", {"setting": "setting", **pair, **terms}, record["settings"]),
        *table("Encoders", {**pair, "encoder": "encoder", "bound": "bound", "loss it bounds": "target_loss",
                            "probe loss": "probe_loss", "probe accuracy": "probe_accuracy"}, record["encoders"]),
        "Spearman correlation of minus the bound with the accuracy of the probe, and its bootstrap interval of 95 %:",
        "", *correlations, "",
        "From photo patches to digits the order is turned round: every encoder tells digits apart, pixels and random "
        "weights too, but only the trained ones tell the patches apart, and the reference loss is most of the bound. "
        "Six encoders leave wide intervals, three say next to nothing.", "",
        *table("References", {"target": "target", "encoder": "encoder", "reference": "reference", "bound": "bound",
                              "under turning maps": "turned_bound", "minus random copies": "difference",
                              "their spread": "spread", "margin": "margin", "decided": "decided"},
               [{**row, "decided": verdict(row)} for row in record["references"]]),
        *gaps,
        *table("References without a map", {"target": "target", "reference": "reference", "bound": "bound",
                                            "minus random copies": "difference", "their spread": "spread",
                                            "margin": "margin", "decided": "decided"},
               [{**row, "decided": verdict(row)} for row in record.get("unmapped", [])], "unmapped"),
        *table("Full fine-tuning", {"target": "target", "networks": "networks", "score": "score",
                                    "Spearman": "spearman", "95 %": "interval", "regret": "regret"},
               record.get("fine_tuning", []), "fine_tuning"),
    ]  # fmt: skip
    return "\n".join(lines)


def draw(record: dict[str, Any], path: Path) -> None:
    """Bound against loss over all encoders and pairs, and the terms under each setting."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for reference, target in PAIRS:
        rows = [row for row in record["encoders"] if (row["reference"], row["target"]) == (reference, target)]
        losses, bounds = [row["target_loss"] for row in rows], [row["bound"] for row in rows]
        left.scatter(losses, bounds, label=f"{reference} to {target}", s=18)
    most = max(row["bound"] for row in record["encoders"])
    left.plot([0, most], [0, most], "k:", linewidth=1)
    left.set(xlabel="loss of the transformed classifier, nats", ylabel="bound, nats", title="every encoder")
    left.legend(fontsize=7)
    bottom = np.zeros(len(record["settings"]))
    names = [f"{row['setting']}: {row['reference']} to {row['target']}" for row in record["settings"]]
    for key, color in (
        ("reweighted_reference_loss", "#4477aa"), ("label_mismatch", "#ccbb44"), ("distribution_mismatch", "#ee6677")
    ):  # fmt: skip
        values = np.array([row[key] for row in record["settings"]])
        right.barh(names, values, left=bottom, color=color, label=key.replace("_", " "))
        bottom += values
    right.plot([row["target_loss"] for row in record["settings"]], names, "kD", markersize=4, label="loss it bounds")
    right.invert_yaxis()
    right.tick_params(axis="y", labelsize=6)
    right.set(xlabel="nats", title="settings")
    right.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, -0.32), ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, help="emoji64.npz, for all parts but fine_tuning")
    parser.add_argument("--cache", type=Path, help="where features of images are kept between runs (.npz)")
    parser.add_argument("--text-cache", type=Path, help="where features of texts are kept between runs (.npz)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, help="some of the parts; by default all")
    parser.add_argument("--resume", action="store_true", help="keep the references of a run that was stopped")
    arguments = parser.parse_args()
    if arguments.emoji is None and arguments.parts != ["fine_tuning"]:
        parser.error("expected --emoji")
    tasks: dict[str, Task] = {}
    if arguments.emoji is not None:
        tasks = {**image_tasks(arguments.emoji, arguments.cache), **text_tasks(arguments.text_cache)}
    path = RESULTS.with_suffix(".json")
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"seconds": {}}
    for part in arguments.parts or PARTS:
        if not (arguments.resume and part in ("references", "unmapped")):
            record[part], record["seconds"][part] = [], 0.0
        began = time.process_time()
        for rows in PARTS[part](tasks, record[part]):
            record[part] += rows
            record["seconds"][part] = record["seconds"].get(part, 0.0) + time.process_time() - began
            record["torch"], began = torch.__version__, time.process_time()
            path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    RESULTS.with_suffix(".md").write_text(markdown(record))
    draw(record, RESULTS.with_suffix(".png"))
    print(markdown(record))


if __name__ == "__main__":
    main()
