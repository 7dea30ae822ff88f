"""MNIST-format IDX files, plain or gzipped: MNIST, Fashion-MNIST, KMNIST, EMNIST and USPS."""

from __future__ import annotations

import gzip
import math
import string
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.base import LoadedData, TransferDataModule, TransferDataset, draw_splits, number_classes
from lightning_transfer.data.reading import check_size, largest_size, open_unzipped, read_at_most
from lightning_transfer.utilities.checks import check_one_of, check_path
from lightning_transfer.utilities.files import check_regular

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DIGITS = tuple(string.digits)
_EMNIST_CLASSES = {
    "balanced": _DIGITS + tuple(string.ascii_uppercase + "abdefghnqrt"),
    "byclass": _DIGITS + tuple(string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": _DIGITS + tuple(string.ascii_uppercase + "abdefghnqrt"),
    "digits": _DIGITS,
    "letters": tuple(string.ascii_uppercase),
    "mnist": _DIGITS,
}


def read_idx(path: str | Path) -> np.ndarray:
    """Read one IDX file.

    The format is four bytes (0, 0, a code of the number type, the number of dimensions), one big-endian 32-bit size for
    every dimension, and the numbers in C order, big-endian.

    Args:
        path: The file; gzip is recognised by its content, whatever the name.

    Returns:
        The array, of the file's number type in the machine's byte order.

    Raises:
        ValueError: If the file is missing, or is not exactly one IDX array.

    Example:
        >>> import tempfile, pathlib
        >>> from lightning_transfer.data.idx import read_idx
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read_idx(path)
        array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    try:
        check_regular(path)
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            return _parse_idx(cast("IO[bytes]", gzip.open(raw)) if zipped else raw, path)
    except Exception as error:  # OSError, EOFError, zlib.error, a shape that NumPy does not take, ...
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"Expected {path} to be a readable IDX file, but got: {error}") from error


def _parse_idx(stream: IO[bytes], path: Path) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        raise ValueError(f"Expected {path} to start like an IDX file (0, 0, type, dimensions), but got {magic!r}.")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"Expected {path} to have {magic[3]} dimensions in its header, but it ends before.")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    dtype = np.dtype(_DTYPES[magic[2]])
    expected = math.prod(shape) * dtype.itemsize
    limit = min(expected, largest_size(path))
    content = read_at_most(stream, limit + 1)
    if len(content) != expected:
        got = f"{len(content)} or more" if len(content) > limit else len(content)
        raise ValueError(f"Expected {path} to hold {expected} bytes for its shape {shape}, but got {got}.")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


class IDXImages(TransferDataModule):
    """Grey images with class ids in MNIST's four files.

    In ``root`` lie ``<train>-images-idx3-ubyte``, ``<train>-labels-idx1-ubyte`` and the same two for ``<test>``; a
    ``.gz`` at the end and a dot instead of the hyphen before ``idx`` are also found. Validation samples are taken from
    the training files. Without test files there is no test split.

    Args:
        root: Folder of the files.
        train: What the names of the training files start with.
        test: What the names of the test files start with.
        class_names: Names by class id; by default the ids as text.
        first_label: Id that the files give to the first class.
        transposed: The files hold every image with rows and columns exchanged.
        val_fraction: Share of the training files for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If files are missing or malformed, do not fit together, or hold ids without a name (on reading).
    """

    default_name = "idx"

    def __init__(
        self,
        root: str | Path,
        train: str = "train",
        test: str = "t10k",
        class_names: Sequence[str] | None = None,
        first_label: int = 0,
        transposed: bool = False,
        val_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = check_path(root, "root")
        if self.default_name == IDXImages.default_name:
            self.call_after(self.root)
        self.prefixes = {"train": train, "test": test}
        self.known_names = None if class_names is None else tuple(str(name) for name in class_names)
        self.first_label = first_label
        self.transposed = transposed
        self.val_fraction = val_fraction

    def load(self) -> LoadedData:
        """Read the four files and split validation samples off the training files."""
        if not self.root.is_dir():
            raise ValueError(
                f"Expected argument `root` to be a folder with IDX files, but got {str(self.root)!r}; set root=FOLDER."
            )
        train, test = (self._read(prefix) for prefix in self.prefixes.values())
        if train is None:
            wanted = f"{self.prefixes['train']}-images-idx3-ubyte[.gz]"
            raise ValueError(f"Expected argument `root` to be a folder with {wanted}, but got {str(self.root)!r}.")
        given = {"train": train} if test is None else {"train": train, "test": test}
        splits = draw_splits(given, self.seed, self.val_fraction)
        labels = torch.cat([split.truth for split in splits.values()])
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        names = self.known_names or number_classes(high + 1, len(labels), self.first_label)
        if low < 0 or high >= len(names):
            raise ValueError(
                f"Expected {self.root} to hold labels of {len(names)} classes from {self.first_label} on, "
                f"but got {low + self.first_label} to {high + self.first_label}."
            )
        return LoadedData("classification", splits, names)

    def _read(self, prefix: str) -> TransferDataset | None:
        images_file, labels_file = self._find(prefix, "images", 3), self._find(prefix, "labels", 1)
        if images_file is None and labels_file is None:
            return None
        if images_file is None or labels_file is None:
            file = images_file or labels_file
            raise ValueError(f"Expected images and labels for {prefix!r} in {self.root}, but got {file} only.")
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise ValueError(f"Expected {images_file} to hold uint8 images, but got {images.dtype} {images.shape}.")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise ValueError(
                f"Expected {labels_file} to hold {len(images)} integers, but got {labels.dtype} {labels.shape}."
            )
        pixels = torch.from_numpy(images.transpose(0, 2, 1).copy() if self.transposed else images)
        ids: Tensor = torch.from_numpy(labels.astype(np.int64)) - self.first_label
        return TransferDataset(pixels[:, None], ids, "labels")

    def _find(self, prefix: str, kind: str, dimensions: int) -> Path | None:
        stems = (f"{prefix}-{kind}{mark}idx{dimensions}-ubyte" for mark in "-.")
        candidates = (self.root / (stem + end) for stem in stems for end in ("", ".gz"))
        return next((path for path in candidates if path.is_file()), None)


class MNIST(IDXImages):
    """Handwritten digits, 28 x 28, 60 000 and 10 000 (LeCun, Cortes and Burges).

    Args:
        root: Folder of the four IDX files.
        val_fraction: Share of the training files for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.
    """

    default_name = "mnist"

    def __init__(self, root: str | Path, val_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(root, class_names=_DIGITS, val_fraction=val_fraction, **kwargs)


class FashionMNIST(IDXImages):
    """Photographs of clothes, 28 x 28, 60 000 and 10 000 (Xiao, Rasul and Vollgraf, 2017).

    Args:
        root: Folder of the four IDX files; by default where Debian's ``dataset-fashion-mnist`` puts them.
        val_fraction: Share of the training files for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.
    """

    default_name = "fashion_mnist"
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

    def __init__(
        self, root: str | Path = "/usr/share/datasets/fashion-mnist", val_fraction: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(root, class_names=self.names, val_fraction=val_fraction, **kwargs)


class KMNIST(IDXImages):
    """Cursive Japanese characters, 28 x 28, 60 000 and 10 000 (Clanuwat et al., 2018).

    Args:
        root: Folder of the four IDX files.
        val_fraction: Share of the training files for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.
    """

    default_name = "kmnist"
    names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

    def __init__(self, root: str | Path, val_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(root, class_names=self.names, val_fraction=val_fraction, **kwargs)


class EMNIST(IDXImages):
    """Handwritten digits and letters, 28 x 28 (Cohen et al., 2017); the files hold the images transposed.

    Args:
        root: Folder of the IDX files ``emnist-<variant>-{train,test}-...``.
        variant: One of ``balanced`` (47 classes), ``byclass`` (62), ``bymerge`` (47), ``digits`` (10), ``letters``
            (26), ``mnist`` (10).
        val_fraction: Share of the training files for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If the variant is unknown.
    """

    default_name = "emnist"

    def __init__(self, root: str | Path, variant: str = "balanced", val_fraction: float = 0.1, **kwargs: Any) -> None:
        check_one_of(variant, tuple(_EMNIST_CLASSES), "variant")
        super().__init__(
            root,
            train=f"emnist-{variant}-train",
            test=f"emnist-{variant}-test",
            class_names=_EMNIST_CLASSES[variant],
            first_label=1 if variant == "letters" else 0,
            transposed=True,
            val_fraction=val_fraction,
            **kwargs,
        )


class USPS(IDXImages):
    """Handwritten digits from envelopes, 16 x 16, 7291 and 2007 (Hull, 1994).

    Two layouts are read: IDX files with MNIST's names, and ``usps`` with ``usps.t`` (plain or ``.bz2``) as the LIBSVM
    collection distributes them, with pixels from -1 to 1 and labels from 1 to 10.

    Args:
        root: Folder of the files.
        val_fraction: Share of the training file for validation, stratified.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.
    """

    default_name = "usps"

    def __init__(self, root: str | Path, val_fraction: float = 0.1, **kwargs: Any) -> None:
        super().__init__(root, class_names=_DIGITS, val_fraction=val_fraction, **kwargs)

    def _read(self, prefix: str) -> TransferDataset | None:
        stem = "usps" if prefix == self.prefixes["train"] else "usps.t"
        file = next((path for end in ("", ".bz2") if (path := self.root / (stem + end)).is_file()), None)
        return super()._read(prefix) if file is None else _read_libsvm(file)


def _read_libsvm(path: Path) -> TransferDataset:
    from sklearn.datasets import load_svmlight_file

    try:
        with open_unzipped(path) as file:
            pixels, labels = load_svmlight_file(file, n_features=256, dtype=np.float32)
        check_size(len(labels) * 256 * 4, largest_size(path), str(path))
    except Exception as error:  # damaged files raise anything
        raise ValueError(f"Expected {path} to be a LIBSVM file of 256 pixels a line, but got: {error}") from error
    images = ((torch.from_numpy(pixels.toarray()) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return TransferDataset(images.reshape(-1, 1, 16, 16), torch.from_numpy(labels).long() - 1, "labels")
