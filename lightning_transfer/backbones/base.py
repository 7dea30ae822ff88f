"""What every pre-trained network offers here: features, source logits, its own preprocessing and its cost."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.preprocessing import Preprocessing
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.isolation import preserve_modules, preserve_rng


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

    ``forward`` takes raw inputs and preprocesses them itself, so that one batch can be handed to any backbone: uint8
    images ``(b, c, h, w)`` from 0 to 255, floating images from 0 to 1, or floating vectors ``(b, d)``. It trains like
    any module; a fine-tuning run that ignores the logits should call ``backbone.head.requires_grad_(False)``.

    Args:
        name: What tables call it.
        feature_dim: Length ``d`` of a feature vector.
        num_source_classes: Number ``k`` of source classes; ``None`` without a head.
        input_shape: Shape of one network input: ``(c, h, w)``, ``(d,)``, or ``(tokens,)`` for text.
        preprocessing: What happens to images first; ``None`` hands inputs on as they are.

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
    ) -> None:
        super().__init__()
        self.name = name
        self.feature_dim = feature_dim
        self.num_source_classes = num_source_classes
        self.input_shape = tuple(input_shape)
        self.preprocessing = preprocessing

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
            inputs: Images ``(b, c, h, w)``, uint8 or floating in [0, 1]; or floating vectors ``(b, d)``.

        Returns:
            Network inputs ``(b, *input_shape)``.

        Raises:
            ValueError: If shape, dtype or value range is not what the backbone takes.
        """
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

    def _count_flops(self) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        inputs = self.example_inputs(2)  # exported programs with a dynamic batch may refuse a single sample
        with _plain_attention(), FlopCounterMode(display=False) as counter:
            self(inputs)
        return int(counter.get_total_flops()) // 2

    def _time(self, inputs: Any) -> float:
        start = time.perf_counter()
        self(inputs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


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
