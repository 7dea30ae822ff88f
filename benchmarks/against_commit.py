"""Today's tree against an earlier commit: scores, extraction and a monitored fit, in turns within one run.

    python benchmarks/against_commit.py 44bc5e4 [--repeats 7] [--json benchmarks/results/against_commit.json]

A worker process each imports one of the two trees (the earlier one is unpacked by ``git archive``) and stays; each
part is measured A B B A ... by the parent, so that a change of the machine's speed meets both. The ratio is the median
over the pairs. Only public names are used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
WORKER = """
import io, json, logging, sys, time, warnings
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import torch
import lightning.pytorch as pl
from torch import nn
from torchmetrics import MetricCollection
import lightning_transfer
from lightning_transfer import TransferabilityMonitor, extract
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.metrics import HScore, LFC, LogME, RidgeProbe

clock = time.process_time if sys.argv[1] == "cpu" else time.perf_counter
generator = torch.Generator().manual_seed(0)
labels = torch.randint(50, (8192,), generator=generator)
features = torch.randn(8192, 768, generator=generator) + 0.3 * torch.randn(50, 768, generator=generator)[labels]
batches = list(zip(features.split(256), labels.split(256)))


def make():
    return MetricCollection({"h": HScore(), "s": HScore(shrinkage="ledoit_wolf"), "l": LogME(), "f": LFC()})


filled = make()
for batch in batches:
    filled.update(*batch)


def updates():
    collection = make()
    collection.update(*batches[0])
    start = clock()
    for _ in range(3):
        for batch in batches:
            collection.update(*batch)
    return clock() - start


def computes():
    filled.update(*batches[0])
    start = clock()
    filled.compute()
    return clock() - start


images = torch.rand(1024, 3, 32, 32, generator=generator)
classes = torch.arange(1024) % 10
net = nn.Sequential(
    nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 256, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, classes), batch_size=64)
backbone = ModuleBackbone(net, input_shape=(3, 32, 32), head=None)


def extraction():
    start = clock()
    extract(backbone, loader, make(), trainer={"accelerator": "cpu"}, progress=False)
    return clock() - start


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(*net, nn.Linear(256, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def callback():
    trainer = pl.Trainer(
        max_epochs=2, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[TransferabilityMonitor(["logme", "h_score"])],
    )
    start = clock()
    trainer.fit(Module(), loader, loader)
    return clock() - start


out = sys.stdout
sys.stdout = io.StringIO()
for line in sys.stdin:
    name = line.strip()
    value = lightning_transfer.__file__ if name == "where" else globals()[name]()
    print(json.dumps(value), file=out, flush=True)
"""
PARTS = ("updates", "computes", "extraction", "callback")


class Side:
    """A worker that has imported one tree."""

    def __init__(self, tree: Path, clock: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, clock], env=environment, text=True, cwd=tree, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert str(self.ask("where")).startswith(str(tree)), "the worker imported another tree"

    def ask(self, name: str):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=["cpu", "wall"], default="wall", help="cpu: on a busy machine")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", arguments.commit, "lightning_transfer"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        sides = {"now": Side(ROOT, arguments.clock), "before": Side(Path(folder), arguments.clock)}
        results = {}
        for part in PARTS:
            for side in sides.values():
                side.ask(part)  # warm
            times = {name: [] for name in sides}
            for turn in range(arguments.repeats):
                for name in sorted(sides, reverse=bool(turn % 2)):
                    times[name].append(sides[name].ask(part))
            ratios = [a / b for a, b in zip(times["now"], times["before"], strict=True)]
            results[part] = {
                "seconds_now": median(times["now"]), "seconds_before": median(times["before"]),
                "ratio": median(ratios), "lowest_ratio": min(ratios), "highest_ratio": max(ratios),
            }  # fmt: skip
            print(f"{part:12}" + "".join(f"  {key} {value:.3f}" for key, value in results[part].items()), flush=True)
        for side in sides.values():
            side.process.kill()
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"against": arguments.commit, "clock": arguments.clock, **results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
