"""Networks of the torchvision library."""

from __future__ import annotations

from typing import Any

from lightning_transfer.backbones.base import weights_of
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.preprocessing import CENTRE, Preprocessing, choose_preprocessing, known_interpolation
from lightning_transfer.utilities.imports import require
from lightning_transfer.utilities.text import near_names


class TorchvisionBackbone(ModuleBackbone):
    """A classifier of ``torchvision.models`` with the evaluation transform of its weights, ``weights.transforms()``.

    Features are the input of the last linear layer, logits its output; of SqueezeNets, which end in a convolution, its
    input averaged over positions.

    Args:
        model_name: Name in torchvision, such as ``"resnet50"``.
        weights: Name of the weights, such as ``"IMAGENET1K_V2"``; ``"DEFAULT"`` are the best that there are.
        pretrained: ``False`` gives random weights from ``seed`` instead: the control.
        seed: Seed of the random weights.
        input_size: Side of the square input; ``None`` is the one of the weights.
        preprocessing: What happens to tensors of images first; ``None`` if they are normalised and resized already. By
            default they are cut, resized and normalised on their device by the numbers of the transform.
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
        preprocessing: Preprocessing | str | None = "default",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        models = require("torchvision.models", extra="torchvision")
        names = models.list_models(module=models)
        if model_name not in names:
            raise ValueError(
                f"Expected argument `model_name` to be a classifier of torchvision, but got {model_name!r}"
                f"{near_names(model_name, names)}."
            )
        choices = models.get_model_weights(model_name)
        if weights not in choices.__members__:
            raise ValueError(
                f"Expected argument `weights` to be one of {list(choices.__members__)}, but got {weights!r}."
            )
        chosen = choices[weights]
        options = {"image_size": input_size} if input_size is not None and model_name.startswith("vit_") else {}
        with seeded_initialisation(seed), weights_of(f"torchvision/{model_name}"):
            network = models.get_model(model_name, weights=chosen if pretrained else None, **options)
        transform = chosen.transforms()
        side, shorter = transform.crop_size[0], transform.resize_size[0]
        if input_size is not None:
            transform = chosen.transforms(crop_size=input_size, resize_size=round(shorter * input_size / side))
            side, shorter = input_size, transform.resize_size[0]
        default = Preprocessing(
            size=(side, side),
            mean=tuple(transform.mean),
            std=tuple(transform.std),
            interpolation=known_interpolation(transform.interpolation.value),
            crop=min(CENTRE, side / shorter),
        )
        super().__init__(
            network,
            (3, side, side),
            preprocessing=choose_preprocessing(preprocessing, default),
            transform=transform,
            name=name or model_name + ("" if pretrained else "_random"),
            **{
                **({"layer": "features", "head": "classifier"} if model_name.startswith("squeezenet") else {}),
                **kwargs,
            },
        )
