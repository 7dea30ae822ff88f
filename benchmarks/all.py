"""Speed of the package beside what it cannot do without or public code does: one table, and a page of the docs.

    python benchmarks/all.py                    # every part
    python benchmarks/all.py updates mixture    # some parts, the others keep their figures
    python benchmarks/all.py --docs             # write docs/performance.md from the figures that there are

Both sides of a ratio run in one process on one thread, turn about; what counts is processor time, the smallest of the
repeats, so that other work on the machine changes little. Figures go to `benchmarks/results/all.json`, part by part,
with the processor and the versions.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before NumPy and SciPy are imported
    os.environ.setdefault(_name, "1")

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "all.json"
PAGE = ROOT / "docs" / "performance.md"
MODEL = ROOT / "benchmarks" / "results" / "cost_model.json"
GPU = ROOT / "benchmarks" / "results" / "gpu.json"
FAMILY = ROOT / "benchmarks" / "results" / "estimators_family.json"
PICTURES_A_SECOND, CORE_HOUR, GPU_HOUR = (
    2_000,
    0.04,
    2.0,
)  # assumptions: of one GPU; dollars of a core and a GPU with it
STREAM = """
import sys, torch
from all import peak_mib
from lightning_transfer.metrics.registry import build_metrics
n, d = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
noise, means = torch.randn(4096, d, generator=generator), torch.randn(10, d, generator=generator)
metrics = build_metrics(["logme", "h_score", "h_score_shrunk"])
for _ in range(0, n, 4096):
    labels = torch.randint(10, (4096,), generator=generator)
    metrics.update(features=noise + means[labels], labels=labels)
metrics.compute()
print(peak_mib())
"""
MANY = """
import sys, torch, warnings
from torch import nn
from all import peak_mib
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits
from lightning_transfer.screening.screen import screen
warnings.simplefilter("ignore")
torch.set_num_threads(1)
def tiny(seed):
    torch.manual_seed(seed)
    return ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 256)), input_shape=(1, 8, 8), head=None)
count = int(sys.argv[1])
zoo = {f"net_{i}": (lambda i=i: tiny(i))() for i in range(count)}
screen(zoo, Digits(max_samples=200), ["logme", "h_score"], progress=False, cache=False)
print(peak_mib())
"""


def peak_mib():
    """Largest memory of this process; that of ``resource`` would count the process that started it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def turn_about(sides, repeats, clock=time.process_time):
    """Smallest time, by default of the processor, of each of several functions, which take turns."""
    best = dict.fromkeys(sides, float("inf"))
    for turn in range(repeats):
        for name in list(sides)[:: (-1) ** turn]:
            start = clock()
            sides[name]()
            best[name] = min(best[name], clock() - start)
    return best


def row(what, best, goal, note=""):
    """A line of the table: our seconds, those of the other side, and their ratio."""
    (_, ours), (_, other) = best.items()
    return {"what": what, "ours": ours, "other": other, "ratio": ours / other, "goal": goal, "note": note}


def correlated(n, d, classes, seed=0):
    """Correlated float32 features with class means, and class ids."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    mixing = torch.randn(d, d, generator=generator) / d**0.5
    means = 0.5 * torch.randn(classes, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mixing + means[labels], labels


def updates():
    """Updates and computes of the moment-based scores."""
    import torch

    from lightning_transfer.metrics.registry import build_metrics

    features, labels = correlated(10_000, 1280, 100)
    metrics = build_metrics(["h_score", "h_score_shrunk", "logme"])

    def update():
        metrics.reset()
        for batch in zip(features.split(256), labels.split(256), strict=True):
            metrics.update(*batch)

    def product():
        total = torch.zeros(features.shape[1], features.shape[1])
        for batch in features.split(256):
            total += batch.T @ batch

    lines = [
        row(
            "updates of H-score, shrunk H-score and LogME, 10 000 x 1280 / one float32 product",
            turn_about({"ours": update, "other": product}, 6),
            1.2,
        )
    ]
    gram = features.double().T @ features.double()
    best = {"ours": float("inf"), "other": float("inf")}
    for turn in range(4):
        update()  # a compute is kept until the next update
        for name in list(best)[:: (-1) ** turn]:
            start = time.process_time()
            metrics.compute() if name == "ours" else torch.linalg.eigh(gram)
            best[name] = min(best[name], time.process_time() - start)
    return [*lines, row("their computes at d = 1280 / one float64 eigendecomposition", best, 1.2)]


def busy():
    """An eigendecomposition while other processes keep the cores busy, by the clock on the wall."""
    import scipy.linalg
    import torch
    from threadpoolctl import threadpool_limits

    from lightning_transfer.utilities.linalg import eigh

    features, _ = correlated(750, 1280, 5)
    matrix = features.double() @ features.double().T
    sides = {"ours": lambda: eigh(matrix), "other": lambda: scipy.linalg.eigh(matrix.numpy(), driver="evd")}
    torch.set_num_threads(os.cpu_count() or 1)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        with threadpool_limits(os.cpu_count()):
            best = turn_about(sides, 3, time.perf_counter)
    finally:
        for other in others:
            other.kill()
            other.wait()
        torch.set_num_threads(1)
    return [row("eigendecomposition of 750 rows beside a busy process a core / SciPy's own, by the wall", best, 1)]


def device():
    """What updates and computes give a GPU to do, counted on the processor: kernels, bytes, waits of the host."""
    from unittest import mock

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from lightning_transfer.metrics.moments import MomentMetric
    from lightning_transfer.metrics.registry import build_metrics
    from lightning_transfer.utilities import linalg

    waits = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select"}

    class Count(TorchDispatchMode):
        kernels = waits = bytes = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **(keywords or {}))
            tensors = tree_leaves((arguments, keywords, result))
            tensors = {id(tensor): tensor for tensor in tensors if isinstance(tensor, torch.Tensor)}.values()
            self.waits += function.overloadpacket.__name__ in waits
            if not function.is_view:
                self.kernels += 1
                self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            return result

    n, d, classes, names = 4096, 2048, 1000, ("logme", "h_score", "h_score_shrunk")
    labels = torch.randint(classes, (n,), generator=torch.Generator().manual_seed(0))
    lines = []
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(dtype)
        metrics = build_metrics(names, options={key: {"num_classes": classes} for key in names})
        for metric in metrics.values(copy_state=False):
            metric.defer_checks = True
        with (
            mock.patch.object(MomentMetric, "_takes_whole_batches", True),
            mock.patch.object(linalg, "_suits_blas", return_value=False),
        ):
            metrics.update(features, labels)
            with Count() as counted:
                metrics.update(features, labels)
        what = f"of an update on a GPU, {n} x {d} {str(dtype).removeprefix('torch.')}, {classes} classes, three scores"
        lines += [
            {"what": f"kernels {what}", "ours": counted.kernels},
            {"what": f"waits for the device {what}", "ours": counted.waits, "goal": 0},
            {"what": f"MiB read and written {what}", "ours": counted.bytes / 2**20},
        ]
    metrics = build_metrics(names)
    with mock.patch.object(linalg, "_suits_blas", return_value=False):
        for _ in range(2):  # what is made once a process is not counted
            metrics.reset()
            metrics.update(features[:, :256].float(), labels % 100)
            with Count() as counted:
                metrics.compute()
    what = "of the computes on a GPU, 256 features, 100 classes, three scores"
    return [
        *lines,
        {"what": f"kernels {what}", "ours": counted.kernels},
        {"what": f"waits {what}", "ours": counted.waits},
    ]


def mixture():
    """The mixture of N-LEEP beside scikit-learn's."""
    import torch
    from sklearn.mixture import GaussianMixture

    from lightning_transfer.functional._mixture import fit_mixture

    lines = []
    for n, r, classes, apart, components, goal in (
        (3000, 150, 20, 1.0, 100, 0.2), (1500, 40, 5, 0.2, 4, 1.0), (600, 5, 3, 0.1, 15, 1.0)
    ):  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(classes, (n,), generator=generator)
        centres = apart * torch.randn(classes, r, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, r, generator=generator, dtype=torch.float64)
        samples = centres[labels] + noise * torch.linspace(1, 0.2, r, dtype=torch.float64)
        rows, theirs = samples.numpy(), GaussianMixture(components, random_state=0)
        best = turn_about(
            {
                "ours": lambda: fit_mixture(samples, components, 0),  # noqa: B023
                "other": lambda: theirs.fit(rows).predict_proba(rows),  # noqa: B023
            },
            3,
        )
        shares = theirs.predict_proba(rows)
        sure = f"{(shares.max(1) > 0.999).mean():.0%} of the samples belong to one component"
        lines.append(row(f"mixture of {components} at {n} x {r} / scikit-learn", best, goal, sure))
    return lines


def nleep():
    """N-LEEP at a size where scikit-learn's mixture takes minutes."""
    from lightning_transfer.functional.nleep import nleep as score

    features, labels = correlated(10_000, 1280, 100)
    start = time.process_time()
    score(features, labels)
    seconds = time.process_time() - start
    return [{"what": "N-LEEP of 10 000 x 1280, 100 classes, in seconds", "ours": seconds, "goal": 30}]


def leep():
    """LEEP of many source classes beside the published NumPy code, written anew from its formula."""
    import numpy as np
    import torch

    from lightning_transfer.functional.leep import leep as score

    lines = []
    for n, classes in ((10_000, 100), (50_000, 397)):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(classes, (n,), generator=generator)
        probs = (3 * torch.randn(n, 1000, generator=generator)).softmax(1)
        theta, ids = probs.double().numpy(), labels.numpy()

        def published(theta=theta, ids=ids, classes=classes):
            joint = np.stack([theta[ids == label].sum(axis=0) for label in range(classes)]) / len(ids)
            predicted = theta @ (joint / joint.sum(axis=0)).T
            return np.log(predicted[np.arange(len(ids)), ids]).mean()

        sides = {"ours": lambda probs=probs, labels=labels: score(probs, labels), "other": published}
        what = f"LEEP of {n} samples, 1000 source classes, {classes} classes / published form in NumPy"
        lines.append(row(what, turn_about(sides, 3), 0.5))
    return lines


def board():
    """Writing a large leaderboard with its figure."""
    import random

    from lightning_transfer.screening.leaderboard import Leaderboard
    from lightning_transfer.screening.row import Row

    numbers = random.Random(0)
    names = ["logme", *(f"score_{i}" for i in range(19))]
    rows = [
        Row(
            f"net_{i}",
            {name: numbers.gauss(0, 1) for name in names},
            dict.fromkeys(names, 0.1),
            parameters=1 + numbers.randrange(10**8),
        )
        for i in range(500)
    ]
    with tempfile.TemporaryDirectory() as folder:
        best = turn_about({"save": lambda: Leaderboard(rows).save(folder)}, 3)
    return [{"what": "`Leaderboard.save` of 500 rows with 20 scores, in seconds", "ours": best["save"], "goal": 3}]


def errors():
    """A screen with standard errors and without."""
    from lightning_transfer.data import PhotoPatches
    from lightning_transfer.screening.screen import screen

    def run(error_bars):
        data = PhotoPatches(max_samples=800)
        screen("efficientnet_lite0_random", data, error_bars=error_bars, progress=False, cache=False)

    run(False)
    best = turn_about({"ours": lambda: run(True), "other": lambda: run(False)}, 2)
    return [row("screen with standard errors / without, 800 pictures", best, 1.3)]


def extraction():
    """Scoring beside a bare loop over the same batches."""
    from extraction import bare, scored

    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.data import PhotoPatches

    backbone, data = load_backbone("efficientnet_lite0", input_size=96), PhotoPatches(batch_size=64)
    loader = data.split_dataloader("train")
    scored(backbone, PhotoPatches(max_samples=100), ["default"], time.process_time)
    parts = {"pass": float("inf"), "total": float("inf"), "bare": float("inf")}
    for turn in range(4):
        for side in ("bare", "ours")[:: (-1) ** turn]:
            start = time.process_time()
            found = scored(backbone, data, ["default"], time.process_time) if side == "ours" else bare(backbone, loader)
            found = found or {"bare": time.process_time() - start}
            parts |= {name: min(parts[name], seconds) for name, seconds in found.items() if name in parts}
    size = f"{len(loader.dataset)} pictures of 96 pixels, EfficientNet-Lite 0"
    return [
        row(f"pass / bare loop, {size}", {"ours": parts["pass"], "other": parts["bare"]}, 1.05),
        row(f"pass and default scores / bare loop, {size}", {"ours": parts["total"], "other": parts["bare"]}, 1.1),
    ]


def options():
    """Faster forward passes beside the plain one, and from how many pictures on a compilation is worth its start."""
    import copy

    import torch

    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.utilities.optimization import optimized

    torch._inductor.config.force_disable_caches = True  # the start as it is the first time
    torch._inductor.config.compile_threads = 1
    inputs = torch.randint(256, (8, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kinds = {"channels_last": ["channels_last"], "compile": ["compile"], "both": ["channels_last", "compile"]}
    lines = []
    for name in ("efficientnet_lite0_random", "timm/resnet18", "timm/vit_tiny_patch16_224"):
        plain = load_backbone(name, **({"pretrained": False} if "/" in name else {})).eval()
        networks, starts = {kind: copy.deepcopy(plain) for kind in kinds}, {}

        def run(network, dtype=None):
            with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
                network(inputs)

        with contextlib.ExitStack() as stack:
            for kind, names in kinds.items():
                stack.enter_context(optimized(networks[kind], names))
                run(plain)
                start = _all_seconds()
                run(networks[kind])
                starts[kind] = _all_seconds() - start
            sides = {kind: functools.partial(run, network) for kind, network in networks.items()}
            half = functools.partial(run, plain, torch.bfloat16)
            best = turn_about({"plain": functools.partial(run, plain), **sides, "bf16": half}, 4)
        for kind in (*kinds, "bf16"):
            saved, note = best["plain"] - best[kind], ""
            if "compile" in kinds.get(kind, ()):
                start = max(0.0, starts[kind] - best[kind])
                pays = (
                    f"worth it from {round(start / saved * len(inputs), -2):,.0f} pictures on" if saved > 0 else "never"
                )
                served = start < 1 and kind == "both"  # the layout of the weights made no difference to the compiler
                note = "by the code of the line above" if served else f"{start:.0f} s to start, {pays}"
            what = "bf16-mixed" if kind == "bf16" else f"optimize={kinds[kind]}".replace("'", "")
            short = name.removesuffix("_random").removeprefix("timm/")
            lines.append(
                row(
                    f"forward pass with {what} / without, {short}",
                    {"ours": best[kind], "other": best["plain"]},
                    None,
                    note,
                )
            )
    return lines


def _all_seconds():
    """Processor time of this process and those that it started, such as a compiler."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory():
    """Peak memory of many samples and of many backbones, each in a process of its own."""

    def peak(program, *arguments):
        command = [sys.executable, "-c", program, *map(str, arguments)]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "benchmarks")
        return float(run.stdout.splitlines()[-1])

    samples = {"ours": peak(STREAM, 2_000_000, 32), "other": peak(STREAM, 200_000, 32)}
    zoo = {"ours": peak(MANY, 100), "other": peak(MANY, 10)}
    return [
        row("peak MiB of 2 000 000 samples / of 200 000, d = 32, moment-based scores", samples, 1.02),
        row("peak MiB of a screen of 100 small backbones / of 10", zoo, 1.02),
    ]


def startup():
    """Seconds until the package is imported, and until the command line has said what it can do."""
    lines = []
    for what, command in {
        "`import lightning_transfer`": [sys.executable, "-c", "import lightning_transfer"],
        "`lightning-transfer --help`": [sys.executable, "-m", "lightning_transfer", "--help"],
    }.items():
        seconds, bare = (min(_child_seconds(argv) for _ in range(5)) for argv in (command, [sys.executable, "-c", ""]))
        lines.append({"what": f"{what}, in seconds over Python's own start", "ours": seconds - bare, "goal": 0.1})
    return lines


def _child_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


PARTS = {
    part.__name__: part
    for part in (updates, busy, device, mixture, nleep, leep, board, errors, extraction, options, memory, startup)
}


def processor():
    """Name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    kinds = re.findall(r"^(?:model name|cpu family|model)\s*:\s*(.*)$", text, re.MULTILINE)[:3]
    return f"{kinds[-1]} (family {kinds[0]}, model {kinds[1]})" if len(kinds) == 3 else platform.machine()


def table(record):
    """The figures as a table of the docs."""
    lines = ["| path | figure | goal | seconds |", "|---|---|---|---|"]
    for part in PARTS:
        for entry in record.get(part, {}).get("rows", ()):
            goal = "" if entry.get("goal") is None else f"{entry['goal']:g}"
            note = f" ({entry['note']})" if entry.get("note") else ""
            figure = entry.get("ratio", entry["ours"])
            beside = f"{entry['ours']:.3g} / {entry['other']:.3g}" if "other" in entry else f"{entry['ours']:.3g}"
            lines.append(f"| {entry['what']}{note} | {figure:.2f} | {goal} | {beside} |")
    said = {f"{one['processor']}, torch {one['torch']}" for one in record.values()}
    return "\n".join([*lines, "", f"Measured on {'; '.join(sorted(said))}, one thread, other work beside."])


def gpu(found):
    """The figures of `gpu.py` as a table of the docs."""
    lines = ["| path | figure | goal | milliseconds |", "|---|---|---|---|"]
    for part in found.values():
        for entry in part["rows"]:
            goal = "" if entry.get("goal") is None else f"{entry['goal']:g}"
            if "other" in entry:
                beside = f"{1e3 * entry['ours']:.3g} / {1e3 * entry['other']:.3g}"
                lines.append(f"| {entry['what']} | {entry['ratio']:.2f} | {goal} | {beside} |")
            else:
                lines.append(f"| {entry['what']} | {entry['ours']:.1e} | {goal} | |")
    said = {f"{part['card']}, torch {part['torch']}" for part in found.values()}
    return "\n".join([*lines, "", f"Measured on one {'; '.join(sorted(said))}."])


def model(found, record):
    """The parts of a screen's cost, whether they add up, and what a large screen would take."""
    network = found["backbones"]["efficientnet_lite0"]
    speed = network["forward"] / network["flops"] * 1e9
    write = next((entry["ours"] for entry in record.get("board", {}).get("rows", ())), float("nan"))
    hours = {part: 1e9 * found[part] / 3600 for part in ("decode", "update")} | {"forward": 4e9 * speed / 3600}
    gpus = 1e9 / PICTURES_A_SECOND / 3600
    price = gpus * GPU_HOUR + hours["decode"] * CORE_HOUR
    sums = ", ".join(f"{entry['ratio']:.2f} with {count} workers" for count, entry in found["workers"].items())
    return f"""| part | grows as | one thread |
|---|---|---|
| decode | pixels of the file | {1e3 * found["decode"]:.1f} ms a JPEG of 600 x 400 |
| forward | multiply-adds | {1e3 * speed:.0f} ms a billion (EfficientNet-Lite 0 at {found["pixels"]} pixels) |
| update | $d^2$ a sample, half a product in float64 | {1e3 * found["update"]:.2f} ms at $d = 1280$ |
| compute | $d^3$, one eigendecomposition | {found["compute"]:.2f} s a backbone at $d = 1280$ |
| write | rows | {write:.1f} s with its figure for 500 rows; before that a twentieth of the time at most |
| start | processes, backbones | {found["start"]:.1f} s a process, {found["backbone_start"]:.1f} s a backbone |

Four backbones over {found["files"]} files, processor time of all processes over what the parts say: {sums}
(`python benchmarks/cost_model.py`, {found["processor"]}).

**1 000 backbones over 1 000 000 pictures**, from that. On processors alone, at 4 billion multiply-adds a picture:
{hours["decode"]:,.0f} core hours to decode, {hours["forward"]:,.0f} for the forward passes, {hours["update"]:,.0f} for
the updates. With GPUs that take {PICTURES_A_SECOND:,} pictures a second each: {gpus:,.0f} GPU hours, each GPU fed by
{found["decode"] * PICTURES_A_SECOND:.0f} cores that decode, about {price:,.0f} dollars at {GPU_HOUR:g} a GPU hour and
{CORE_HOUR:g} a core hour. Several backbones in one job (`zoo`, not `-m`) read a picture once as far as `picture_memory`
goes, and `max_samples=10000` makes all of it a hundred times less: standard errors say whether that is enough."""


def family(found):
    """Every score beside public code, as a table of the docs."""
    sizes = list(dict.fromkeys(key.partition(" ")[2] for key in found))
    scores = list(dict.fromkeys(key.partition(" ")[0] for key in found))

    def cell(entry):
        sides = entry["ours"], entry["theirs"]
        both = " / ".join(side.get("failed") or f"{side['seconds']:.2f} s" for side in sides)
        done = all("seconds" in side for side in sides)
        return f"{sides[0]['seconds'] / sides[1]['seconds']:.2g} ({both})" if done else both

    lines = [f"| score | beside | {' | '.join(sizes)} |", "|---|---|" + "---|" * len(sizes)]
    for score in scores:
        entries = [found[f"{score} {size}"] for size in sizes]
        source = next((entry["theirs"]["source"] for entry in entries if "source" in entry["theirs"]), None)
        if source is not None:
            lines.append(f"| `{score}` | {source} | {' | '.join(map(cell, entries))} |")
    return "\n".join(lines)


def put(text, name, content):
    """A page with what lies between two marks replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    start = text.index(begin) + len(begin)
    return f"{text[:start]}\n\n{content}\n\n{text[text.index(end) :]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"some of {list(PARTS)}")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown parts {sorted(unknown)}, known: {list(PARTS)}")
    record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if arguments.parts or not arguments.docs:
        import torch

        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        for part in arguments.parts or PARTS:
            rows = PARTS[part]()
            record = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}  # others may have measured meanwhile
            record[part] = {
                "rows": rows,
                "processor": processor(),
                "torch": torch.__version__,
                "scikit-learn": importlib.metadata.version("scikit-learn"),
                "date": datetime.date.today().isoformat(),
            }
            RESULTS.write_text(json.dumps(record, indent=1) + "\n")
            print(table({part: record[part]}), file=sys.stdout, flush=True)
    if arguments.docs:
        text = put(PAGE.read_text(), "table", table(record))
        text = put(text, "family", family(json.loads(FAMILY.read_text()))) if FAMILY.is_file() else text
        text = put(text, "gpu", gpu(json.loads(GPU.read_text()))) if GPU.is_file() else text
        PAGE.write_text(put(text, "model", model(json.loads(MODEL.read_text()), record)) if MODEL.is_file() else text)


if __name__ == "__main__":
    main()
