"""What every pre-trained network offers here: features, source logits, its own preprocessing and its cost."""

from __future__ import annotations

import abc
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.preprocessing import PictureTransform, Preprocessing, WholePicture
from lightning_transfer.pictures import Prepared, is_pictures, prepare_pictures
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.digest import digest
from lightning_transfer.utilities.isolation import preserve_modules, preserve_rng

_LIBRARIES = ("timm", "transformers", "sentence_transformers", "open_clip", "huggingface_hub")  # as they name loggers


class BackboneOutput(NamedTuple):
    """What a backbone says about a batch.

    Attributes:
        features: Shape ``(b, d)``, one row a sample; ``(b, d, h, w)`` or ``(b, t, d)`` where pooling is ``"none"``.
        logits: Shape ``(b, k)``, scores of the source classes before the softmax; ``None`` without a source head.
    """

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Cost:
    """What a backbone costs.

    Attributes:
        parameters: Number of parameters, source head included.
        flops: Floating point operations of one forward pass of one sample, a multiply-add counted as two, as
            ``torch.utils.flop_counter`` counts matrix products, convolutions and attention (nothing else is counted).
        images_per_second: Measured on this machine, preprocessing included; ``None`` when it was not measured.
    """

    parameters: int
    flops: int
    images_per_second: float | None


class Backbone(nn.Module, abc.ABC):
    """A pre-trained network as a source of features.

    ``forward`` takes raw inputs and preprocesses them itself, so that one batch can be handed to any backbone: a list
    of Pillow's pictures, uint8 images ``(b, c, h, w)`` from 0 to 255, floating images from 0 to 1, or floating vectors
    ``(b, d)``. Pictures go through :attr:`transform`, which is the evaluation transform of the network's own library
    and runs in the loader's workers during a pass; images that are tensors already are resized on their device. It
    trains like any module; a fine-tuning run that ignores the logits should call
    ``backbone.head.requires_grad_(False)``.

    Args:
        name: What tables call it.
        feature_dim: Length ``d`` of a feature vector.
        num_source_classes: Number ``k`` of source classes; ``None`` without a head.
        input_shape: Shape of one network input: ``(c, h, w)``, ``(d,)``, or ``(tokens,)`` for text.
        preprocessing: What happens to tensors of images first; ``None`` hands tensors on as they are.
        transform: From a picture of mode ``"RGB"`` to a network input, as the network's authors evaluate it; by default
            ``preprocessing`` of the whole picture.

    A subclass defines :meth:`encode` and, where there is a classifier, the property :attr:`head`.
    """

    def __init__(
        self,
        *,
        name: str,
        feature_dim: int,
        num_source_classes: int | None,
        input_shape: tuple[int, ...],
        preprocessing: Preprocessing | None,
        transform: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.feature_dim = feature_dim
        self.num_source_classes = num_source_classes
        self.input_shape = tuple(input_shape)
        self.preprocessing = preprocessing
        library = WholePicture(preprocessing) if transform is None and preprocessing is not None else transform
        fits = library is not None and input_shape[0] in (1, 3)
        self._transform = PictureTransform(library, input_shape[0], transform is not None) if library and fits else None

    @property
    def transform(self) -> PictureTransform:
        """From a picture (path, bytes or Pillow's object) to one network input, float32 ``input_shape``.

        Raises:
            ValueError: If the backbone takes no pictures.
        """
        if self._transform is None:
            raise ValueError(
                f"{self.name} has no transform for pictures: give it `transform`, or hand it tensors that are prepared."
            )
        return self._transform

    @property
    def takes_pictures(self) -> bool:
        """Whether there is a :attr:`transform`."""
        return self._transform is not None

    @property
    def head(self) -> nn.Module | None:
        """The original classifier, from features to logits; ``None`` where there is none."""
        return None

    @abc.abstractmethod
    def encode(self, inputs: Any) -> BackboneOutput:
        """Features and logits of network inputs, that is of what :meth:`preprocess` returns."""

    def preprocess(self, inputs: Any) -> Any:
        """Raw inputs to network inputs, in the dtype of the weights.

        Args:
            inputs: Pictures in a list; images ``(b, c, h, w)``, uint8 or floating in [0, 1]; floating vectors
                ``(b, d)``; or what is :class:`~lightning_transfer.pictures.Prepared` already.

        Returns:
            Network inputs ``(b, *input_shape)``.

        Raises:
            ValueError: If shape, dtype or value range is not what the backbone takes.
        """
        if is_pictures(inputs):
            inputs = prepare_pictures(inputs, self.transform)
        if isinstance(inputs, Prepared):
            prepared: Any = inputs.values.to(self.device)
        else:
            prepared = inputs if self.preprocessing is None else self.preprocessing(inputs)
        if not isinstance(prepared, Tensor):
            raise ValueError(f"Expected argument `inputs` to be a tensor, but got {type(inputs).__name__}.")
        return prepared.to(self.dtype) if prepared.is_floating_point() or prepared.dtype == torch.uint8 else prepared

    def forward(self, inputs: Any) -> BackboneOutput:
        """Features and source logits of a batch of raw inputs."""
        return self.encode(self.preprocess(inputs))

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the weights (float32 without weights)."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Device of the weights (CPU without weights)."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def example_inputs(self, batch_size: int) -> Any:
        """Raw inputs of the right shape, to measure the cost with: a ramp, the same on every call."""
        shape = (batch_size, *self.input_shape)
        ramp = (torch.arange(math.prod(shape), device=self.device) % 251).reshape(shape)
        return ramp.to(torch.uint8) if self.preprocessing is not None else ramp / 251

    def fingerprint(self) -> str:
        """Name the weights, structure and preprocessing.

        Returns:
            64 hexadecimal digits: the same for the same backbone on any device and under any name, others if anything
            in it changed.
        """
        options = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, str | int | float | tuple) and name not in ("name", "training")
        }
        texts = [repr(self), repr(sorted(options.items())), repr(self.preprocessing)]
        if self._transform is not None and self._transform.wants_originals:  # else it follows from the preprocessing
            texts.append(re.sub(r" at 0x[0-9a-f]+", "", repr(self._transform)))  # where a function lies says nothing
        return digest([*self.parameters(), *self.buffers()], *texts)

    def cost(self, batch_size: int = 16, measure: bool = True) -> Cost:
        """Count parameters and operations and, if asked, measure the speed of the forward pass.

        Modes, gradients, statistics and random states stay as they are.

        Args:
            batch_size: Samples in a timed batch.
            measure: Whether to time (one batch to warm up, then the median of three).

        Returns:
            The cost.
        """
        check_positive_int(batch_size, "batch_size")
        speed = None
        with undisturbed(self):
            flops = self._count_flops()
            if measure:
                inputs = self.example_inputs(batch_size)
                speed = batch_size / median([self._time(inputs) for _ in range(4)][1:])
        return Cost(parameters=sum(p.numel() for p in self.parameters()), flops=flops, images_per_second=speed)

    def _try(self, whole: Callable[[Any], Any] | None = None) -> BackboneOutput:
        """Run two passes over the same example and compare them.

        Args:
            whole: The network itself, which must give the logits (the features where there are none) too.

        Returns:
            What the first pass gives.

        Raises:
            ValueError: If the network cannot be run, or the passes differ.
        """
        if any(parameter.is_meta for parameter in self.parameters()):
            raise ValueError(f"{self.name} cannot be used as a backbone: its weights are on the device `meta`.")
        with undisturbed(self):
            try:
                inputs = self.preprocess(self.example_inputs(2))
                first = self.encode(inputs)
                again = tuple(self.encode(inputs)) if whole is None else (whole(inputs),)
            except Exception as error:
                raise ValueError(f"{self.name} cannot be used as a backbone: {one_line(error)}") from error
        for one, other in zip(_present(first)[::-1], _present(again)[::-1], strict=False):
            if not repeats(one, other):
                worst = float((one - other).abs().max()) if one.shape == other.shape else float("inf")
                raise ValueError(
                    f"{self.name} gives different values for the same inputs in two passes (by up to "
                    f"{worst:.3g}): it draws at random in evaluation mode too, so no score of it would mean anything."
                )
        return first

    def _fits(self, head: Any, features: Tensor, logits: Tensor | None) -> bool:
        """Whether a classifier takes just these features to just these logits."""
        linear = (
            [child for child in head.modules() if isinstance(child, nn.Linear)] if isinstance(head, nn.Module) else []
        )
        if logits is None or not linear or linear[0].in_features != features.shape[-1]:
            return False
        with undisturbed(self):
            try:
                return repeats(head(features), logits)
            except (RuntimeError, IndexError):  # it takes maps
                return False

    def _count_flops(self) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        inputs = self.example_inputs(2)  # exported programs with a dynamic batch may refuse a single sample
        # the counter hangs hooks for gradients on parameters that are handed to a module, which fails without gradients
        with _frozen(self), _plain_attention(), FlopCounterMode(display=False) as counter:
            self(inputs)
        return int(counter.get_total_flops()) // 2

    def _time(self, inputs: Any) -> float:
        start = time.perf_counter()
        self(inputs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


@contextmanager
def weights_of(name: str) -> Iterator[None]:
    """Say in one line which network cannot be had, whatever a library meets while it builds or loads it.

    Weights are read as tensors alone, and no library can ask whether it may run code.
    """
    try:
        with tensors_only(), _no_answers(), _quiet():
            yield
    except (TypeError, ImportError):  # a wrong argument, a library that is missing
        raise
    except Exception as error:
        raise ValueError(
            f"Cannot build `{name}`; weights come from its library's cache or, with a connection, from the hub, and "
            f"`pretrained=False` draws random ones: {one_line(error, 160)}"
        ) from error


@contextmanager
def _no_answers() -> Iterator[None]:
    """Let questions at the terminal find nobody: transformers asks whether to run the code of a model."""
    before = sys.stdin
    with open(os.devnull) as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep notes of libraries on how they load to themselves, and their bars where no terminal shows them."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logger.getEffectiveLevel(), logging.WARNING))
    bars: Any = sys.modules.get("transformers.utils.logging")
    silenced = bars is not None and not sys.stderr.isatty() and bars.is_progress_bar_enabled()
    if silenced:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if silenced:
            bars.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def tensors_only() -> Iterator[None]:
    """Let ``torch.load`` read tensors alone meanwhile, whatever it is asked for."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _present(outputs: Iterable[Tensor | None]) -> list[Tensor]:
    return [output for output in outputs if output is not None]


def repeats(one: Tensor, other: Tensor) -> bool:
    """Whether two passes agree, up to what rounding may do to values of that size."""
    scale = float(one.detach().abs().nan_to_num(0.0, posinf=0.0).max()) if one.numel() else 0.0
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def one_line(error: BaseException, limit: int = 240) -> str:
    """The message of an error on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient for a while."""
    asking = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad = True


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products, which the counter of operations knows on every device."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Run a module in evaluation mode without gradients; modes and random states are as before after it."""
    with preserve_rng(), preserve_modules(module), torch.no_grad():
        module.eval()
        yield
