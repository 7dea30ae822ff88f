"""Networks of the timm library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_transfer.backbones.base import Backbone, BackboneOutput, weights_of
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.pickles import check_folder
from lightning_transfer.backbones.pooling import pool
from lightning_transfer.backbones.preprocessing import (
    CENTRE,
    PictureTransform,
    Preprocessing,
    choose_preprocessing,
    fit_channels,
    known_interpolation,
)
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.imports import require
from lightning_transfer.utilities.text import near_names

_OF_TEXT = ("clip", "pe_core")  # in names of networks that were trained beside an encoder of texts


class TimmBackbone(Backbone):
    """A network of ``timm.create_model`` with the evaluation transform that its weights come with.

    Features are what timm gives with ``num_classes=0`` (its own pooling), logits what the whole network gives; what
    takes CLIP's pictures to its space of texts is no classifier, and there are no logits of it. The
    transform is ``timm.data.create_transform`` of the network's data configuration. NaFlex networks take pictures at
    the one size of that configuration or, with ``sequence_length``, in their own aspect.

    Args:
        model_name: Name in timm, such as ``"resnet50.a1_in1k"``, or ``"local-dir:FOLDER"``.
        pretrained: Published weights; ``False`` gives random ones from ``seed``: the control.
        seed: Seed of the random weights.
        input_size: Side of the square input; ``None`` is the one of the weights.
        sequence_length: For NaFlex networks: every picture keeps its aspect and becomes at most so many patches, as
            timm's ``create_transform(naflex=True)`` prepares it; 576 is what timm takes by default. Such a backbone
            takes pictures, no tensors.
        preprocessing: What happens to tensors of images first; ``None`` if they are normalised and resized already. By
            default they are cut, resized and normalised on their device by the numbers of the transform.
        name: What tables call it; by default ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``timm.create_model``, such as ``in_chans`` and ``checkpoint_path``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[timm]``.
        ValueError: If timm knows no such model, its weights are not at hand, or it gives no vector a picture.
    """

    def __init__(
        self,
        model_name: str,
        *,
        pretrained: bool = True,
        seed: int = 0,
        input_size: int | None = None,
        sequence_length: int | None = None,
        preprocessing: Preprocessing | str | None = "default",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        timm = require("timm", extra="timm")
        check_folder(model_name.removeprefix("local-dir:"))
        if not model_name.startswith(("local-dir:", "hf-hub:")) and not timm.is_model(model_name):
            near = near_names(model_name.partition(".")[0], timm.list_models())
            raise ValueError(f"Expected argument `model_name` to be a model of timm, but got {model_name!r}{near}.")
        if kwargs.get("global_pool") == "" and kwargs.get("num_classes") != 0:
            raise ValueError(
                f"Expected argument `global_pool` of {model_name} to leave vectors for its classifier, but got ''; "
                "`num_classes=0` beside it leaves the classifier out."
            )
        with seeded_initialisation(seed), weights_of(f"timm/{model_name}"):
            network = timm.create_model(model_name, pretrained=pretrained, **kwargs)
        embeds = "num_classes" not in kwargs and _embeds(network)
        config = timm.data.resolve_model_data_config(network)
        _, height, width = config["input_size"]
        size = (height, width) if input_size is None else (input_size, input_size)
        if input_size is not None and hasattr(network, "set_input_size"):
            network.set_input_size(img_size=size)
        channels = check_positive_int(kwargs.get("in_chans", getattr(network, "in_chans", 3)), "in_chans")
        default = Preprocessing(
            size=size,
            channels=channels,
            mean=fit_channels(config["mean"], channels),
            std=fit_channels(config["std"], channels),
            interpolation=known_interpolation(config["interpolation"]),
            crop=min(config["crop_pct"], CENTRE) if config["crop_mode"] == "center" else 1.0,
        )
        config = {**config, "input_size": (channels, *size), "mean": default.mean, "std": default.std}
        super().__init__(
            name=name or model_name + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=None if embeds else getattr(network, "num_classes", 0) or None,
            input_shape=(channels, *size),
            preprocessing=choose_preprocessing(preprocessing, default),
            transform=timm.data.create_transform(**config),
        )
        self.network: Any = network
        self.sequence_length = sequence_length
        if sequence_length is not None:
            self._take_sequences(check_positive_int(sequence_length, "sequence_length"), config)
        features, logits = self._try(None if embeds else lambda inputs: pool(network(self._unpacked(inputs))))
        self.feature_dim = features.shape[1]
        self._head_fits = not embeds and self._fits(network.get_classifier(), features, logits)

    @property
    def head(self) -> nn.Module | None:
        """The classifier, if it takes just these features; ``None`` without one, with several, or with more to it."""
        head: nn.Module | None = self.network.get_classifier() if self._head_fits else None
        return head

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """Features and logits of prepared images."""
        network = self.network
        if self.sequence_length is None:
            head = partial(network.forward_head, network.forward_features(inputs))
        else:
            head = partial(network.forward_head, **network.forward_features(**self._unpacked(inputs)))
        features = pool(head(pre_logits=True))
        return BackboneOutput(features, None if self.num_source_classes is None else head())

    def example_inputs(self, batch_size: int) -> Any:
        """A ramp, or white pictures that are wider than high where they keep their aspect."""
        if self.sequence_length is None:
            return super().example_inputs(batch_size)
        from PIL import Image

        return [Image.new("RGB", (64, 32), "white")] * batch_size

    def _take_sequences(self, length: int, config: Mapping[str, Any]) -> None:
        """Let pictures keep their aspect."""
        from timm.data.transforms_factory import create_transform

        embeds: Any = getattr(self.network, "embeds", None)
        if not getattr(embeds, "is_linear", False):
            raise ValueError(
                f"Expected argument `sequence_length` for NaFlex networks of timm only, but {self.name} is none."
            )
        options = {"naflex": True, "patch_size": embeds.patch_size, "max_seq_len": length, "patchify": True}
        library = _PackedPatches(create_transform(**{**config, **options}), length)
        channels, (height, width) = config["input_size"][0], embeds.patch_size
        self.input_shape = (length, channels * height * width + 3)
        self.preprocessing = None
        self._transform = PictureTransform(library, channels)

    def _unpacked(self, inputs: Tensor) -> Any:
        if self.sequence_length is None:
            return inputs
        patches, places, valid = inputs[..., :-3], inputs[..., -3:-1].long(), inputs[..., -1] > 0
        return {"patches": patches, "patch_coord": places, "patch_valid": valid}


def _embeds(network: nn.Module) -> bool:
    """Whether the ``num_classes`` of a network's weights are a space that it shares with text, and no classes.

    timm does not say so, but the weights' names do, and such spaces have a width that is a multiple of 128: no set of
    labels in timm has as many, so that networks that were fine-tuned after CLIP keep their heads.
    """
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    name = f"{config.get('architecture')}.{config.get('tag')}"
    classes = config.get("num_classes") or 0
    return any(word in name for word in _OF_TEXT) and classes > 0 and classes % 128 == 0


@dataclass(frozen=True)
class _PackedPatches:
    """timm's patches of one picture in one tensor, a row a patch: its values, where it lies, and that it is one."""

    transform: Any
    length: int

    def __call__(self, picture: Any) -> Tensor:
        parts = self.transform(picture)
        rows = [parts["patches"], parts["patch_coord"].float(), parts["patch_valid"][:, None].float()]
        packed = torch.cat(rows, dim=1)
        return functional.pad(packed, (0, 0, 0, self.length - len(packed)))
