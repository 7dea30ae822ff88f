"""Patches of the photographs and textures inside the scikit-image and scikit-learn wheels: natural images, offline."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.base import SPLITS, LoadedData, TransferDataModule, TransferDataset
from lightning_transfer.data.images import read_image
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.imports import require

_PICTURES = {  # class name: package and file that its wheel ships, without any download
    "astronaut": ("skimage.data", "astronaut.png"),
    "brick": ("skimage.data", "brick.png"),
    "camera": ("skimage.data", "camera.png"),
    "cell": ("skimage.data", "cell.png"),
    "chelsea": ("skimage.data", "chelsea.png"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "clock_motion": ("skimage.data", "clock_motion.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "coins": ("skimage.data", "coins.png"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
    "grass": ("skimage.data", "grass.png"),
    "gravel": ("skimage.data", "gravel.png"),
    "hubble_deep_field": ("skimage.data", "hubble_deep_field.jpg"),
    "ihc": ("skimage.data", "ihc.png"),
    "moon": ("skimage.data", "moon.png"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "page": ("skimage.data", "page.png"),
    "retina": ("skimage.data", "retina.jpg"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "text": ("skimage.data", "text.png"),
}


class PhotoPatches(TransferDataModule):
    """Which photograph is this patch from? Square patches of twenty pictures, left half against right half.

    Training patches lie in the left half of each picture and test patches in the right half. The right quarter of the
    left half (at least one patch wide) is kept for validation. Between these three strips, ``gap`` columns belong to
    none of them, so no pixel, and no 8-pixel JPEG block, is shared. Inside a strip the corners are drawn at random
    without repetition, so patches of one split may overlap each other: leave-one-out scores on the training split
    are flattered by it, accuracy on the test split is not.

    A logistic regression on the features of EfficientNet-Lite 0, 1 and 2 at 112 pixels, trained on the default training
    split, names the picture of 85 to 87 % of the test patches with ImageNet weights and of 54 to 57 % with random ones.

    Args:
        patch_size: Side of a patch in pixels.
        train_patches: Training patches a picture.
        val_patches: Validation patches a picture; 0 for no validation split.
        test_patches: Test patches a picture; 0 for no test split.
        gap: Columns left out between two splits.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If a number is out of range, or patches do not fit (on reading).

    Example:
        >>> from lightning_transfer.data import PhotoPatches
        >>> data = PhotoPatches(train_patches=2, classes=["camera", "coffee", "flower"])
        >>> data.train_dataset[0]["inputs"].shape, data.num_classes, len(data.train_dataset)
        (torch.Size([3, 48, 48]), 3, 6)
    """

    default_name = "photo_patches"

    def __init__(
        self,
        patch_size: int = 48,
        train_patches: int = 80,
        val_patches: int = 20,
        test_patches: int = 40,
        gap: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = check_positive_int(patch_size, "patch_size", minimum=8)
        self.gap = check_positive_int(gap, "gap", minimum=0)
        self.patches = {
            "train": check_positive_int(train_patches, "train_patches"),
            "val": check_positive_int(val_patches, "val_patches", minimum=0),
            "test": check_positive_int(test_patches, "test_patches", minimum=0),
        }

    def strips(self, width: int) -> dict[str, tuple[int, int]]:
        """Columns of a picture that belong to each split.

        Args:
            width: Width of the picture in pixels.

        Returns:
            First column and the column after the last, by split; they never overlap.
        """
        middle = width // 2
        val_start = middle - max(self.patch_size, width // 8)
        return {
            "train": (0, val_start - self.gap),
            "val": (val_start, middle),
            "test": (middle + self.gap, width),
        }

    def corners(self, height: int, width: int, picture: int) -> dict[str, np.ndarray]:
        """Draw the top left corners of the patches of one picture.

        Args:
            height: Height of the picture in pixels.
            width: Width of the picture in pixels.
            picture: Number of the picture, part of the seed.

        Returns:
            By split an integer array of shape ``(patches, 2)``: row and column, without repetition.

        Raises:
            ValueError: If so many patches do not fit.
        """
        drawn = {}
        for number, (split, (start, stop)) in enumerate(self.strips(width).items()):
            rows, columns = height - self.patch_size + 1, stop - start - self.patch_size + 1
            if min(rows, columns) < 1 or rows * columns < self.patches[split]:
                raise ValueError(
                    f"Expected argument `patch_size` to leave room for {self.patches[split]} {split} patches in "
                    f"{height} x {stop - start} pixels, but got {self.patch_size}."
                )
            generator = np.random.default_rng([self.seed, picture, number])
            flat = generator.choice(rows * columns, size=self.patches[split], replace=False)
            drawn[split] = np.stack([flat // columns, start + flat % columns], axis=1)
        return drawn

    def load(self) -> LoadedData:
        """Read the pictures and cut the patches; pictures take turns, so that every prefix holds them evenly."""
        require("skimage", "photos")
        size = self.patch_size
        cut: dict[str, list[Tensor]] = {split: [] for split in SPLITS}
        for number, (package, file) in enumerate(_PICTURES.values()):
            pixels = read_image(Path(str(files(package) / file)))
            _, height, width = pixels.shape
            for split, corners in self.corners(height, width, number).items():
                views = [pixels[:, row : row + size, column : column + size] for row, column in corners]
                cut[split].append(torch.stack(views) if views else pixels.new_empty(0, 3, size, size))
        splits = {}
        for split, patches in cut.items():
            labels = torch.arange(len(_PICTURES)).repeat(self.patches[split])
            splits[split] = TransferDataset(torch.stack(patches, dim=1).flatten(0, 1), labels, "labels")
        return LoadedData("classification", splits, tuple(_PICTURES))
