"""Small networks."""

from __future__ import annotations

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(6, 4))

    def forward(self, x):
        return self.classifier(self.body(x).mean(dim=(2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.unused = nn.Linear(8, 2)

    def forward(self, x):
        return {"tokens": self.encoder(x)}


class Staged(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
        self.classifier = nn.Linear(6, 5)
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return self.classifier(self.body(self.stem(x)).mean(dim=(2, 3)))
