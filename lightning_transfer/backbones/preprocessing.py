"""From raw inputs to what a network was trained on: channels, size, value range, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from lightning_transfer.utilities.checks import check_in_interval, check_one_of
from lightning_transfer.utilities.overlap import look

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CENTRE = 1 - 1e-9  # as a `crop`: all of the shorter side, so the centre square, where 1 takes the whole image
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a batch of images before the network sees it, on the device that the batch lies on.

    Integer images hold 0 to 255, floating images hold 0 to 1; both end as ``(value - mean) / std`` on the 0-to-1 scale.

    Args:
        size: Height and width of the network's input; ``None`` keeps the size of the images.
        channels: Channels of the network's input. Grey images are repeated to reach it, colour images become grey for
            one channel (ITU-R 601 weights, as Pillow's ``"L"``). ``None`` keeps what comes.
        mean: Mean of every channel (or one for all; a network of one channel takes the average), on the 0-to-1 scale.
        std: Standard deviation of every channel, given like the mean.
        interpolation: ``"bilinear"``, ``"bicubic"`` or ``"nearest"``.
        antialias: Smooth before shrinking, as image libraries do; without effect on ``"nearest"``.
        crop: Share of the shorter side that is kept, from the centre, before resizing. 1 keeps the whole image and
            lets its aspect ratio change.

    Example:
        >>> import torch
        >>> from lightning_transfer.backbones import Preprocessing
        >>> prepare = Preprocessing(size=(8, 8), mean=(0.5,), std=(0.5,))
        >>> out = prepare(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8))
        >>> out.shape, out.max().item()
        (torch.Size([2, 3, 8, 8]), 1.0)
    """

    size: tuple[int, int] | None = None
    channels: int | None = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    interpolation: str = "bilinear"
    antialias: bool = True
    crop: float = 1.0

    def __post_init__(self) -> None:
        check_one_of(self.interpolation, ("bilinear", "bicubic", "nearest"), "interpolation")
        check_in_interval(float(self.crop), 1e-6, 1.0, "crop")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(
                f"Expected argument `std` to hold positive numbers, one for each of `mean`, but got {self.std}."
            )
        for field in ("size", "mean", "std"):  # lists, as configuration files give them, become hashable
            value = getattr(self, field)
            if field != "size" and self.channels == 1:
                value = (sum(value) / len(value),)
            object.__setattr__(self, field, None if value is None else tuple(value))
        if self.channels is not None and len(self.mean) not in (1, self.channels):
            raise ValueError(
                f"Expected argument `mean` to hold 1 or {self.channels} numbers for {self.channels} channels, "
                f"but got {len(self.mean)}."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare a batch.

        Args:
            images: Shape ``(b, c, h, w)``: uint8 from 0 to 255, or floating from 0 to 1.

        Returns:
            Shape ``(b, channels, *size)``, float32 (float64 for float64 images).

        Raises:
            ValueError: If the images have another shape, dtype, number of channels or value range.
        """
        self._check(images)
        scale = 1.0 if images.is_floating_point() else 255.0
        x = images if images.dtype == torch.float64 else images.float()
        x = self._resize(self._centre(x), scale)
        mean, std = (_per_channel(x, tuple(scale * v for v in values)) for values in (self.mean, self.std))
        if self.channels == 1 and x.shape[1] == 3:
            x = (x * _per_channel(x, _LUMA)).sum(dim=1, keepdim=True)
        elif self.channels is not None and x.shape[1] != self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        return (x - mean) / std

    def _check(self, images: Tensor) -> None:
        if not isinstance(images, Tensor) or images.ndim != 4:
            got = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            if isinstance(images, (list, tuple)) and images and isinstance(images[0], str):
                got = "texts, which need a backbone for text (all_minilm_l6_v2, hf/NAME, st/NAME)"
            raise ValueError(f"Expected argument `inputs` to be images of shape (b, c, h, w), but got {got}.")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"Expected argument `inputs` to be uint8 or floating images, but got {images.dtype}.")
        fitting = (1, 3) if self.channels == 1 else (1, self.channels)
        if self.channels is not None and images.shape[1] not in fitting:
            raise ValueError(
                f"Expected argument `inputs` to have {fitting[0]} or {fitting[1]} channels, but got {images.shape[1]}."
            )
        if images.is_floating_point() and images.numel():
            look(torch.stack(images.aminmax()), _check_range)

    def _centre(self, x: Tensor) -> Tensor:
        if self.crop == 1.0:
            return x
        height, width = x.shape[-2:]
        side = max(1, round(self.crop * min(height, width)))
        top, left = (height - side) // 2, (width - side) // 2
        return x[..., top : top + side, left : left + side]

    def _resize(self, x: Tensor, scale: float) -> Tensor:
        if self.size is None or tuple(x.shape[-2:]) == self.size:
            return x
        if self.interpolation == "nearest":
            return functional.interpolate(x, self.size, mode="nearest")
        return functional.interpolate(
            x, self.size, mode=self.interpolation, align_corners=False, antialias=self.antialias
        ).clamp(0.0, scale)  # cubic weights overshoot at edges


@dataclass(frozen=True)
class PictureTransform:
    """From a picture in any form to one network input, by the evaluation transform of a library.

    Args:
        library: From a picture of mode ``"RGB"`` (``"L"`` for one channel) to a tensor.
        channels: Channels of the network's input.
        wants_originals: Whether the library cuts and resizes by rules of its own, so that a data set should not have
            done so before.

    Example:
        >>> from PIL import Image
        >>> from lightning_transfer.backbones import EfficientNetLite
        >>> backbone = EfficientNetLite(0, pretrained=False, input_size=64)
        >>> backbone.transform(Image.new("RGB", (80, 60))).shape
        torch.Size([3, 64, 64])
    """

    library: Callable[[Any], Any]
    channels: int = 3
    wants_originals: bool = True

    def __call__(self, picture: str | Path | bytes | Image) -> Tensor:
        """Prepare one picture.

        Args:
            picture: A path, the bytes of a file, or Pillow's object; see :func:`lightning_transfer.data.open_rgb`.

        Returns:
            Shape ``(channels, h, w)``.

        Raises:
            ValueError: If the picture cannot be read.
        """
        from lightning_transfer.data.images import open_rgb

        opened = open_rgb(picture)
        prepared: Tensor = self.library(opened.convert("L") if self.channels == 1 else opened)
        return prepared


@dataclass(frozen=True)
class WholePicture:
    """A :class:`Preprocessing` as a transform of single pictures."""

    preprocessing: Preprocessing

    def __call__(self, picture: Image) -> Tensor:
        """Prepare one picture of mode ``"RGB"`` or ``"L"``."""
        import numpy as np

        pixels = torch.from_numpy(np.array(picture))
        return self.preprocessing(pixels[None, None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)[None])[0]


def _check_range(limits: Sequence[float]) -> None:
    low, high = limits
    if low < 0 or high > 1:
        raise ValueError(
            "Expected floating images in argument `inputs` to lie in [0, 1], but got values from "
            f"{low:.4g} to {high:.4g}. Images that are normalised already need a backbone with `preprocessing=None`."
        )


def _per_channel(images: Tensor, values: tuple[float, ...]) -> Tensor:
    """Numbers for each channel, shape ``(1, c, 1, 1)``, as images are."""
    if images.device.type == "cuda" and type(images) is Tensor:  # sent once: a GPU is waited for
        return _sent(values, images.dtype, images.device)
    return images.new_tensor(values).view(1, -1, 1, 1)


@lru_cache(maxsize=256)
def _sent(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


def choose_preprocessing(given: Preprocessing | str | None, default: Preprocessing | None) -> Preprocessing | None:
    """What a backbone does to tensors of images: what was given, or its own for ``"default"``.

    Raises:
        ValueError: If something else was given.
    """
    if given is None or isinstance(given, Preprocessing):
        return given
    if given != "default":
        raise ValueError(
            f"Expected argument `preprocessing` to be a Preprocessing, 'default' or None, but got {given!r}."
        )
    return default


def fit_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Means or deviations for a number of channels that may differ from the number of them: their average then."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def known_interpolation(name: str) -> str:
    """The nearest of what PyTorch can do on a device."""
    return name if name in ("bilinear", "bicubic", "nearest") else "bicubic"
