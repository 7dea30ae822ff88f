"""Reading of image files: as one picture, or as a sequence of equally sized inputs that stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor


def read_image(path: Path, image_size: int | None = None) -> Tensor:
    """Read a picture as RGB, upright according to its EXIF tag.

    Args:
        path: Image file in any format that Pillow reads; grey and palette pictures become RGB, transparency is shown
            on white.
        image_size: Scale the shorter side to this and cut the centre square out; ``None`` leaves the picture as it is.

    Returns:
        uint8 tensor of shape ``(3, h, w)``.

    Raises:
        ValueError: If the file is missing or holds no readable picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise ValueError(f"Expected {path} to be a readable picture, but got: {error}") from error
    if image_size is not None:
        picture = ImageOps.fit(picture, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


class ImageFiles:
    """Pictures on disk as inputs of one size, read when they are asked for.

    Args:
        paths: Image files.
        image_size: Side of the square that every picture is scaled and cropped to.
    """

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self.paths = list(paths)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor) -> ImageFiles: ...

    def __getitem__(self, index: int | Tensor) -> Tensor | ImageFiles:
        if isinstance(index, Tensor):
            return ImageFiles([self.paths[i] for i in index.tolist()], self.image_size)
        return read_image(self.paths[index], self.image_size)
