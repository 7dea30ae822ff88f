"""Attach both monitors to a LightningModule of your own: a small network learns digits, and you watch it transfer.

Run it as it is: python examples/own_module.py
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor


class DigitNet(pl.LightningModule):
    """Nothing here knows of transferability."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(128, classes)  # the monitors read its input: the last linear layer

    def forward(self, images):
        return self.head(self.body(images))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def digits(first: int) -> TensorDataset:
    """Five of the ten digits, numbered from 0."""
    bunch = load_digits()
    images, labels = torch.tensor(bunch.images / 16, dtype=torch.float32)[:, None], torch.tensor(bunch.target)
    kept = (labels >= first) & (labels < first + 5)
    return TensorDataset(images[kept], labels[kept] - first)


def main() -> None:
    pl.seed_everything(0)
    train, val = random_split(digits(first=5), [0.7, 0.3])  # the target: 5 to 9
    reference = DataLoader(digits(first=0), batch_size=128)  # the reference: 0 to 4
    transferability = TransferabilityMonitor(["logme", "h_score", "knn_accuracy"])
    relatedness = TaskRelatednessMonitor(reference, reference_samples=500)
    trainer = pl.Trainer(
        max_epochs=4,
        callbacks=[transferability, relatedness],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(DigitNet(), DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=128))

    print(f"{'step':>5} {'LogME':>8} {'H-score':>8} {'1-NN':>6} {'bound':>7} {'mismatch':>9}")
    for score, bound in zip(transferability.history, relatedness.history, strict=True):
        print(
            f"{score['step']:5} {score['logme']:8.3f} {score['h_score']:8.3f} {score['knn_accuracy']:6.3f} "
            f"{bound['bound']:7.3f} {bound['distribution_mismatch']:9.3f}"
        )
    print(f"validation accuracy: {float(trainer.callback_metrics['val/accuracy']):.3f}")


if __name__ == "__main__":
    main()
