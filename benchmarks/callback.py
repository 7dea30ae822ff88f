"""What a monitor costs inside a training run: time of an epoch and memory.

Time: Trainers fine-tune the same network on the same batches in this process, taking turns epoch by epoch, two without
a monitor and one for each set of scores with a ``TransferabilityMonitor`` in hook mode. The overhead is the median over
the epochs of the monitor's own share, measured around its hooks, and of the difference between the sides; how far the
two sides without a monitor differ says what such a difference is worth on this machine. Network and
images are small: with larger ones an epoch takes longer and a look just as long. There are more validation samples than
features, as scores want it. Memory: the tensors that the monitor holds at the end of a validation pass over ever more
samples.

    python benchmarks/callback.py [--epochs 3] [--metrics logme --metrics nce leep] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import statistics
import time
import warnings
from pathlib import Path
from types import FunctionType, ModuleType
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer.backbones import load_backbone
from lightning_transfer.callbacks import TransferabilityMonitor
from lightning_transfer.callbacks.capture import Capture
from lightning_transfer.finetuning import FineTuningModule

METRICS = [["logme"], ["logme", "h_score", "nce", "leep"]]  # the monitor's default; with scores of the original head
MEMORY_METRICS = ["logme", "h_score"]
HOOKS = ("on_validation_start", "on_validation_batch_end", "on_validation_epoch_end", "on_train_epoch_end")
COPIES = ("_on_input", "_on_output", "_on_backbone")
LIMIT = 0.03


class Timed(TransferabilityMonitor):
    """Adds up the time of its own hooks, epoch by epoch, the forward hooks' copies included."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.own = []
        self._running = 0.0
        for name in HOOKS:
            setattr(self, name, self._timed(getattr(self, name)))

    def on_fit_start(self, trainer, pl_module):
        with patch.multiple(Capture, **{name: self._timed_copy(getattr(Capture, name)) for name in COPIES}):
            super().on_fit_start(trainer, pl_module)

    def _timed_copy(self, copy):
        def run(*args):
            start = time.perf_counter()
            copy(*args)
            self._running += time.perf_counter() - start

        return run

    def _timed(self, hook):
        def run(*args, **kwargs):
            start = time.perf_counter()
            hook(*args, **kwargs)
            self._running += time.perf_counter() - start
            if hook.__name__ == "on_train_epoch_end":
                self.own.append(self._running)
                self._running = 0.0

        return run


class Clock(pl.Callback):
    """Times whole epochs, validation included, and hands the turn to the other side after each."""

    def __init__(self):
        self.seconds = []

    def on_train_epoch_start(self, trainer, pl_module):
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        self.seconds.append(time.perf_counter() - self._start)


def images(n: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8)
    return TensorDataset(pixels, torch.randint(20, (n,), generator=generator))


def trainer_of(callbacks, epochs: int, **options) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs, callbacks=callbacks, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def measure_time(epochs: int, samples: int, choices: list[list[str]]) -> dict[str, object]:
    """Epochs of all sides in turns: each side is a run of one epoch after the other, resumed in memory."""
    train, val = images(samples), images(samples // 4)
    sides = []
    for metrics in ([], [], *choices):
        pl.seed_everything(0, verbose=False)
        monitor = [Timed(metrics, before_fit=False)] if metrics else []
        backbone = load_backbone("efficientnet_lite0", input_size=64)
        sides.append((FineTuningModule(backbone, 20, scheduler="constant", warmup=0), monitor, Clock()))
    for turn in range(epochs + 1):
        first = turn % len(sides)
        for module, monitor, clock in sides[first:] + sides[:first]:
            trainer_of([*monitor, clock], 1).fit(module, DataLoader(train, 32), DataLoader(val, 32))
    plain, again, *watched = ([round(seconds, 4) for seconds in clock.seconds[1:]] for _, _, clock in sides)  # warm
    base = statistics.median(plain + again)
    runs = []
    for metrics, seconds, (_, (monitor,), _) in zip(choices, watched, sides[2:], strict=True):
        own = [round(spent, 4) for spent in monitor.own[1:]]
        runs.append({
            "metrics": metrics,
            "epoch_seconds": seconds,
            "seconds_in_hooks": own,
            "overhead_in_hooks": round(statistics.median(own) / base, 5),
            "overhead_by_difference": round(statistics.median(seconds) / base - 1, 5),
        })  # fmt: skip
    return {
        "network": "efficientnet_lite0 at 64 pixels, all weights trained",
        "train_samples": samples,
        "val_samples": samples // 4,
        "epoch_seconds_without": [plain, again],
        "difference_without": round(abs(statistics.median(again) / statistics.median(plain) - 1), 5),
        "with": runs,
    }


class Weighed(TransferabilityMonitor):
    """Counts the bytes of all tensors that it holds when the last batch has come."""

    held = 0

    def on_validation_epoch_end(self, trainer, pl_module):
        self.held = bytes_reachable(self, stop=(trainer, pl_module))
        super().on_validation_epoch_end(trainer, pl_module)


def bytes_reachable(root: object, stop: tuple[object, ...]) -> int:
    """Bytes of the tensors that an object leads to, each storage once."""
    seen, storages, pending = {id(other) for other in stop}, {}, [root]
    while pending:
        value = pending.pop()
        if id(value) in seen or isinstance(value, type | ModuleType | FunctionType):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        pending.extend(gc.get_referents(value))
    return sum(storages.values())


def measure_memory(sizes: list[int], width: int = 256) -> list[dict[str, int]]:
    """Bytes that a monitor holds at the end of a validation pass over ever more samples."""
    rows = []
    for n in sizes:
        points = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
        data = TensorDataset(points, torch.arange(n) % 10)
        layer = torch.nn.Sequential(torch.nn.Linear(width, width))
        backbone = load_backbone(layer, input_shape=(width,), head=None)
        module = FineTuningModule(backbone, 10, mode="head", scheduler="constant", warmup=0)
        monitor = Weighed(MEMORY_METRICS, before_fit=False)
        trainer = trainer_of([monitor], 1, limit_train_batches=1)
        trainer.fit(module, DataLoader(data, 250), DataLoader(data, 250))
        rows.append({"val_samples": n, "bytes": monitor.held})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=6000, help="training samples; a quarter as many validate")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--metrics", nargs="+", action="append", help="a set of scores; may be repeated")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)

    memory = measure_memory(options.sizes)
    print(f"{'validation samples':>20} {'bytes held by the monitor':>28}")
    for row in memory:
        print(f"{row['val_samples']:20,} {row['bytes']:28,}")
    timing = measure_time(options.epochs, options.samples, options.metrics or METRICS)
    plain = statistics.median(itertools.chain(*timing["epoch_seconds_without"]))
    print(f"\nepoch without monitor {plain:.2f} s (median); two such runs differ by {timing['difference_without']:.2%}")
    for run in timing["with"]:
        look, share = statistics.median(run["seconds_in_hooks"]), run["overhead_in_hooks"]
        print(f"{' '.join(run['metrics'])}: {look:.2f} s in its hooks, overhead {share:.2%} "
              f"({run['overhead_by_difference']:+.2%} by difference), limit {LIMIT:.0%} "
              f"{'held' if share <= LIMIT else 'NOT held'}")  # fmt: skip
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"threads": options.threads, **timing, "memory": memory}, indent=2) + "\n")


if __name__ == "__main__":
    main()
