"""Small backbones that the tests of screens share."""

from __future__ import annotations

import torch
from torch import nn

from lightning_transfer.backbones import Backbone, BackboneOutput


class Linear(Backbone):
    """Random features of flat digits, with source logits where classes are asked for."""

    def __init__(self, width: int = 6, source_classes: int | None = None, name: str = "linear") -> None:
        super().__init__(
            name=name, feature_dim=width, num_source_classes=source_classes, input_shape=(1, 8, 8), preprocessing=None
        )
        generator = torch.Generator().manual_seed(width)
        self.weight = nn.Parameter(torch.randn(64, width, generator=generator) / 8)
        classes = None if source_classes is None else torch.randn(width, source_classes, generator=generator)
        self.register_buffer("classes", classes)

    def preprocess(self, inputs):
        return inputs.flatten(1).float() / 255

    def encode(self, inputs):
        features = inputs @ self.weight
        return BackboneOutput(features, None if self.classes is None else features @ self.classes)


class Counted(Linear):
    """Counts the batches of more than two samples that it has seen."""

    def __init__(self, width: int = 6, name: str = "counted") -> None:
        super().__init__(width, name=name)
        self.seen = []

    def encode(self, inputs):
        if len(inputs) > 2:
            self.seen.append(len(inputs))
        return super().encode(inputs)


class Failing(Linear):
    def __init__(self, error: BaseException, when: str = "forward") -> None:
        super().__init__(name="failing")
        self.error, self.when, self.calls = error, when, 0

    def encode(self, inputs):
        self.calls += self.training is False and len(inputs) > 2  # counting operations takes two samples
        if self.calls > 1 or (self.when == "first" and self.calls):
            raise self.error
        return super().encode(inputs)
