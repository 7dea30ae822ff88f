"""Networks of the timm library."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone, BackboneOutput
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.preprocessing import Preprocessing
from lightning_transfer.utilities.imports import require


class TimmBackbone(Backbone):
    """A network of ``timm.create_model`` with the preprocessing that its weights were trained with.

    Features are what timm calls pre-logits (its own pooling), logits those of its classifier.

    Args:
        model_name: Name in timm, such as ``"resnet50.a1_in1k"``.
        pretrained: Published weights; ``False`` gives random ones from ``seed``: the control.
        seed: Seed of the random weights.
        input_size: Side of the square input; ``None`` is the one of the weights.
        name: What tables call it; by default ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``timm.create_model``, such as ``checkpoint_path``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[timm]``.
        ValueError: If timm knows no such model.
    """

    def __init__(
        self,
        model_name: str,
        *,
        pretrained: bool = True,
        seed: int = 0,
        input_size: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        timm = require("timm", extra="timm")
        if not timm.is_model(model_name):
            close = timm.list_models(f"*{model_name.split('.')[0]}*")[:8]
            raise ValueError(
                f"Expected argument `model_name` to be a model of timm, but got {model_name!r}; near: {close}."
            )
        with seeded_initialisation(seed):
            network = timm.create_model(model_name, pretrained=pretrained, **kwargs)
        config = timm.data.resolve_model_data_config(network)
        channels, height, width = config["input_size"]
        size = (height, width) if input_size is None else (input_size, input_size)
        num_classes = getattr(network, "num_classes", 0)
        super().__init__(
            name=name or model_name + ("" if pretrained else "_random"),
            feature_dim=getattr(network, "head_hidden_size", None) or network.num_features,
            num_source_classes=num_classes or None,
            input_shape=(channels, *size),
            preprocessing=Preprocessing(
                size=size,
                channels=channels,
                mean=tuple(config["mean"]),
                std=tuple(config["std"]),
                interpolation=_known(config.get("interpolation", "bilinear")),
            ),
        )
        self.network: Any = network

    @property
    def head(self) -> nn.Module | None:
        """The classifier, from features to logits; ``None`` without one (or with several)."""
        head = self.network.get_classifier() if self.num_source_classes else None
        return head if isinstance(head, nn.Module) else None

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """Features and logits of prepared images."""
        maps = self.network.forward_features(inputs)
        features = self.network.forward_head(maps, pre_logits=True)
        if self.num_source_classes is None:
            return BackboneOutput(features, None)
        head = self.head
        return BackboneOutput(features, self.network.forward_head(maps) if head is None else head(features))


def _known(interpolation: str) -> str:
    return interpolation if interpolation in ("bilinear", "bicubic", "nearest") else "bicubic"
