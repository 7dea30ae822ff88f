"""Reading of image files: as one picture, or as a sequence of equally sized inputs that stay on disk."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lightning_transfer.pictures import KeptInputs, KeptPictures
from lightning_transfer.utilities.files import check_regular

# of Pillow's formats those of pictures; others, such as EPS, start programs or hold no pixels
_FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI",
    "TGA", "TIFF", "WEBP",
)  # fmt: skip
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_WHITES = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0, 2.0**31 - 1)}
_STRIP = 256  # rows that are scaled at once, since float64 takes four to eight times the memory of the picture
_BITS, _WHITE_IS_ZERO, _HIGHEST, _SIGN, _HIGHEST_OF_TYPE = 258, 262, 281, 339, 341  # TIFF tags


def open_rgb(source: str | Path | bytes | Image.Image, name: str | None = None) -> Image.Image:
    """Open a picture as 8-bit RGB, as a network that was trained on photographs takes it.

    The picture is turned upright by its EXIF tag, transparency is shown on white, and grey values of more than 8 bits
    are scaled: 16 bits from ``[0, 65535]`` to ``[0, 255]``, 12-bit TIFF from ``[0, 4095]``. White of 32-bit integers
    and floating values is what a TIFF tag names as the highest, or else the smallest of 1 (floating only), 255, 65535
    and 2147483647 (integers only) that no value of the picture exceeds. Colours of 16 bits lose the lower byte,
    palettes and CMYK become RGB as in Pillow, of several frames the first is taken. An 8-bit RGB file keeps its pixels.

    Args:
        source: A path, the bytes of a file, or a picture that is open already, which stays as it is.
        name: What a message calls the picture; by default its path.

    Returns:
        A picture of mode ``"RGB"``.

    Raises:
        ValueError: If the file is missing, holds no readable picture or one of more pixels than Pillow's limit against
            decompression bombs, or has a mode or values (negative, not finite) that are no colours.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from lightning_transfer.data import open_rgb
        >>> ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None]
        >>> picture = open_rgb(Image.fromarray(ramp))
        >>> picture.mode, picture.getpixel((128, 0))
        ('RGB', (128, 128, 128))
    """
    name = name or (str(source) if isinstance(source, (str, Path)) else "the picture")
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        if isinstance(source, (str, Path)):
            check_regular(Path(source))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as file:
            return _to_rgb(file)
    except Exception as error:  # damaged files raise anything: SyntaxError, struct.error, MemoryError, ...
        reason = str(error) or type(error).__name__
        raise ValueError(f"Expected {name} to be a readable picture, but got: {reason}") from error


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _to_rgb(file: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(file)
    if upright.mode in _DEEP_MODES:
        return _scale_depth(upright, file)
    if upright.has_transparency_data:
        upright = (upright.convert("LA") if upright.mode == "La" else upright).convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return upright.convert("RGB")


def _scale_depth(picture: Image.Image, file: Image.Image) -> Image.Image:
    """Scale grey values of many bits to 8, rounded to the nearest."""
    tags = getattr(file, "tag_v2", {})
    values = np.asarray(picture)
    lowest, highest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (lowest >= 0 and np.isfinite(highest)):
        raise ValueError(f"values from {lowest:g} to {highest:g} in mode {picture.mode!r}, where colours start at 0")
    scale = 255 / _white(picture.mode, file, tags, highest)
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _STRIP):
        strip = values[start : start + _STRIP].astype(np.float64) * scale
        scaled[start : start + _STRIP] = (255 - strip if tags.get(_WHITE_IS_ZERO) == 0 else strip).clip(0, 255).round()
    if "transparency" in picture.info:
        scaled[values == picture.info["transparency"]] = 255
    return Image.fromarray(scaled).convert("RGB")


def _white(mode: str, file: Image.Image, tags: Mapping[int, Any], highest: float) -> float:
    """The value that is white."""
    named = tags.get(_HIGHEST_OF_TYPE, tags.get(_HIGHEST))
    named = float(named[0] if isinstance(named, tuple) else named or 0)
    if named >= highest and named > 0:
        return named
    bits, sign = (int(tags.get(tag, (default,))[0]) for tag, default in ((_BITS, 16), (_SIGN, 1)))
    if mode.startswith("I;16") or file.format in ("PNG", "PPM") or (mode == "I" and tags and bits <= 16):
        return float(2 ** (bits - (sign == 2)) - 1)
    fitting = [white for white in _WHITES[mode] if highest <= white]
    if not fitting:
        raise ValueError(f"values up to {highest:g} in mode {mode!r}, which has no known white")
    return fitting[0]


def read_image(path: Path, image_size: int | None = None) -> Tensor:
    """Read a picture as an RGB tensor.

    Args:
        path: Image file, opened by :func:`open_rgb`.
        image_size: Scale the shorter side to this and cut the centre square out; ``None`` leaves the picture as it is.

    Returns:
        uint8 tensor of shape ``(3, h, w)``.

    Raises:
        ValueError: If the file is missing or holds no readable picture.
    """
    return _to_tensor(open_rgb(path), image_size)


def _to_tensor(picture: Image.Image, image_size: int | None) -> Tensor:
    if image_size is not None:
        picture = ImageOps.fit(picture, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def unreadable_pictures(paths: Sequence[Path]) -> list[Path]:
    """Try to read pictures, several at a time.

    Args:
        paths: Image files.

    Returns:
        Those that :func:`open_rgb` refuses, in order.
    """

    def is_bad(path: Path) -> bool:
        try:
            open_rgb(path)
        except ValueError:
            return True
        return False

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return [path for path, bad in zip(paths, threads.map(is_bad, paths), strict=True) if bad]


class ImageFiles:
    """Pictures on disk as inputs of one size, read when they are asked for.

    Args:
        paths: Image files.
        image_size: Side of the square that every picture is scaled and cropped to.
        stored: The inputs, uint8 ``(n, 3, image_size, image_size)``, where they have been read before.
    """

    def __init__(self, paths: Sequence[Path], image_size: int, stored: Tensor | None = None) -> None:
        self.paths = list(paths)
        self.image_size = image_size
        self.stored = stored
        self._pictures: Any = OriginalFiles(self.paths)

    def in_memory(self) -> ImageFiles:
        """The same with all inputs read."""
        return ImageFiles(self.paths, self.image_size, torch.stack([self[index] for index in range(len(self))]))

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor) -> ImageFiles: ...

    def __getitem__(self, index: int | Tensor) -> Tensor | ImageFiles:
        if isinstance(index, Tensor):
            stored = None if self.stored is None else self.stored[index]
            return ImageFiles([self.paths[i] for i in index.tolist()], self.image_size, stored)
        return _to_tensor(self._pictures[index], self.image_size) if self.stored is None else self.stored[index]

    def originals(self) -> Any:
        """The same files as Pillow's pictures of mode ``"RGB"`` in their own sizes."""
        return self._pictures

    def keeping(self, kept: KeptPictures) -> ImageFiles:
        """The same, which keeps decoded pictures."""
        files = copy(self)
        files._pictures = KeptInputs(self._pictures, kept)
        return files


class OriginalFiles:
    """Pictures on disk as Pillow's objects, read when they are asked for.

    Args:
        paths: Image files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        try:
            return open_rgb(self.paths[index])
        except ValueError as error:
            raise ValueError(
                f"{error}; the option `on_error=skip` of the data leaves out and names such files"
            ) from error
