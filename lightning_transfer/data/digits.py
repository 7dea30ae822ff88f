"""scikit-learn's handwritten digits as small grey images."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate

from lightning_transfer.data.base import LoadedData, TransferDataModule, TransferDataset, draw_splits
from lightning_transfer.utilities.checks import check_positive_int


class Digits(TransferDataModule):
    """1797 handwritten digits of 8 x 8 pixels and 17 grey levels, from inside the scikit-learn wheel.

    Args:
        image_size: Enlarge the images to this side by bilinear interpolation; ``None`` keeps 8 pixels and leaves the
            scaling to the backbone.
        val_fraction: Share of all samples for validation, stratified.
        test_fraction: Share of all samples for the test, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> from lightning_transfer.data import Digits
        >>> data = Digits(image_size=32)
        >>> len(data.train_dataset), len(data.val_dataset), len(data.test_dataset), data.input_shape
        (1018, 180, 599, (1, 32, 32))
    """

    default_name = "digits"

    def __init__(
        self,
        image_size: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 1 / 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = None if image_size is None else check_positive_int(image_size, "image_size", minimum=8)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def load(self) -> LoadedData:
        """Read the digits, scale 0..16 to 0..255 and split them."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
        if self.image_size is not None:
            images = interpolate(images, size=(self.image_size, self.image_size), mode="bilinear")
        labels = torch.from_numpy(digits.target).long()
        dataset = TransferDataset(images.round().to(torch.uint8), labels, "labels")
        splits = draw_splits({"train": dataset}, self.seed, self.val_fraction, self.test_fraction)
        return LoadedData("classification", splits, tuple(str(digit) for digit in range(10)))
