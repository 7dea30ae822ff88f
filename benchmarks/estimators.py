"""Speed and memory of the estimators.

    python benchmarks/estimators.py                   # every part, several minutes
    python benchmarks/estimators.py together ratios   # some of them

Parts: ``together`` (moment-based scores of one pass against the same scores one by one from NumPy and SciPy,
scikit-learn and transformer-ranker, in one process), ``ratios`` (updates against one float32 product, computes against
one eigendecomposition), ``memory`` (peak of streamed batches against the number of samples), ``family`` (time and
memory of every estimator at three sizes, each beside public code or an independent version from the paper, both in one
process that ends after 200 seconds), ``million`` (streaming scores of a million samples). Prints tables and writes
``benchmarks/results/estimators_<part>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from all import peak_mib
from rich.console import Console
from rich.table import Table

from lightning_transfer.metrics import LinearMSE
from lightning_transfer.metrics.registry import METRICS, build_metrics

RESULTS = Path(__file__).parent / "results"
BATCH = 256
FAMILY_SIZES = ((2_000, 512, 10), (10_000, 1280, 100), (50_000, 768, 397))
CLASS_INPUTS = {"features", "source_probs", "source_labels", "source_outputs"}
TIME_LIMIT = 200  # seconds for both sides of one score at one size
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
MEMORY_LIMIT = 16 << 30  # bytes of address space of a reference
STREAMING = ("logme", "h_score", "h_score_shrunk", "lfc", "gbc")


def make_data(n, d, classes, seed=0):
    """Correlated float32 features with class means, ids, two regression targets and source probabilities."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    mixing = torch.randn(d, d, generator=generator) / d**0.5
    means = 0.5 * torch.randn(classes, d, generator=generator)
    features = torch.randn(n, d, generator=generator) @ mixing + means[labels]
    targets = features[:, :2] + 0.3 * torch.randn(n, 2, generator=generator)
    source_probs = torch.softmax(features[:, : min(d, 100)], dim=1)
    return features, labels, targets, source_probs


def timed(function, repeats=1):
    """Best wall-clock seconds of several runs, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def moment_collection():
    return build_metrics(["h_score", "h_score_shrunk", "logme"])


def run_update(collection, *inputs):
    collection.reset()
    for batch in zip(*(x.split(BATCH) for x in inputs), strict=True):
        collection.update(*batch)


def together():
    """All moment-based scores of one pass against public code, one by one."""
    import scipy.linalg
    from sklearn.linear_model import LinearRegression
    from transformer_ranker.estimators import HScore as RankerHScore
    from transformer_ranker.estimators import LogME as RankerLogME

    features, labels, targets, _ = make_data(10_000, 1280, 100)
    array, ids, goals = features.double().numpy(), labels.numpy(), targets.double().numpy()

    def plain_h_score():
        covariance = np.cov(array, rowvar=False)
        means = np.stack([array[ids == c].mean(0) for c in np.unique(ids)])[ids]
        return np.trace(scipy.linalg.pinvh(covariance) @ np.cov(means, rowvar=False))

    def plain_linear_mse():
        fitted = LinearRegression().fit(array, goals).predict(array)
        return -((goals - fitted) ** 2).sum(1).mean()

    n = len(array)
    others = {
        "h_score": ("NumPy and SciPy", plain_h_score),
        "h_score_shrunk": (
            "transformer-ranker", lambda: RankerHScore().fit(embeddings=features, labels=labels) * (n - 1) / n
        ),
        "logme": ("transformer-ranker", lambda: RankerLogME().fit(embeddings=features, labels=labels)),
        "linear_mse": ("scikit-learn", plain_linear_mse),
    }  # fmt: skip

    def ours():
        classes, regression = moment_collection(), LinearMSE()
        run_update(classes, features, labels)
        run_update(regression, features, targets)
        return {**classes.compute(), "linear_mse": regression.compute()}

    seconds, scores = timed(ours, repeats=3)
    table = Table("score", "theirs from", "theirs", "ours", "theirs, s", title="n = 10 000, d = 1280, 100 classes")
    record = {"ours_seconds": seconds, "theirs": {}}
    total = 0.0
    for name, (source, function) in others.items():
        other_seconds, value = timed(function, repeats=2)
        total += other_seconds
        record["theirs"][name] = {"from": source, "seconds": other_seconds, "value": float(value)}
        table.add_row(name, source, f"{float(value):.6f}", f"{float(scores[name]):.6f}", f"{other_seconds:.2f}")
    table.add_row("sum", "", "", f"{seconds:.2f} s together", f"{total:.2f}", end_section=True)
    record |= {"theirs_seconds": total, "ratio": total / seconds}
    Console(width=120).print(table, f"one by one / together = {total / seconds:.1f}")
    return record


def ratios():
    """Cost of the updates and of the computes in units of what they cannot do without."""
    features, labels, _, _ = make_data(10_000, 1280, 100)
    collection = moment_collection()
    run_update(collection, features, labels)

    def products():
        total = torch.zeros(features.shape[1], features.shape[1])
        for batch in features.split(BATCH):
            total += batch.T @ batch
        return total

    pairs = [
        (timed(lambda: run_update(collection, features, labels))[0], timed(products)[0]) for _ in range(15)
    ]  # fmt: skip
    update = sorted(ours / theirs for ours, theirs in pairs)[len(pairs) // 2]
    gram = features.double().T @ features.double()
    sides = {"ours": collection.compute, "theirs": lambda: torch.linalg.eigh(gram)}
    pairs = []
    for turn in range(16):
        run_update(collection, features, labels)  # computes are cached until the next update
        order = list(sides)[:: (-1) ** turn]  # the second finds memory and caches warm
        seconds = {side: timed(sides[side])[0] for side in order}
        pairs.append((seconds["ours"], seconds["theirs"]))
    compute = sorted(ours / theirs for ours, theirs in pairs)[len(pairs) // 2]
    Console(width=120).print(
        f"all updates / one float32 product over the same batches of {BATCH}: {update:.2f} (median of 15)\n"
        f"all computes / one float64 eigendecomposition of size 1280: {compute:.2f} (median of 16)"
    )
    return {"update_ratio": update, "compute_ratio": compute}


def stream(n, d, classes, names):
    """Feed generated batches to streaming metrics in this process; return seconds and peak memory."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(classes, d, generator=generator)
    noise = torch.randn(4096, d, generator=generator)
    collection = build_metrics(names)
    start = time.perf_counter()
    for _ in range(0, n, 1024):
        labels = torch.randint(classes, (1024,), generator=generator)
        rows = torch.randint(4096, (1024,), generator=generator)
        collection.update(features=means[labels] + noise[rows], labels=labels)
    collection.compute()
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": peak_mib(),
    }


def stream_in_child(n, d, classes, names):
    """The same in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--stream", str(n), str(d), str(classes), ",".join(names)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory():
    """Peak memory of streamed batches at d = 2048."""
    names = ("logme", "h_score", "h_score_shrunk")
    record = {str(n): stream_in_child(n, 2048, 100, names) for n in (10_000, 50_000, 200_000)}
    table = Table("samples", "peak, MiB", "seconds", title="d = 2048, 100 classes, " + ", ".join(names))
    for n, entry in record.items():
        table.add_row(n, f"{entry['peak_mib']:.0f}", f"{entry['seconds']:.1f}")
    peaks = [entry["peak_mib"] for entry in record.values()]
    record["spread"] = max(peaks) / min(peaks) - 1
    Console(width=120).print(table, f"largest over smallest peak: +{100 * record['spread']:.1f} %")
    return record


def million():
    """A million samples of 768 features through every streaming score."""
    entry = stream_in_child(1_000_000, 768, 100, STREAMING)
    Console(width=120).print(
        f"1 000 000 x 768, {', '.join(STREAMING)}: {entry['seconds']:.1f} s, peak {entry['peak_mib']:.0f} MiB"
    )
    return entry


def reference_data(d, classes):
    """The other side of scores of two data sets: 1000 samples."""
    return make_data(1000, d, classes, seed=1)[:2]


def references(source_probs):
    """The best version at hand of each score, by name: where it is from, and a function of features and labels."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from _reference import label_scores, moment_scores, sample_scores
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.neighbors import NearestNeighbors

    def knn(x, y):
        return (y[NearestNeighbors(n_neighbors=1).fit(x).kneighbors(return_distance=False)[:, 0]] == y).mean()

    def ridge(x, y):
        return RidgeClassifierCV(alphas=np.logspace(-3, 6, 10), scoring="accuracy").fit(x, y).best_score_

    def etran(x, y):
        parts = sample_scores.reference_etran_parts(x, y)
        return 0.15 * parts["energy"] + 0.85 * parts["fit"]

    def ncti(x, y):
        parts = sample_scores.reference_ncti_parts(x, y)
        return parts["ncc"] + parts["seli"] - parts["variability"]

    def pactran(x, y):
        return -sample_scores.reference_pactran(x, y, 1.0, 10.0, official=False)

    def parc(x, y):
        return sample_scores.reference_parc(x, np.eye(y.max() + 1)[y])

    def otce(x, y):
        import ot

        from lightning_transfer.metrics.samples import choose_rows

        others, classes = reference_data(x.shape[1], y.max() + 1)
        rows = choose_rows([torch.from_numpy(x).float(), torch.from_numpy(y)], 0, 1000).numpy()
        cost = ot.dist(others.double().numpy(), x[rows])
        plan = ot.emd(ot.unif(len(others)), ot.unif(len(rows)), cost, numItermax=10**7)
        joint = np.eye(y.max() + 1)[classes.numpy()].T @ plan @ np.eye(y.max() + 1)[y[rows]]
        shares = joint / joint.sum(1, keepdims=True)
        return (joint * np.log(np.where(shares > 0, shares, 1))).sum()

    def of_ranker(name):
        def fit(x, y):
            from transformer_ranker import estimators

            return getattr(estimators, name)().fit(embeddings=torch.from_numpy(x).float(), labels=torch.from_numpy(y))

        return fit

    plain = "NumPy, SciPy, scikit-learn"
    return {
        "logme": ("transformer-ranker", of_ranker("LogME")),
        "h_score": (plain, moment_scores.reference_h_score),
        "h_score_shrunk": ("transformer-ranker", of_ranker("HScore")),
        "knn_accuracy": ("scikit-learn", knn),
        "ridge_probe": ("scikit-learn", ridge),
        "leep": (plain, lambda x, y: label_scores.reference_leep(source_probs, y)),
        "nce": (plain, lambda x, y: label_scores.reference_nce(source_probs.argmax(1), y)),
        "nleep": (plain, label_scores.reference_nleep),
        "gbc": (plain, sample_scores.reference_gbc),
        "lfc": (plain, sample_scores.reference_lfc),
        "transrate": (plain, sample_scores.reference_transrate),
        "sfda": (plain, sample_scores.reference_sfda),
        "parc": (plain, parc),
        "ncti": (plain, ncti),
        "etran": (plain, etran),
        "pactran": (plain, pactran),
        "otce": ("POT", otce),
        "energy": (plain, lambda x, y: np.logaddexp.reduce(np.log(source_probs), axis=1).mean()),
    }


def compare(name, n, d, classes):
    """Run one score and then its reference in this process, on one thread, and print what they took.

    That is CPU seconds, which other processes do not disturb, and the peak of memory over the inputs.
    """

    def ours(features, labels, source_probs):
        inputs = {
            "features": features, "labels": labels, "source_probs": source_probs,
            "source_labels": source_probs.argmax(1), "source_outputs": source_probs.log(),
        }  # fmt: skip
        metric = METRICS[name].build()
        if metric.needs_reference:
            metric.set_reference(*reference_data(features.shape[1], int(labels.max()) + 1))
        for start in range(0, len(labels), BATCH):
            metric.update(**{key: inputs[key][start : start + BATCH] for key in metric.requires})
        return metric.compute()

    def theirs(features, labels, source_probs):
        return references(source_probs.double().numpy())[name][1](features.double().numpy(), labels.numpy())

    def report(side, function, **more):
        before = peak_mib()
        start = time.process_time()
        try:
            value = function()
        except MemoryError:
            print(json.dumps({"side": side, "failed": f"over {MEMORY_LIMIT >> 30} GiB", **more}), flush=True)
            return
        seconds = time.process_time() - start
        entry = {"side": side, "seconds": seconds, "mib": peak_mib() - before, "value": float(value), **more}
        print(json.dumps(entry), flush=True)

    def inputs(*size):
        features, labels, _, source_probs = make_data(*size)
        return features, labels, source_probs

    small, large = inputs(200, 16, 3), inputs(n, d, classes)
    ours(*small)
    report("ours", lambda: ours(*large))
    known = references(large[2].double().numpy())
    if name in known:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        theirs(*small)
        report("theirs", lambda: theirs(*large), source=known[name][0])


def family(scores=(), sizes=()):
    """Every score of classes at three sizes, each beside its reference in one process, within limits.

    Of some scores or some numbers of samples alone, the others keep their figures.
    """
    results = RESULTS / "estimators_family.json"
    record = json.loads(results.read_text()) if (scores or sizes) and results.is_file() else {}
    for size in FAMILY_SIZES:
        n, d, classes = size
        if sizes and n not in sizes:
            continue
        table = Table(
            "score",
            "CPU s",
            "MiB",
            "value",
            "reference",
            "CPU s",
            "MiB",
            "value",
            title=f"{n} x {d}, {classes} classes",
        )
        for name, spec in METRICS.items():
            fits = "classification" in spec.tasks and not set(spec.requires) - CLASS_INPUTS
            if not fits or (scores and name not in scores):
                continue
            command = [sys.executable, __file__, "--compare", name, *map(str, size)]
            try:
                run = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT, env=ONE_THREAD)
                output, errors = run.stdout, run.stderr.decode().splitlines()
                unfinished = errors[-1] if run.returncode else "none"
            except subprocess.TimeoutExpired as stopped:
                output, unfinished = stopped.stdout or b"", f"over {TIME_LIMIT} s"
            sides = {entry.pop("side"): entry for entry in map(json.loads, output.decode().splitlines())}
            cells = []
            for side in ("ours", "theirs"):
                entry = sides.setdefault(side, {"failed": unfinished})
                failed = entry.get("failed")
                cells += [entry["source"]] if side == "theirs" and "source" in entry else [""] * (side == "theirs")
                cells += (
                    [failed, "", ""]
                    if failed
                    else [f"{entry['seconds']:.2f}", f"{entry['mib']:.0f}", f"{entry['value']:.4f}"]
                )
                if side == "ours" and failed:
                    unfinished = "not run"
            table.add_row(name, *cells)
            record[f"{name} {n}x{d}x{classes}"] = sides
        Console(width=120).print(table)
    return record


PARTS = {part.__name__: part for part in (together, ratios, memory, family, million)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"some of {list(PARTS)}")
    parser.add_argument("--scores", nargs="+", default=(), help="of `family`: these alone")
    parser.add_argument("--sizes", nargs="+", type=int, default=(), help="of `family`: these numbers of samples alone")
    parser.add_argument("--stream", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--compare", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.compare:
        name, *size = arguments.compare
        compare(name, *map(int, size))
        return
    if arguments.stream:
        n, d, classes, names = arguments.stream
        print(json.dumps(stream(int(n), int(d), int(classes), names.split(","))))
        return
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}, known: {list(PARTS)}")
    RESULTS.mkdir(exist_ok=True)
    for part in arguments.parts:
        record = family(arguments.scores, arguments.sizes) if part == "family" else PARTS[part]()
        (RESULTS / f"estimators_{part}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
