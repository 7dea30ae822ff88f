"""Small modules, data and runs that the tests of the callbacks share."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import socket
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchmetrics import Metric

CLASSES, WIDTH = 3, 6


class Points(Dataset):
    """``n`` labelled points, as dicts or tuples; samples may be noisy, by global or own random state, or fail."""

    def __init__(self, n: int, kind: str = "tuple", seed: int = 0, noise: str = "none", fails_at: int | None = None):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(CLASSES, (n,), generator=generator)
        centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(99))
        self.inputs = centres[self.labels] + torch.randn(n, WIDTH, generator=generator)
        self.kind, self.noise, self.fails_at = kind, noise, fails_at
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        if index == self.fails_at:
            raise OSError("a broken file")
        inputs = self.inputs[index]
        if self.noise == "global":
            inputs = inputs + torch.randn(WIDTH) * np.random.rand() * random.random()
        if self.noise == "own":
            inputs = inputs + torch.from_numpy(self.rng.normal(size=WIDTH)).float()
        return {"inputs": inputs, "labels": self.labels[index]} if self.kind == "dict" else (inputs, self.labels[index])


class Stream(IterableDataset):
    """The points one after the other, without a length."""

    def __init__(self, n: int, seed: int = 0):
        self.points = Points(n, seed=seed)

    def __iter__(self) -> Any:
        return (self.points[index] for index in range(len(self.points)))


class Net(pl.LightningModule):
    """Two blocks and a head; the first batch norm is frozen. Remembers the order of its training batches."""

    def __init__(self, lr: float = 0.05):
        super().__init__()
        torch.manual_seed(7)
        self.frozen = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8))
        self.body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.head = nn.Linear(8, CLASSES)
        self.lr = lr
        self.digests: list[str] = []

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(self.frozen(inputs)))

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor]:
        return (batch["inputs"], batch["labels"]) if isinstance(batch, dict) else (batch[0], batch[1])

    def on_train_epoch_start(self) -> None:
        self.frozen.eval()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels = self.unpack(batch)
        self.digests.append(digest(inputs, labels, random_state(), modes(self)))
        return nn.functional.cross_entropy(self(inputs), labels)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        inputs, labels = self.unpack(batch)
        self.log("val/loss", nn.functional.cross_entropy(self(inputs), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class FeatureMean(Metric):
    """Mean over all samples of the sum of each one's features: defined for a single sample too."""

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), "sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        self.total += features.double().sum()
        self.count += len(features)

    def compute(self) -> Tensor:
        return self.total / self.count


class Broken(FeatureMean):
    """Fails when told to."""

    def __init__(self, where: str):
        super().__init__()
        self.where = where

    def update(self, features: Tensor, labels: Tensor) -> None:
        torch.rand(3), np.random.rand(3), random.random()
        if self.where == "update":
            raise ArithmeticError("no update today")
        super().update(features, labels)

    def compute(self) -> Tensor:
        if self.where == "compute":
            raise ArithmeticError("no value today")
        return torch.tensor(float("nan")) if self.where == "nan" else super().compute()


class Diary(pl.loggers.Logger):
    """A logger that remembers what it was told."""

    name, version = "diary", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def group_separator(self) -> str:
        return "-"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


def random_state() -> str:
    """A digest of the random states of torch, NumPy and Python."""
    return digest(torch.get_rng_state(), pickle.dumps(np.random.get_state()), pickle.dumps(random.getstate()))


def modes(module: nn.Module) -> bytes:
    """Train or evaluation mode of every submodule."""
    return bytes(child.training for child in module.modules())


def digest(*parts: Any) -> str:
    """A short hash of tensors, bytes and strings."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().contiguous().cpu().numpy().tobytes()
        total.update(part.encode() if isinstance(part, str) else part)
    return total.hexdigest()[:16]


def trace(module: Net) -> dict[str, Any]:
    """All that training left behind: weights and buffers, order and random states of the batches, modes."""
    return {
        "weights": {name: digest(value) for name, value in module.state_dict().items()},
        "batches": module.digests,
        "random": random_state(),
        "modes": modes(module),
    }


def kinds_in(state: Any) -> set[type]:
    """Types of the leaves of nested dicts and lists, keys included."""
    if isinstance(state, dict):
        return kinds_in([*state, *state.values()])
    return set().union(*map(kinds_in, state)) if isinstance(state, list | tuple) else {type(state)}


def make_trainer(callbacks: Any = (), **options: Any) -> pl.Trainer:
    """A quiet Trainer on the CPU."""
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**settings, **options})


def fit(callbacks: Any = (), module: Any = None, train: Any = None, val: Any = None, **options: Any) -> Any:
    """Seed everything, train, and return the module and its Trainer."""
    pl.seed_everything(3, verbose=False)
    module = Net() if module is None else module
    trainer = make_trainer(callbacks, **options)
    train = DataLoader(Points(60), batch_size=16, shuffle=True) if train is None else train
    val = DataLoader(Points(37, seed=1), batch_size=8) if val is None else val
    trainer.fit(module, train, val)
    return module, trainer


def features_of(module: Net, points: Points) -> Tensor:
    """The input of the head in evaluation mode, computed without any callback."""
    modes_before = [(child, child.training) for child in module.modules()]
    module.eval()
    with torch.no_grad():
        features = module.body(module.frozen(points.inputs))
    for child, training in modes_before:
        child.training = training
    return features


def run_in_processes(worker: Any, folder: Any, world_size: int = 2, **arguments: Any) -> list[dict[str, Any]]:
    """Call ``worker(**arguments)`` in as many gloo processes and return what each one gave back.

    ``worker`` is a function of a module that can be imported; inside it, a Trainer with ``strategy="ddp"`` and as many
    ``devices`` finds itself launched already.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (worker, str(folder), world_size, port, arguments), nprocs=world_size)
    return [torch.load(f"{folder}/rank{rank}.pt", weights_only=True) for rank in range(world_size)]


def _enter(rank: int, worker: Any, folder: str, world_size: int, port: int, arguments: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "GROUP_RANK": "0",
        "ROLE_RANK": str(rank),
        "TORCHELASTIC_RUN_ID": "tests",  # Lightning takes it for torchrun
    }
    torch.save(worker(**arguments), f"{folder}/rank{rank}.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
