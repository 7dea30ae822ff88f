"""The task-relatedness bound against the algorithm as released, and at scale.

    python benchmarks/relatedness.py                        # every part that needs no file, about a quarter of an hour
    python benchmarks/relatedness.py pairs large_schedule   # some of them
    python benchmarks/relatedness.py figures --data fmnist_to_digits.npz

Parts: ``pairs`` (both methods on task pairs made of Fashion-MNIST, where Debian's dataset-fashion-mnist is installed,
and of scikit-learn's digits, small schedule, both evaluated on test data), ``large_schedule`` (seconds of one step of
the released large schedule, times its steps, against a whole run of ours), ``scale`` (768 features, 1000 classes of
50 000 and 20 000 samples, and 100 of 5000 and 5000, with and without baselines: seconds and peak memory), ``whole``
(20 of 1000 and 1000 by the released algorithm too, from the first step to the last), ``figures`` (bounds on stored
features). Prints tables and writes ``benchmarks/results/relatedness_<part>.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.published.task_relatedness import (
    PublishedParameters,
    PublishedSchedule,
    fit_published,
    train_published_head,
)
from lightning_transfer.relatedness.bound import Transforms, certify, class_losses
from lightning_transfer.relatedness.config import BoundConfig
from lightning_transfer.relatedness.problem import Problem
from lightning_transfer.relatedness.sample import Sample

RESULTS = Path(__file__).parent / "results"
FASHION = Path("/usr/share/datasets/fashion-mnist")
TAU = 0.2
CONSOLE = Console(width=150)


def read_idx(name):
    raw = gzip.decompress((FASHION / name).read_bytes())
    dims = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def load_images():
    """Images as float rows in [0, 1] of 784 pixels, with labels, by data set and split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images / 16, np.ones((1, 3, 3)))
    images = np.pad(images, ((0, 0), (2, 2), (2, 2))).reshape(len(images), -1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1200], order[1200:]
    data = {
        "digits": tuple(
            (torch.from_numpy(images[rows]), torch.from_numpy(digits.target[rows])) for rows in (train, test)
        )
    }
    if FASHION.is_dir():
        splits = []
        for split, count in (("train", 3000), ("t10k", 3000)):
            pixels = read_idx(f"{split}-images-idx3-ubyte.gz")[:count].reshape(count, -1).astype(np.float32) / 255
            labels = read_idx(f"{split}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
            splits.append((torch.from_numpy(pixels), torch.from_numpy(labels)))
        data["fashion"] = tuple(splits)
    return data


def train_backbone(data):
    """A small network, trained on the garments where they are installed, else on the first five digits."""
    torch.manual_seed(0)
    images, labels = data["fashion"][0] if "fashion" in data else data["digits"][0]
    if "fashion" not in data:
        images, labels = images[labels < 5], labels[labels < 5]
    body = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
    head = nn.Linear(128, int(labels.max()) + 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-3)
    for _ in range(5):
        for rows in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(body(images[rows])), labels[rows]).backward()
            optimizer.step()
    return body.eval()


def task_pairs(data):
    """Names and classes of both sides: ``(data set, classes)``."""
    low, high, even, odd = range(5), range(5, 10), range(0, 10, 2), range(1, 10, 2)
    pairs = [
        ("digits 0-4", "digits 5-9", ("digits", low), ("digits", high)),
        ("digits 5-9", "digits 0-4", ("digits", high), ("digits", low)),
        ("even digits", "odd digits", ("digits", even), ("digits", odd)),
        ("odd digits", "even digits", ("digits", odd), ("digits", even)),
    ]
    if "fashion" not in data:
        return [
            *pairs,
            ("digits 0-6", "digits 7-9", ("digits", range(7)), ("digits", range(7, 10))),
            ("digits 3-9", "digits 0-2", ("digits", range(3, 10)), ("digits", range(3))),
        ]
    return [
        ("garments", "digits", ("fashion", range(10)), ("digits", range(10))),
        ("digits", "garments", ("digits", range(10)), ("fashion", range(10))),
        ("garments 0-4", "garments 5-9", ("fashion", low), ("fashion", high)),
        ("garments 5-9", "garments 0-4", ("fashion", high), ("fashion", low)),
        *pairs[:2],
    ]


def features_of(body, data, side):
    name, classes = side
    splits = []
    for images, labels in data[name]:
        kept = torch.isin(labels, torch.tensor(list(classes)))
        with torch.no_grad():
            splits.append((body(images[kept]), labels[kept]))
    return splits


def without_arrays(result):
    return {name: value for name, value in result.to_dict().items() if not isinstance(value, list)}


def pairs():
    """Both methods on small task pairs, at the small schedule.

    The seconds are those of whole runs in this process, head, transforms and certificates on both splits included: one
    run of the published method, the median of three of ours, after a short run of each to warm up.
    """
    data = load_images()
    body = train_backbone(data)
    table = Table(
        "reference", "target", "published", "ours", "loss", "guessing", "auto, feature", "auto, range", "auto, margin",
        "published, s", "ours, s", "ratio",
        title=f"certified bounds on test data, nats; published and ours: tau = {TAU}, feature cost",
    )  # fmt: skip
    rows = []
    warm = make_large(200, 200, 4, 4, width=8)
    task_relatedness(*warm, method="published", schedule=replace(PublishedSchedule.small(), steps=2, head_epochs=2))
    task_relatedness(*warm)
    for reference_name, target_name, reference, target in task_pairs(data):
        (z, y), reference_test = features_of(body, data, reference)
        (x, t), target_test = features_of(body, data, target)
        evaluation = (*reference_test, *target_test)

        def solve(z=z, y=y, x=x, t=t, evaluation=evaluation, **options):
            return task_relatedness(z, y, x, t, evaluation=evaluation, **options)

        released = solve(tau=TAU, method="published", schedule="small")
        ours = sorted((solve(tau=TAU) for _ in range(3)), key=lambda result: result.seconds)[1]
        auto = {cost: solve(ground_cost=cost) for cost in ("feature", "logit_range", "logit_margin")}
        ratio = released.seconds / ours.seconds
        rows.append(
            {
                "reference": reference_name,
                "target": target_name,
                "guessing": math.log(len(ours.target_classes)),
                "published": without_arrays(released),
                "ours": without_arrays(ours),
                "auto": {cost: without_arrays(result) for cost, result in auto.items()},
                "ratio": ratio,
            }
        )
        print(f"{reference_name} -> {target_name}: {released.bound:.3f} in {released.seconds:.1f} s, "
              f"ours {ours.bound:.3f} in {ours.seconds:.2f} s", flush=True)  # fmt: skip
        guessing = rows[-1]["guessing"]
        nats = (released.bound, ours.bound, ours.target_loss, guessing, *(result.bound for result in auto.values()))
        table.add_row(
            reference_name, target_name, *(f"{value:.3f}" for value in nats), f"{released.seconds:.1f}",
            f"{ours.seconds:.2f}", f"{ratio:.0f}",
        )  # fmt: skip
    never_larger = all(
        row["ours"]["bound"] <= row["published"]["bound"]
        and row["ours"]["fit"]["bound"] <= row["published"]["fit"]["bound"]
        for row in rows
    )
    smallest = min(row["ratio"] for row in rows)
    CONSOLE.print(table, f"ours never larger, on test and on fit data: {never_larger}; smallest ratio {smallest:.0f}")
    CONSOLE.print("seconds are whole runs of both: head, transforms and certificates; ours is the median of three")
    return {"pairs": rows, "never_larger": never_larger, "smallest_ratio": smallest}


def make_large(n_reference, n_target, reference_classes, target_classes, width=2048):
    """Rectified Gaussian features of related classes."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.35 * torch.randn(reference_classes, width, generator=generator)
    y, t = torch.arange(n_reference) % reference_classes, torch.arange(n_target) % target_classes
    shift = 0.3 * torch.randn(target_classes, width, generator=generator)
    z = (centres[y] + torch.randn(n_reference, width, generator=generator)).relu_()
    x = (centres[t * (reference_classes // target_classes)] + shift[t]).add_(
        torch.randn(n_target, width, generator=generator)
    )
    return z, y, x.relu_(), t


def large_schedule():
    """Seconds of a whole run at the large schedule, extrapolated from some of its steps, against a run of ours."""
    data = make_large(10_000, 10_000, 25, 25)
    large = PublishedSchedule.large()
    problem = Problem.build(*data, head=None, config=BoundConfig(tau=large.tau, dimension=None))
    generator, few = torch.Generator().manual_seed(0), 5
    began = time.perf_counter()
    head = train_published_head(problem.reference, large.tau, replace(large, head_steps=few), generator)
    head_step = (time.perf_counter() - began) / few
    width, classes = problem.reference.features.shape[1], problem.reference.num_classes
    identity = torch.eye(width, dtype=torch.float64)
    parameters = PublishedParameters(
        forward=identity, inverse=identity.clone(), offset=torch.zeros(width, dtype=torch.float64),
        label_logits=torch.rand(classes, classes, generator=generator, dtype=torch.float64),
        prior_logits=problem.reference.prior, fixed_label_map=identity[:1], fixed_prior=identity[0],
    )  # fmt: skip
    losses = class_losses(head, problem.reference)
    began = time.perf_counter()
    fit_published(parameters, problem.reference, problem.target, losses, replace(large, steps=few), True, generator)
    step = (time.perf_counter() - began) / few
    published = large.head_steps * head_step + large.steps * step
    ours = task_relatedness(*data, tau=large.tau)
    record = {
        "head_step_seconds": head_step,
        "step_seconds": step,
        "published_seconds_extrapolated": published,
        "ours_seconds": ours.seconds,
        "ratio": published / ours.seconds,
        "ours": ours.to_dict(),
    }
    CONSOLE.print(
        f"large schedule, 10 000 samples a side, 25 classes, 2048 features: {step:.2f} s a step of the transforms, "
        f"{head_step:.3f} s a step of the head; extrapolated from {few} of them to {large.steps} and "
        f"{large.head_steps} steps: {published:.0f} s (not run). Ours {ours.seconds:.1f} s, "
        f"ratio {published / ours.seconds:.0f}."
    )
    return record


SCALES = {
    "many classes": (50_000, 20_000, 1000, 0.35, 0),
    "hundred classes": (5_000, 5_000, 100, 0.35, 0),
    "hundred classes, five baselines": (5_000, 5_000, 100, 0.35, 5),
}


def make_gaussian(n_reference, n_target, classes, gap, width=768):
    """Gaussian classes, separable at a gap of 0.35 and hard to tell at 0.1; the target's lie near the reference's."""
    generator = torch.Generator().manual_seed(0)
    centres = gap * torch.randn(classes, width, generator=generator)
    y, t = torch.arange(n_reference) % classes, torch.arange(n_target) % classes
    moved = centres + 0.1 * torch.randn(classes, width, generator=generator)
    z = centres[y].add_(torch.randn(n_reference, width, generator=generator))
    return z, y, moved[t].add_(torch.randn(n_target, width, generator=generator)), t


def scale():
    """Seconds and peak memory of large problems at default settings, each in a process of its own."""
    records = {}
    for name, (n, m, classes, _, baselines) in SCALES.items():
        finished = subprocess.run(
            [sys.executable, __file__, "_scale", name], check=True, capture_output=True, text=True
        )
        records[name] = record = json.loads(finished.stdout)
        CONSOLE.print(
            f"{n} / {m} samples, {classes} classes each, 768 features, {baselines} baselines: "
            f"{record['seconds']:.1f} s ({record['processor_seconds']:.1f} s of {record['threads']} threads), peak "
            f"{record['peak_gib']:.2f} GiB ({record['data_gib']:.2f} GiB before), "
            f"bound {record['bound']:.3f}, guessing {record['guessing']:.3f}"
        )
    return records


def run_scale(name):
    *sizes, baselines = SCALES[name]
    data = make_gaussian(*sizes)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.process_time()
    result = task_relatedness(*data, baselines=baselines)
    record = {
        "seconds": result.seconds,
        "processor_seconds": time.process_time() - began,
        "threads": torch.get_num_threads(),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "data_gib": before,
        "bound": result.bound,
        "guessing": result.certificate.guessing,
        "messages": result.messages,
    }
    print(json.dumps(record))


def whole():
    """Whole runs of the released algorithm at its small schedule and of ours, same samples, one after the other.

    Seconds of the processor, of all threads together; ours is the median of three runs.
    """
    n, classes = 1000, 20
    data = make_gaussian(n, n, classes, 0.35)

    def timed(**options):
        began = time.process_time()
        result = task_relatedness(*data, **options)
        return time.process_time() - began, result

    timed()  # warms up
    seconds, ours = sorted((timed() for _ in range(3)), key=lambda each: each[0])[1]
    taken, released = timed(method="published", schedule="small", folds=1)
    CONSOLE.print(
        f"{n} / {n} samples, {classes} classes, 768 features: released algorithm {taken:.0f} s on all samples (bound "
        f"{released.bound:.3f}), ours {seconds:.2f} s for both halves (held-out bound {ours.bound:.3f}), ratio "
        f"{taken / seconds:.0f}; guessing {ours.certificate.guessing:.3f}"
    )
    sizes = {"samples_a_side": n, "classes": classes, "features": data[0].shape[1]}
    times = {"released_seconds": taken, "ours_seconds": seconds, "ratio": taken / seconds}
    return {**sizes, **times, "released": without_arrays(released), "ours": without_arrays(ours)}


def under_loss(result, evaluation):
    """The bound of the transforms of a result with the ground cost ``loss`` in place of its own."""
    z, y, x, t = evaluation
    kept = torch.isin(y, result.reference_classes)
    of_reference = torch.searchsorted(result.reference_classes, y[kept])
    of_target = torch.searchsorted(result.target_classes, t)
    reference = Sample(result.frame.reference(z[kept]), of_reference, len(result.reference_classes))
    target = Sample(result.frame.target(x), of_target, len(result.target_classes))
    transforms = Transforms(result.head, result.feature_map, result.label_map, result.conditional)
    return certify(transforms, reference, target, "loss", result.config.block_size)


def figures(path):
    """Bounds on stored features: learned on the training arrays, evaluated on the test arrays.

    Each ground cost has transforms of its own; for these the bound under the cost ``loss`` stands beside. Two pairs:
    the stored one, and the first five classes of its reference with the other five as the target.
    """
    arrays = np.load(path)

    def side(name):
        labels = torch.from_numpy(arrays[f"{name}_labels"].astype(np.int64))
        return torch.from_numpy(arrays[name].astype(np.float32)), labels

    def halves(name):
        features, labels = side(name)
        return features[labels < 5], labels[labels < 5], features[labels >= 5], labels[labels >= 5]

    tasks = {
        "stored pair": [(*side(f"reference_{split}"), *side(f"target_{split}")) for split in ("train", "test")],
        "halves of its reference": [halves(f"reference_{split}") for split in ("train", "test")],
    }
    table = Table("pair", "ground cost", "reference", "labels", "distribution", "bound", "cost loss, same transforms",
                  "loss bounded", "accuracy", "probe loss", "tau found", "s")  # fmt: skip
    rows = []
    for pair, (fit, evaluation) in tasks.items():
        for ground_cost in ("feature", "logit_range", "logit_margin", "loss"):
            r = task_relatedness(*fit, ground_cost=ground_cost, evaluation=evaluation)
            same = under_loss(r, evaluation)
            rows.append({"pair": pair, **without_arrays(r), "bound_under_loss": same.bound})
            assert same.bound <= r.bound + 1e-9
            assert abs(same.target_loss - r.target_loss) < 1e-9
            terms = (r.reweighted_reference_loss, r.label_mismatch, r.distribution_mismatch, r.bound, same.bound)
            table.add_row(
                pair, ground_cost,
                *(f"{value:.3f}" for value in (*terms, r.target_loss, r.target_accuracy, r.probe_loss, r.tau)),
                f"{r.seconds:.1f}",
            )  # fmt: skip
            print(pair, ground_cost, f"{r.bound:.3f} {same.bound:.3f} {r.seconds:.1f} s", flush=True)
    CONSOLE.print(table)
    return {"rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"pairs": pairs, "large_schedule": large_schedule, "scale": scale, "whole": whole}
    parser.add_argument("parts", nargs="*", help=f"some of {[*parts, 'figures']}; by default all but figures")
    parser.add_argument("--data", help="features as .npz with reference_train, reference_train_labels, ...")
    arguments = parser.parse_args()
    if arguments.parts[:1] == ["_scale"]:
        run_scale(arguments.parts[1])
        return
    for name in arguments.parts or [*parts, *(["figures"] if arguments.data else [])]:
        if name == "figures" and not arguments.data:
            parser.error("figures needs --data")
        record = figures(arguments.data) if name == "figures" else parts[name]()
        record["threads"] = torch.get_num_threads()
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"relatedness_{name}.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
