"""A folder of pictures a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_transfer.data.base import (
    SPLITS,
    LoadedData,
    TransferDataModule,
    TransferDataset,
    draw_splits,
    some_of,
    split_of,
)
from lightning_transfer.data.images import ImageFiles, unreadable_pictures
from lightning_transfer.utilities.checks import check_one_of, check_path, check_positive_int

_SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga",
    ".tif", ".tiff", ".webp",
})  # fmt: skip
_UNREAD = frozenset({".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".raw", ".svg"})
_PACKED = frozenset({".7z", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip"})
_LITTER = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"})  # of archives and systems


class ImageFolder(TransferDataModule):
    """Pictures sorted into one folder a class, with or without folders for the splits above them.

    With ``root/train/<class>/...`` (or ``training``; ``val``, ``valid`` or ``validation``; ``test`` or ``testing``; in
    any case, with or without ``set`` behind) the splits are those; if only ``val`` is missing, it is drawn from
    ``train``. With ``root/<class>/...``, or ``train`` alone, both are drawn, stratified. Pictures may lie deeper below
    the folder of their class, and links are followed. Names of classes are those of the folders, in alphabetical order.
    Passed over are names that start with a dot, what archives and systems leave (``__MACOSX``), and classes without
    pictures; the last are named in :attr:`remarks`.

    Args:
        root: The folder.
        image_size: Side of the square that every picture is scaled (shorter side) and centre-cropped to, for training
            and for networks without a transform of their library; those get the picture as it lies on disk.
        val_fraction: Share of the training pictures for validation where it is drawn.
        test_fraction: Share of the training pictures for the test where it is drawn.
        in_memory: Read all squares once; otherwise they are read for every batch.
        on_error: What a picture that cannot be read does: ``"raise"`` a ValueError when its turn comes, or ``"skip"``:
            every picture is read once beforehand, and those that fail are left out and named in :attr:`remarks`.
        split_folders: Folder of each split, as in ``{"train": "a", "test": "b"}``, where their names do not say so;
            ``{}`` makes every folder a class. ``None`` looks at the names.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If the folder is missing or without pictures, it is not clear which folders are splits, a split has
            a class that ``train`` lacks (on reading), or a picture cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from lightning_transfer.data import ImageFolder
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        ...     (root / name).parent.mkdir(exist_ok=True)
        ...     Image.new("RGB", (32, 24)).save(root / name)
        >>> data = ImageFolder(root, image_size=16, val_fraction=0, test_fraction=0)
        >>> data.class_names, len(data.train_dataset), data.input_shape
        (('cat', 'dog'), 4, (3, 16, 16))
    """

    default_name = "image_folder"

    def __init__(
        self,
        root: str | Path,
        image_size: int = 224,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        in_memory: bool = False,
        on_error: str = "raise",
        split_folders: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = check_path(root, "root")
        self.call_after(self.root)
        self.image_size = check_positive_int(image_size, "image_size")
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.in_memory = in_memory
        check_one_of(on_error, ("raise", "skip"), "on_error")
        self.on_error = on_error
        if split_folders is not None and not isinstance(split_folders, Mapping):
            raise ValueError(f"Expected argument `split_folders` to be a dict of folders, but got {split_folders!r}.")
        if split_folders and ("train" not in split_folders or not set(split_folders) <= set(SPLITS)):
            raise ValueError(
                f"Expected argument `split_folders` to have `train` and otherwise `val` and `test`, "
                f"but got {dict(split_folders)}."
            )
        self.split_folders = None if split_folders is None else dict(split_folders)

    def load(self) -> LoadedData:
        """List the pictures of every class and split."""
        folders, remarks = self._find_splits()
        pictures = {split: self._list(folder, remarks) for split, folder in folders.items()}
        names = tuple(pictures["train"])
        given = {split: self._dataset(folders[split], paths, names) for split, paths in pictures.items()}
        splits = draw_splits(given, self.seed, self.val_fraction, self.test_fraction)
        return LoadedData("classification", splits, names, tuple(remarks))

    def _find_splits(self) -> tuple[dict[str, Path], list[str]]:
        """The folder of each split that has one, and what is to be said of the others."""
        if self.split_folders is not None:
            return {split: self.root / name for split, name in self.split_folders.items()} or {"train": self.root}, []
        named: dict[str, list[Path]] = {}
        others = []
        for folder in _folders(self.root):
            split = split_of(folder.name)
            if split and _folders(folder):
                named.setdefault(split, []).append(folder)
            else:
                others.append(folder)
        if not named:
            return {"train": self.root}, []
        extra = [folder.name for folder in others if _pictures(folder)]
        clear = "train" in named and all(len(candidates) == 1 for candidates in named.values())
        if not clear or (extra and len(named) == 1):
            listed = sorted([folder.name for candidates in named.values() for folder in candidates] + extra)
            raise ValueError(
                f"Expected the folders in {self.root} to be either classes or one a split with `train` among them, but "
                f"got {listed}; argument `split_folders` says which are splits."
            )
        remarks = [f"passed over beside the folders of the splits: {some_of(extra)}"] if extra else []
        return {split: candidates[0] for split, candidates in named.items()}, remarks

    def _list(self, parent: Path, remarks: list[str]) -> dict[str, list[Path]]:
        """The pictures of every class that has some."""
        unread: Counter[str] = Counter()
        pictures = {folder.name: _pictures(folder, unread) for folder in _folders(parent)}
        if unread:
            listed = ", ".join(f"{count} {ending}" for ending, count in sorted(unread.items()))
            remarks.append(f"pictures of kinds that are not read were left out: {listed}; save them as JPEG or PNG")
        if self.on_error == "skip":
            everything = [path for paths in pictures.values() for path in paths]
            bad = set(unreadable_pictures(everything))
            if bad:
                listed = some_of([str(path.relative_to(self.root)) for path in everything if path in bad])
                remarks.append(
                    f"{len(bad)} of {len(everything)} pictures could not be read and were left out: {listed}"
                )
                pictures = {name: [path for path in paths if path not in bad] for name, paths in pictures.items()}
        if not any(pictures.values()):
            said = f": {'; '.join(remarks)}" if remarks else ""
            if loose := sum(_is_picture(path) for path in parent.iterdir()):
                said = f": {loose} pictures lie in it directly, and each class needs a folder of its own"
            raise ValueError(f"Expected {parent} to hold folders with pictures, but got none{said}.")
        if empty := [name for name, paths in pictures.items() if not paths]:
            remarks.append(f"classes without pictures in {parent.name} were left out: {some_of(empty)}")
        return {name: paths for name, paths in pictures.items() if paths}

    def _dataset(self, parent: Path, pictures: Mapping[str, list[Path]], names: tuple[str, ...]) -> TransferDataset:
        for name in pictures:
            if name not in names:
                raise ValueError(f"Expected the classes of {parent} to be among {names}, but got {name!r}.")
        images = ImageFiles([path for paths in pictures.values() for path in paths], self.image_size)
        labels = [names.index(name) for name, paths in pictures.items() for _ in paths]
        return TransferDataset(images.in_memory() if self.in_memory else images, torch.tensor(labels), "labels")


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        what = ", which is a file: unpack it first" if parent.suffix.lower() in _PACKED else ""
        raise ValueError(
            f"Expected argument `root` to be a folder with one folder a class, but got {str(parent)!r}{what}."
        )
    return sorted(path for path in parent.iterdir() if path.is_dir() and _is_wanted(path.name))


def _pictures(folder: Path, unread: Counter[str] | None = None) -> list[Path]:
    """All pictures below a folder, also behind links; a folder that is reached twice counts once.

    Args:
        folder: Where to look.
        unread: Takes the endings of pictures that no reader is there for.
    """
    pictures: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(filter(_is_wanted, folders))
        if real not in seen:
            paths = [Path(place, name) for name in files if _is_wanted(name)]
            pictures += filter(_is_picture, paths)
            if unread is not None:
                unread.update(ending for path in paths if (ending := path.suffix.lower()) in _UNREAD)
        seen.add(real)
    return sorted(pictures)


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name not in _LITTER


def _is_picture(path: Path) -> bool:
    is_file = path.is_file() or not path.exists()  # a broken link is a picture that cannot be read; a pipe is none
    return path.suffix.lower() in _SUFFIXES and is_file


def _refuse(error: OSError) -> None:
    raise ValueError(f"Expected argument `root` to be a folder that can be read, but got: {error}") from error
