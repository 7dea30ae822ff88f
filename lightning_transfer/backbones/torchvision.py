"""Networks of the torchvision library."""

from __future__ import annotations

from typing import Any

from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lightning_transfer.utilities.imports import require


class TorchvisionBackbone(ModuleBackbone):
    """A classifier of ``torchvision.models`` with the preprocessing of its weights.

    Features are the input of the last linear layer, logits its output.

    Args:
        model_name: Name in torchvision, such as ``"resnet50"``.
        weights: Name of the weights, such as ``"IMAGENET1K_V2"``; ``"DEFAULT"`` are the best that there are.
        pretrained: ``False`` gives random weights from ``seed`` instead: the control.
        seed: Seed of the random weights.
        input_size: Side of the square input; ``None`` is the one of the weights.
        name: What tables call it; by default ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of :class:`~lightning_transfer.backbones.ModuleBackbone`, such as ``layer``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[torchvision]``.
        ValueError: If torchvision knows no such model or weights.
    """

    def __init__(
        self,
        model_name: str,
        *,
        weights: str = "DEFAULT",
        pretrained: bool = True,
        seed: int = 0,
        input_size: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        models = require("torchvision.models", extra="torchvision")
        known = models.list_models(module=models)
        if model_name not in known:
            raise ValueError(f"Expected argument `model_name` to be one of {known}, but got {model_name!r}.")
        choices = models.get_model_weights(model_name)
        if weights not in choices.__members__:
            raise ValueError(
                f"Expected argument `weights` to be one of {list(choices.__members__)}, but got {weights!r}."
            )
        chosen = choices[weights]
        with seeded_initialisation(seed):
            network = models.get_model(model_name, weights=chosen if pretrained else None)
        transforms = chosen.transforms()
        side = input_size or getattr(transforms, "crop_size", [224])[0]
        super().__init__(
            network,
            (3, side, side),
            preprocessing=Preprocessing(
                size=(side, side),
                mean=tuple(getattr(transforms, "mean", IMAGENET_MEAN)),
                std=tuple(getattr(transforms, "std", IMAGENET_STD)),
                interpolation=str(getattr(getattr(transforms, "interpolation", None), "value", "bilinear")),
            ),
            name=name or model_name + ("" if pretrained else "_random"),
            **kwargs,
        )
