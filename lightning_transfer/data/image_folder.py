"""A folder of pictures a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_transfer.data.base import LoadedData, TransferDataModule, TransferDataset, draw_splits
from lightning_transfer.data.images import ImageFiles
from lightning_transfer.utilities.checks import check_path, check_positive_int

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class ImageFolder(TransferDataModule):
    """Pictures sorted into one folder a class, with or without folders for the splits above them.

    With ``root/train/<class>/...`` (and ``val``, ``valid`` or ``validation``, and ``test``) the splits are those; if
    only ``val`` is missing, it is drawn from ``train``. With ``root/<class>/...``, or ``train`` alone, both are drawn,
    stratified. Pictures may lie deeper below the folder of their class. Names of classes are those of the folders, in
    alphabetical order; names that start with a dot are passed over.

    Args:
        root: The folder.
        image_size: Side of the square that every picture is scaled (shorter side) and centre-cropped to.
        val_fraction: Share of the training pictures for validation where it is drawn.
        test_fraction: Share of the training pictures for the test where it is drawn.
        in_memory: Read all pictures once; otherwise they are read for every batch.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If the folder is missing or without pictures, or a split has a class that ``train`` lacks (on
            reading), or a picture cannot be read.
    """

    default_name = "image_folder"

    def __init__(
        self,
        root: str | Path,
        image_size: int = 224,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        in_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = check_path(root, "root")
        self.image_size = check_positive_int(image_size, "image_size")
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.in_memory = in_memory

    def load(self) -> LoadedData:
        """List the pictures of every class and split."""
        folders = {_SPLIT_FOLDERS[path.name]: path for path in self._folders(self.root) if path.name in _SPLIT_FOLDERS}
        if "train" not in folders:
            folders = {"train": self.root}
        names = tuple(path.name for path in self._folders(folders["train"]))
        given = {split: self._dataset(path, names) for split, path in folders.items()}
        splits = draw_splits(given, self.seed, self.val_fraction, self.test_fraction)
        return LoadedData("classification", splits, names)

    def _folders(self, parent: Path) -> list[Path]:
        if not parent.is_dir():
            raise ValueError(
                f"Expected argument `root` to be a folder with one folder a class, but got {str(parent)!r}."
            )
        return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))

    def _dataset(self, parent: Path, names: tuple[str, ...]) -> TransferDataset:
        paths: list[Path] = []
        labels: list[int] = []
        for folder in self._folders(parent):
            if folder.name not in names:
                raise ValueError(f"Expected the classes of {parent} to be among {names}, but got {folder.name!r}.")
            files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
            paths += files
            labels += [names.index(folder.name)] * len(files)
        if not paths:
            raise ValueError(f"Expected {parent} to hold folders with pictures, but got none.")
        images = ImageFiles(paths, self.image_size)
        inputs = torch.stack([images[i] for i in range(len(images))]) if self.in_memory else images
        return TransferDataset(inputs, torch.tensor(labels), "labels")
