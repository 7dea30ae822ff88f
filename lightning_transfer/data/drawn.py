"""Triangles that are drawn with known corners and known attributes: regression and several labels for pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from lightning_transfer.data.base import LoadedData, TransferDataModule, TransferDataset, draw_splits
from lightning_transfer.utilities.checks import check_one_of, check_positive_int

_CORNERS: tuple[str, ...] = ("top_x", "top_y", "middle_x", "middle_y", "bottom_x", "bottom_y")
_ATTRIBUTES: tuple[str, ...] = ("filled", "red", "large", "striped")
_FINENESS = 4  # pixels are drawn smaller and averaged, so that edges are smooth


class DrawnTriangles(TransferDataModule):
    """One triangle a picture, on a noisy ground: where its corners are, or what it looks like.

    Args:
        truth: ``"corners"``: six regression targets, the coordinates of the corners from top to bottom, in shares of
            the picture's side; or ``"attributes"``: several labels a picture, whether the triangle is filled, red (or
            blue), large, and on a striped ground. The pictures are the same.
        samples: Number of pictures.
        image_size: Side of a picture in pixels.
        val_fraction: Share of the pictures for validation.
        test_fraction: Share of the pictures for the test.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`; ``seed`` draws other pictures.

    Raises:
        ValueError: If ``truth`` is something else or a number is out of range.

    Example:
        >>> from lightning_transfer.data import DrawnTriangles
        >>> data = DrawnTriangles("attributes", samples=20)
        >>> data.task, data.class_names, data.input_shape
        ('multilabel', ('filled', 'red', 'large', 'striped'), (3, 64, 64))
    """

    default_name = "drawn_triangles"

    def __init__(
        self,
        truth: str = "corners",
        samples: int = 600,
        image_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        **kwargs: Any,
    ) -> None:
        check_one_of(truth, ("corners", "attributes"), "truth")
        self.default_name = f"drawn_{truth}"
        super().__init__(**kwargs)
        self.truth = truth
        self.samples = check_positive_int(samples, "samples", minimum=2)
        self.image_size = check_positive_int(image_size, "image_size", minimum=16)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def load(self) -> LoadedData:
        """Draw the pictures."""
        drawn = [_draw(np.random.default_rng([self.seed, i]), self.image_size) for i in range(self.samples)]
        pictures = torch.from_numpy(np.stack([pixels for pixels, _, _ in drawn])).permute(0, 3, 1, 2).contiguous()
        names: tuple[str, ...]
        if self.truth == "corners":
            corners = torch.from_numpy(np.stack([corners.ravel() for _, corners, _ in drawn])).float()
            dataset, names = TransferDataset(pictures, corners, "targets"), _CORNERS
        else:
            marks = torch.tensor([attributes for _, _, attributes in drawn], dtype=torch.int64)
            dataset, names = TransferDataset(pictures, marks, "labels"), _ATTRIBUTES
        splits = draw_splits({"train": dataset}, self.seed, self.val_fraction, self.test_fraction)
        return LoadedData("regression" if self.truth == "corners" else "multilabel", splits, names)


def _draw(generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Pixels ``(size, size, 3)``, corners ``(3, 2)`` as x and y from top to bottom, and the attributes."""
    filled, red, large, striped = attributes = (generator.random(4) < 0.5).tolist()
    ground = generator.integers(90, 130, (size, size, 3))
    if striped:
        ground[:, :: max(2, size // 8)] += 60
    centre = generator.uniform(0.4, 0.6, 2)
    turns = generator.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3 + generator.uniform(-0.5, 0.5, 3)
    radius = generator.uniform(0.32, 0.38) if large else generator.uniform(0.15, 0.2)
    corners = centre + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    corners = corners[np.argsort(corners[:, 1])]
    picture = Image.fromarray(ground.astype(np.uint8)).resize((size * _FINENESS,) * 2, Image.Resampling.NEAREST)
    colour = (220, 40, 40) if red else (40, 40, 220)
    points = [tuple(corner) for corner in (corners * size * _FINENESS).tolist()]
    width = max(1, size * _FINENESS // 32)
    ImageDraw.Draw(picture).polygon(points, fill=colour if filled else None, outline=colour, width=width)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX)), corners, attributes
