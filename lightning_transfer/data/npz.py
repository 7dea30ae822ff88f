"""Arrays from an ``.npz`` file: images or features, class ids, several labels a sample, or regression targets."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.base import (
    SPLITS,
    LoadedData,
    TransferDataModule,
    TransferDataset,
    draw_splits,
    number_classes,
    round_targets,
    rounded_away,
)
from lightning_transfer.data.reading import check_size, largest_size
from lightning_transfer.inputs import Task
from lightning_transfer.utilities.checks import check_features, check_one_of, check_path, check_targets
from lightning_transfer.utilities.files import check_regular

_LAYOUTS = ("auto", "nhwc", "nchw")


class NpzArrays(TransferDataModule):
    """A data set in the arrays of one ``.npz`` file, which is read without pickle.

    Inputs are uint8 images ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)`` with 1 or 3 channels, or floating point
    features ``(n, d)``. Labels are class ids ``(n,)`` or ``(n, 1)``, class names as text likewise, or zeros and ones
    ``(n, l)`` of any type; targets are numbers ``(n,)`` or ``(n, m)``. Where the names hold ``{split}``, as in
    ``"{split}_images"``, there is one array for each of ``train``, ``val`` and ``test`` that the file has; with
    ``train`` alone, or without ``{split}``, the others are drawn.

    Args:
        path: The file.
        inputs: Name of the array of inputs, possibly with ``{split}``.
        labels: Name of the array of labels, with ``{split}`` if ``inputs`` has it.
        targets: Name of the array of regression targets instead of ``labels``.
        class_names: Names by class id (or by column of labels or targets), or the name of an array of text with them.
        layout: ``"nhwc"`` or ``"nchw"`` for images with channels; ``"auto"`` finds the axis of 1 or 3.
        val_fraction: Share for validation where it is drawn, stratified by class.
        test_fraction: Share for the test where it is drawn, stratified by class.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If file or arrays are missing, need pickle, have a wrong type or shape, or are not finite (on
            reading).

    Example:
        >>> import pathlib, tempfile, numpy as np
        >>> from lightning_transfer.data import NpzArrays
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "features.npz"
        >>> np.savez(path, inputs=np.eye(10), labels=np.arange(10) % 2)
        >>> NpzArrays(path, class_names=["even", "odd"]).class_names
        ('even', 'odd')
    """

    default_name = "npz"

    def __init__(
        self,
        path: str | Path,
        inputs: str = "inputs",
        labels: str = "labels",
        targets: str | None = None,
        class_names: str | Sequence[str] | None = None,
        layout: str = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_one_of(layout, _LAYOUTS, "layout")
        self.path = check_path(path, "path")
        self.call_after(self.path)
        self.inputs = inputs
        self.truth = labels if targets is None else targets
        self.is_regression = targets is not None
        self.known_names = class_names
        self.layout = layout
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        names = {"inputs": self.inputs, "labels" if targets is None else "targets": self.truth}
        for argument, name in names.items():
            if not isinstance(name, str):
                raise ValueError(f"Expected argument `{argument}` to be the name of an array, but got {name!r}.")
        if class_names is not None and not isinstance(class_names, Sequence):
            raise ValueError(
                f"Expected argument `class_names` to be names or the name of an array, but got {class_names!r}."
            )
        if ("{split}" in self.inputs) != ("{split}" in self.truth):
            raise ValueError(
                f"Expected `{{split}}` in the names of both inputs and truth or of none, "
                f"but got {self.inputs!r} and {self.truth!r}."
            )

    def load(self) -> LoadedData:
        """Read the arrays and split them."""
        try:
            check_regular(self.path)
            if self.path.is_file() and not zipfile.is_zipfile(self.path):  # NumPy would take it for a pickle
                raise ValueError(f"{self.path}, which is no archive of arrays")
            file = np.load(self.path, allow_pickle=False)
        except Exception as error:  # damaged archives raise anything
            reason = str(error) or type(error).__name__
            raise ValueError(f"Expected argument `path` to be a readable .npz file, but got: {reason}") from error
        with file:
            splits_here = [split for split in SPLITS if self.inputs.replace("{split}", split) in file]
            given = splits_here if "train" in splits_here and "{split}" in self.inputs else ["train"]
            remarks: list[str] = []
            inputs = {split: self._inputs(self._array(file, self.inputs, split), remarks) for split in given}
            raw = {split: self._array(file, self.truth, split) for split in given}
            class_names = self.known_names
            names = self._array(file, class_names, "").tolist() if isinstance(class_names, str) else class_names
        names = None if names is None else tuple(str(name) for name in names)
        truth, names = self._targets(raw, names) if self.is_regression else self._labels(raw, names)
        key: Literal["labels", "targets"] = "targets" if self.is_regression else "labels"
        datasets = {split: TransferDataset(inputs[split], truth[split], key) for split in given}
        splits = draw_splits(datasets, self.seed, self.val_fraction, self.test_fraction)
        labelled: Task = "classification" if truth["train"].ndim == 1 else "multilabel"
        return LoadedData("regression" if self.is_regression else labelled, splits, names, tuple(remarks[:1]))

    def _array(self, file: Mapping[str, np.ndarray], name: str, split: str) -> np.ndarray:
        name = name.replace("{split}", split)
        if name not in file:
            raise ValueError(f"Expected {self.path} to hold an array {name!r}, but it holds: {', '.join(file)}.")
        try:
            self._check_member(f"{name}.npy")
            return file[name]
        except Exception as error:  # zlib.error, MemoryError, tokenize.TokenError, ...
            reason = str(error) or type(error).__name__
            raise ValueError(f"Expected array {name!r} of {self.path} to be readable, but got: {reason}") from error

    def _check_member(self, name: str) -> None:
        """Compare what the header of an array claims with what the archive holds, before memory is made for it."""
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as stream:
            member = archive.getinfo(name)
            version = np.lib.format.read_magic(stream)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(stream)
            claimed, held = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
        if not dtype.hasobject and claimed != held:
            raise ValueError(f"{claimed} bytes claimed for shape {shape}, but {held} held")
        check_size(claimed, largest_size(self.path, member.compress_size), "the array")

    def _inputs(self, array: np.ndarray, remarks: list[str]) -> Tensor:
        if array.dtype.kind == "f" and array.ndim == 2:
            values = check_features(torch.from_numpy(array.astype(np.float64)), "inputs")
            if lost := int(rounded_away(values).sum()):
                remarks.append(
                    f"float32 rounds too much away of {lost} of {values.shape[1]} features: centre them first"
                )
            return check_features(values.float(), "inputs")
        if array.dtype != np.uint8 or array.ndim not in (3, 4):
            raise ValueError(
                f"Expected argument `inputs` to name uint8 images or floating point features (n, d), "
                f"but got {array.dtype} of shape {array.shape}."
            )
        images = torch.from_numpy(array)
        if images.ndim == 3:
            return images[:, None]
        axes = {"nhwc": 3, "nchw": 1}
        fitting = [axes[name] for name in axes if self.layout in (name, "auto") and array.shape[axes[name]] in (1, 3)]
        if len(fitting) != 1:
            raise ValueError(
                f"Expected images with one axis of 1 or 3 channels, layout {self.layout!r}, but got {array.shape}; "
                f"argument `layout` chooses the axis."
            )
        return images.movedim(fitting[0], 1).contiguous()

    def _targets(
        self, raw: dict[str, np.ndarray], names: tuple[str, ...] | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        for array in raw.values():
            if array.dtype.kind not in "iuf":
                raise ValueError(f"Expected argument `targets` to name an array of numbers, but got {array.dtype}.")
        truth = round_targets(
            {
                split: check_targets(torch.from_numpy(array.astype(np.float64)), len(array))
                for split, array in raw.items()
            }
        )
        columns = truth["train"].shape[1]
        return truth, self._check_names(names or tuple(f"target_{i}" for i in range(columns)), columns)

    def _labels(
        self, raw: dict[str, np.ndarray], names: tuple[str, ...] | None
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        raw = {split: array[:, 0] if array.shape[1:] == (1,) else array for split, array in raw.items()}
        dimensions = raw["train"].ndim
        for array in raw.values():
            marks = array.dtype.kind == "f" and array.ndim == 2 and bool(((array == 0) | (array == 1)).all())
            if not (array.dtype.kind in "biuU" or marks) or array.ndim not in (1, 2) or array.ndim != dimensions:
                raise ValueError(
                    f"Expected argument `labels` to name an array of class ids or names (n,), or of zeros and ones "
                    f"(n, l), but got {array.dtype} of shape {array.shape}."
                )
        if raw["train"].dtype.kind == "U":
            class_names = names or tuple(sorted({str(name) for array in raw.values() for name in array.flat}))
            raw = {split: _look_up(array, class_names) for split, array in raw.items()}
            names = class_names
        truth = {split: torch.from_numpy(array.astype(np.int64)) for split, array in raw.items()}
        high = max((int(array.max()) for array in truth.values() if array.numel()), default=0)
        low = min((int(array.min()) for array in truth.values() if array.numel()), default=0)
        count = len(names or ()) or high + 1
        if dimensions == 2:
            count, limit = truth["train"].shape[1], 2
        else:
            limit = count
        if low < 0 or high >= limit:
            raise ValueError(f"Expected argument `labels` to hold ids from 0 to {limit - 1}, but got {low} to {high}.")
        return truth, self._check_names(names or number_classes(count, len(truth["train"])), count)

    def _check_names(self, names: tuple[str, ...], count: int) -> tuple[str, ...]:
        if len(names) != count or len(set(names)) < count:
            raise ValueError(f"Expected argument `class_names` to hold {count} different names, but got {names}.")
        return names


def _look_up(labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    ids = {name: number for number, name in enumerate(names)}
    unknown = sorted({str(label) for label in labels.flat} - set(ids))
    if unknown or labels.ndim != 1:
        raise ValueError(
            f"Expected argument `labels` to hold names (n,) among {names}, but got {unknown or labels.shape}."
        )
    return np.array([ids[str(label)] for label in labels])
