"""What the tests of the feature cache share: a network that counts what it sees, and screens of it."""

from __future__ import annotations

import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Samples


class Net(nn.Module):
    """Two layers and a head; counts the samples of batches of more than two, which no trial has."""

    def __init__(self, inputs: int = 12, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.flatten = nn.Flatten()
        self.body = nn.Linear(inputs, width)
        self.middle = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.seen = 0
        self.slope = 1.0

    def forward(self, x):
        self.seen += len(x) if len(x) > 2 else 0
        features = torch.relu(self.middle(torch.tanh(self.body(self.flatten(x)) * self.slope)))
        return self.head(features)


def backbone(**kwargs) -> ModuleBackbone:
    kwargs = {"input_shape": (12,), "preprocessing": None} | kwargs
    return ModuleBackbone(Net(), name="net", **kwargs)


def seen(candidate: ModuleBackbone) -> int:
    """Samples since the last question."""
    count, candidate.module.seen = candidate.module.seen, 0
    return count


def vectors(count: int = 30, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return torch.randn(count, 12, generator=generator) + labels[:, None], labels


def data(count: int = 30, **kwargs) -> Samples:
    return Samples(vectors(count), batch_size=8, **kwargs)
