"""The project's own model, which knows nothing of transferability."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import nn


class DigitNet(pl.LightningModule):
    """A small network for digits of 8 x 8 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, images):
        return self.net(images.float() / 255)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch["inputs"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", nn.functional.cross_entropy(self(batch["inputs"]), batch["labels"]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)
