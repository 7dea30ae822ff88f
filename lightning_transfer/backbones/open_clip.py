"""Networks of the open_clip library: the tower for pictures, or the one for text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_transfer.backbones.base import BackboneOutput, weights_of
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.pickles import check_folder
from lightning_transfer.backbones.preprocessing import (
    CENTRE,
    Preprocessing,
    choose_preprocessing,
    fit_channels,
    known_interpolation,
)
from lightning_transfer.backbones.text import TextBackbone
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.imports import require
from lightning_transfer.utilities.text import near_names


class OpenClipBackbone(TextBackbone):
    """A tower of ``open_clip.create_model_and_transforms`` with its evaluation transform or tokeniser.

    Features are what ``encode_image`` or ``encode_text`` gives, before normalisation. There is no source head.

    Args:
        model_name: Name in open_clip, alone or with the weights behind it: ``"ViT-B-32"``, ``"ViT-B-32/openai"``.
        weights: Name of the weights where ``model_name`` does not say, or a file.
        modality: ``"image"`` or ``"text"``: which tower.
        preprocessing: What happens to tensors of images first; ``None`` if they are normalised and resized already.
        pretrained: ``False`` gives random weights from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default ``model_name`` with the weights, or with ``_random`` for the control.
        **kwargs: Further arguments of ``create_model_and_transforms``, such as ``force_image_size``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[open_clip]``.
        ValueError: If open_clip knows no such model or weights, or they are not at hand.
    """

    def __init__(
        self,
        model_name: str,
        *,
        weights: str | None = None,
        modality: str = "image",
        preprocessing: Preprocessing | str | None = "default",
        pretrained: bool = True,
        seed: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_one_of(modality, ("image", "text"), "modality")
        library = require("open_clip", extra="open_clip")
        check_folder(model_name.removeprefix("local-dir:"))
        if not model_name.startswith(("local-dir:", "hf-hub:")):
            model_name, _, tag = model_name.partition("/")
            weights = weights or tag or None
            if model_name not in library.list_models():
                raise ValueError(
                    f"Expected argument `model_name` to be a model of open_clip, but got {model_name!r}"
                    f"{near_names(model_name, library.list_models())}."
                )
            if pretrained and weights is None:
                tags = library.list_pretrained_tags_by_model(model_name)
                raise ValueError(f"Expected argument `weights` to be one of {tags} for {model_name}, but got None.")
        label = model_name if weights is None else f"{model_name}/{weights}"
        with seeded_initialisation(seed), weights_of(f"open_clip/{label}"):
            network, _, transform = library.create_model_and_transforms(
                model_name, pretrained=weights if pretrained else None, load_weights=pretrained, **kwargs
            )
        settings = network.visual.preprocess_cfg
        size = settings["size"]
        height, width = (size, size) if isinstance(size, int) else size
        default = Preprocessing(
            size=(height, width),
            mean=fit_channels(settings["mean"], 3),
            std=fit_channels(settings["std"], 3),
            interpolation=known_interpolation(settings["interpolation"]),
            crop=CENTRE if settings["resize_mode"] == "shortest" else 1.0,
        )
        self_is_text = modality == "text"
        super().__init__(
            name=name or (label if pretrained else f"{model_name}_random"),
            feature_dim=0,
            num_source_classes=None,
            input_shape=(network.context_length,) if self_is_text else (3, height, width),
            preprocessing=None if self_is_text else choose_preprocessing(preprocessing, default),
            transform=None if self_is_text else transform,
        )
        self.modality = modality
        self.max_length = int(network.context_length)
        self.network: Any = network
        with weights_of(f"open_clip/{label}"):
            self._tokenizer = library.get_tokenizer(model_name) if self_is_text else None
        self.feature_dim = self._try().features.shape[1]

    @property
    def positions(self) -> float:
        """Tokens that the text tower has positions for."""
        return self.max_length

    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Token ids of strings, cut and padded to the length that the network learned from."""
        assert self._tokenizer is not None
        return {"input_ids": self._tokenizer(texts)}

    def preprocess(self, inputs: Any) -> Any:
        """Pictures and images to network inputs, strings to token ids."""
        return super().preprocess(inputs) if self.modality == "text" else super(TextBackbone, self).preprocess(inputs)

    def encode(self, inputs: Any) -> BackboneOutput:
        """Features of prepared images or tokens."""
        if self.modality == "text":
            return BackboneOutput(self.network.encode_text(inputs["input_ids"]), None)
        return BackboneOutput(self.network.encode_image(inputs), None)

    def example_inputs(self, batch_size: int) -> Any:
        """Images as ever, or a text of full length."""
        text = self.modality == "text"
        return super().example_inputs(batch_size) if text else super(TextBackbone, self).example_inputs(batch_size)
