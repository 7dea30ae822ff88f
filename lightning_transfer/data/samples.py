"""Data that lie in memory or in somebody's data set: tensors, arrays, lists, and any map-style ``Dataset``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from lightning_transfer.data.base import (
    LoadedData,
    TransferDataModule,
    TransferDataset,
    draw_splits,
    rounded_away,
    some_of,
)
from lightning_transfer.data.images import open_rgb
from lightning_transfer.data.truth import TASKS, encode_truth
from lightning_transfer.inputs import Key, names_targets, pick, split_sample
from lightning_transfer.pictures import KeptInputs, KeptPictures, is_pictures
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.groups import read_groups

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")  # where data sets keep the labels of all samples
_NAME_ATTRIBUTES = ("classes", "class_names", "categories")


class LazyInputs:
    """Inputs that a data set gives when they are asked for.

    Args:
        source: Anything with ``len`` and integer indices.
        pick: From an item of the source to the raw input in it; by default the item is the input.
        indices: Which items are meant, in order; by default all.
    """

    def __init__(self, source: Any, pick: Callable[[Any], Any] | None = None, indices: Tensor | None = None) -> None:
        self.source, self.pick = source, pick
        self.indices = torch.arange(len(source)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: Tensor) -> LazyInputs: ...

    def __getitem__(self, index: int | Tensor) -> Any:
        if isinstance(index, Tensor):
            return LazyInputs(self.source, self.pick, self.indices[index])
        place = int(self.indices[index])
        item = self.source[place]
        try:
            return as_input(item if self.pick is None else self.pick(item))
        except ValueError as error:
            raise ValueError(f"{error} (sample {place})") from error

    def keeping(self, kept: KeptPictures) -> LazyInputs | KeptInputs:
        """The same, which keeps decoded pictures; unless they lie in memory already."""
        decoded = isinstance(self.source, list) and is_pictures(self.source[:1])
        return self if decoded else KeptInputs(self, kept)


@dataclass(frozen=True)
class PickInput:
    """From a sample of a data set to its raw input; see :func:`~lightning_transfer.inputs.split_sample`."""

    input_key: Key | None = None
    label_key: Key | None = None
    group_key: Key | None = None

    def __call__(self, sample: Any) -> Any:
        """The raw input of a sample."""
        return split_sample(sample, **vars(self))[0]


@dataclass
class Found:
    """The samples of somebody's data, by split.

    Attributes:
        inputs: Inputs.
        labels: Raw labels of all of them.
        groups: What says which of them belong together, where that was asked for.
        names: Names of the classes where the data know them.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    names: Sequence[str] | None = None


class SampleModule(TransferDataModule):
    """Base of the datamodules of somebody's own samples, whose labels may be anything.

    Args:
        input_key: Key of the inputs in a sample, or their position, where the usual names do not do.
        label_key: Key or position of the labels or targets.
        group_key: Key or position of what says which samples belong together (a patient, a document), as whole numbers
            or text; it is read once of every sample.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the labels look like.
        class_names: Names by class id, or of the columns of labels or targets.
        val_fraction: Share of the samples for validation where it is drawn.
        test_fraction: Share of the samples for the test where it is drawn.
        on_error: What a sample does that cannot be read: ``"raise"`` when its turn comes, or ``"skip"``: all are read
            once beforehand, and those that fail are left out and named in :attr:`remarks`.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If ``on_error`` or ``task`` is something else.
    """

    def __init__(
        self,
        *,
        input_key: Key | None,
        label_key: Key | None,
        task: str | None,
        class_names: Sequence[str] | None,
        val_fraction: float,
        test_fraction: float,
        on_error: str,
        group_key: Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_one_of(on_error, ("raise", "skip"), "on_error")
        check_one_of(task, (None, *TASKS), "task")
        self.keys = {"input_key": input_key, "label_key": label_key}  # of samples; batches have the usual ones
        self.groups = group_key
        self.wanted_task = task
        self.known_names = None if class_names is None else list(class_names)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.on_error = on_error

    reads_groups = True

    @abstractmethod
    def read(self, remarks: list[str]) -> Found:
        """Find the samples.

        Args:
            remarks: Where it is said what was left out.
        """

    def load(self) -> LoadedData:
        """Find the samples and what their labels are."""
        remarks: list[str] = []
        found = self.read(remarks)
        truth = encode_truth(found.labels, self.known_names or found.names, self.wanted_task)
        datasets = {
            split: TransferDataset(inputs, truth.values[split], truth.key, self._number(found.groups.get(split)))
            for split, inputs in found.inputs.items()
        }
        splits = draw_splits(datasets, self.seed, self.val_fraction, self.test_fraction)
        return LoadedData(truth.task, splits, truth.names, tuple(remarks))

    def _number(self, groups: Any) -> Tensor | None:
        """Groups of a split by numbers from 0; None where nobody asked for them."""
        return None if groups is None else read_groups(groups, name=str(self.groups)).unique(return_inverse=True)[1]

    def keep_readable(
        self,
        found: Found,
        inputs: Any,
        labels: Any,
        split: str,
        remarks: list[str],
        part: Any = None,
        groups: Any = None,
    ) -> None:
        """Read the samples once if some may have to be left out, or if ``part`` has to be asked for something.

        Args:
            found: Where the samples of the split go.
            inputs: Inputs of the split.
            labels: Raw labels; None where ``part`` has to be asked.
            split: Name of the split.
            remarks: Where it is said what was left out.
            part: The samples with labels, and with groups where these were asked for.
            groups: What says which samples belong together, one entry a sample; None where nobody asked for that, or
                ``part`` has to be asked.
        """
        found.inputs[split], found.labels[split] = inputs, labels
        if groups is not None:
            found.groups[split] = groups
        checked = self.on_error == "skip" and not isinstance(inputs, Tensor)
        asked = part is not None and self.groups is not None
        if labels is not None and not checked and not asked:
            return
        readable: dict[int, tuple[Any, Any]] = {}
        for index in range(len(inputs)):
            entry, error = self._try(part, inputs if checked else None, labels, groups, index)
            if error is None:
                readable[index] = entry
            elif self.on_error == "raise":
                raise ValueError(f"Expected sample {index} of {self.name} to be readable, but got: {error}") from error
        if len(readable) < len(inputs):
            bad = some_of([_title(inputs, index) for index in range(len(inputs)) if index not in readable])
            where = "" if split == "train" else f" of {split}"
            count = len(inputs) - len(readable)
            remarks.append(f"{count} of {len(inputs)} samples{where} could not be read and were left out: {bad}")
            found.inputs[split] = inputs[torch.tensor(list(readable), dtype=torch.long)]
        if labels is None or len(readable) < len(inputs):
            found.labels[split] = [label for label, _ in readable.values()]
        if self.groups is not None:
            found.groups[split] = [group for _, group in readable.values()]

    def _try(
        self, part: Any, inputs: Any, labels: Any, groups: Any, index: int
    ) -> tuple[tuple[Any, Any], Exception | None]:
        """The raw label and group of a sample, and what went wrong in reading it."""
        label = group = None
        try:
            if inputs is not None:
                inputs[index]
            sample = part[index] if labels is None or (self.groups is not None and groups is None) else None
            label = split_sample(sample, **self.keys)[1] if labels is None else labels[index]
            if self.groups is not None:
                group = _group_of(sample, self.groups) if groups is None else groups[index]
        except Exception as error:  # whatever a damaged sample raises
            return (label, group), error
        if label is None and labels is None:
            return (label, group), ValueError("it has no label; argument `label_key` says where one is")
        return (label, group), None


class Samples(SampleModule):
    """Your own data: pairs of inputs and labels in memory, or data sets in PyTorch's sense.

    Each split is a pair ``(inputs, labels)`` of tensors, arrays, lists or columns of pandas, or a ``Dataset`` with a
    length whose samples are pairs or dicts with usual names (torchvision's data sets, for example), or a list of such
    dicts. Inputs are pictures (Pillow's objects, paths as ``Path``, the bytes of files, uint8 arrays), vectors, texts,
    or tensors as the backbone takes them. What labels may be says
    :func:`~lightning_transfer.data.truth.encode_truth`. Pictures reach each backbone as they are.

    Args:
        train: The samples to score.
        val: Validation samples; without them ``val_fraction`` of ``train`` is taken.
        test: Test samples; without them (and ``val``) ``test_fraction`` of ``train`` is taken.
        input_key: Key of the inputs in a sample, or their position, where the usual names do not do.
        label_key: Key or position of the labels or targets.
        group_key: Key or position of what says which samples belong together (a patient, a document), as whole numbers
            or text; it is read once of every sample.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the labels look like.
        class_names: Names by class id, or of the columns of labels or targets.
        val_fraction: Share of the samples for validation where it is drawn.
        test_fraction: Share of the samples for the test where it is drawn.
        on_error: What a sample does that cannot be read: ``"raise"`` when its turn comes, or ``"skip"``: all are read
            once beforehand, and those that fail are left out and named in :attr:`remarks`.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If a split is nothing of that kind, samples have no labels, or labels are dense (on reading).

    Example:
        >>> import torch
        >>> from lightning_transfer.data import Samples
        >>> data = Samples((torch.eye(4), ["cat", "dog", "cat", "dog"]))
        >>> data.task, data.class_names, data.train_dataset[1]
        ('classification', ('cat', 'dog'), {'inputs': tensor([0., 1., 0., 0.]), 'labels': tensor(1)})
    """

    default_name = "samples"

    def __init__(
        self,
        train: Any,
        val: Any = None,
        test: Any = None,
        *,
        input_key: Key | None = None,
        label_key: Key | None = None,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
        on_error: str = "raise",
        group_key: Key | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            input_key=input_key,
            label_key=label_key,
            group_key=group_key,
            task=task,
            class_names=class_names,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            on_error=on_error,
            **kwargs,
        )
        given = {"train": train, "val": val, "test": test}
        self.given = {split: _as_arrays(part) for split, part in given.items() if part is not None}
        if "train" not in self.given:
            raise ValueError("Expected argument `train` to hold samples, but got None.")
        for split, part in self.given.items():
            _check_part(part, split)

    def read(self, remarks: list[str]) -> Found:
        """Take the pairs apart and ask the data sets for their labels."""
        found = Found()
        for split, part in self.given.items():
            self._read(part, split, remarks, found)
        found.names = _names_of(self.given["train"], found.labels["train"])
        return found

    def _read(self, part: Any, split: str, remarks: list[str], found: Found) -> None:
        """Find the inputs of a split, and the raw labels of all its samples."""
        if isinstance(part, TensorDataset) and not any(key is not None for key in (*self.keys.values(), self.groups)):
            part = part.tensors[:2]
        if isinstance(part, (tuple, list)) and not _are_samples(part):
            if self.groups is not None:
                raise ValueError(
                    f"Expected argument `group_key` with samples that have keys, but got {self.groups!r} beside a pair "
                    "(inputs, labels): `with_groups` takes ids."
                )
            self.keep_readable(found, as_inputs(part[0], remarks), part[1], split, remarks)
            return
        inputs = LazyInputs(part, PickInput(**self.keys, group_key=self.groups))
        labels = _labels_of(part) if self.keys["label_key"] is None else None
        asked = labels is None and self.keys["label_key"] is None and self.wanted_task is None
        self.keep_readable(found, inputs, labels, split, remarks, part)
        labels = found.labels[split]
        if asked and len(labels) and names_targets(part[0]):  # as in batches: targets are real values, whole or not
            found.labels[split] = [float(value) if _is_whole(value) else value for value in labels]


def _group_of(sample: Any, key: Key) -> Any:
    value = pick(sample, key, "group_key")
    return value.item() if isinstance(value, Tensor) and value.ndim == 0 else value


def _title(inputs: Any, index: int) -> str:
    """What to call a sample that cannot be read: the name of its file where that is known."""
    source = getattr(inputs, "source", None)
    name = getattr(source[index], "name", None) if isinstance(source, list) else None
    return name if isinstance(name, str) else f"sample {index}"


def as_input(value: Any) -> Any:
    """One raw input as datamodules give it: a picture as Pillow's object in RGB, a text, or a tensor.

    Args:
        value: A picture (Pillow's object, a ``Path``, bytes, a uint8 array ``(h, w)`` or ``(h, w, c)``, or a dict with
            ``bytes`` or ``path`` as Hugging Face stores it), text, numbers, or a dict of tensors (tokenised text).

    Raises:
        ValueError: If a picture cannot be read, or the value is audio or something else.
    """
    if isinstance(value, (Tensor, str)):
        return value
    if isinstance(value, (Image.Image, Path, bytes)):
        return open_rgb(value)
    if isinstance(value, Mapping):
        return _as_entries(value)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        flat = value[:, :, 0] if value.shape[2:] == (1,) else value
        if flat.ndim == 2 or flat.shape[2] in (3, 4):
            return open_rgb(Image.fromarray(flat))
    if isinstance(value, (np.ndarray, np.generic, list, tuple, int, float)):
        numbers = np.atleast_1d(np.asarray(value))
        if numbers.dtype.kind in "biuf":
            return torch.from_numpy(numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers)
    raise ValueError(f"Expected inputs to be pictures, numbers or text, but got {type(value).__name__}.")


def _as_entries(value: Mapping[str, Any]) -> Any:
    if "sampling_rate" in value:
        raise ValueError("Expected inputs to be pictures, numbers or text; audio is not supported here.")
    if set(value) == {"bytes", "path"}:
        return open_rgb(value["bytes"] if value["bytes"] is not None else Path(value["path"]))
    return {name: as_input(entry) for name, entry in value.items()}


def as_inputs(values: Any, remarks: list[str]) -> Any:
    """All inputs of a split at once, as a tensor where they are numbers.

    Args:
        values: A tensor, an array, or a list of what :func:`as_input` takes.
        remarks: Where it is said if float32 cannot hold what tells the numbers apart.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        values = torch.from_numpy(values)
        if values.dtype == torch.uint8 and values.ndim in (3, 4):  # pictures as NumPy keeps them
            last = values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] not in (1, 3)
            values = values[:, None] if values.ndim == 3 else values.movedim(3, 1) if last else values
    if isinstance(values, Tensor):
        if values.layout is not torch.strided:
            raise ValueError(f"Expected dense inputs, but got a tensor of layout {values.layout}: `.to_dense()`.")
        if values.dtype == torch.float64:
            if values.ndim == 2 and (lost := int(rounded_away(values).sum())):
                remarks.append(
                    f"float32 rounds too much away of {lost} of {values.shape[1]} features: centre them first"
                )
            values = values.float()
        return values
    values = list(values)
    if values and isinstance(values[0], (int, float, list, tuple)):
        return as_inputs(np.asarray(values), remarks)
    return LazyInputs(values)


def _are_samples(part: Any) -> bool:
    """Whether a list is one of samples in dicts, not a pair of inputs and labels."""
    return len(part) > 0 and all(isinstance(sample, Mapping) for sample in part)


def _is_whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not (value.is_floating_point() or value.dtype is torch.bool)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _as_arrays(part: Any) -> Any:
    """A pair with the columns of a table (a Series of pandas) as arrays, whatever their index."""
    if not isinstance(part, (tuple, list)) or not any(hasattr(column, "to_numpy") for column in part):
        return part
    return tuple(column.to_numpy() if hasattr(column, "to_numpy") else column for column in part)


def _check_part(part: Any, split: str) -> None:
    if isinstance(part, IterableDataset) or (
        not isinstance(part, (tuple, list)) and not (hasattr(part, "__len__") and hasattr(part, "__getitem__"))
    ):
        raise ValueError(
            f"Expected argument `{split}` to be a pair (inputs, labels) or a data set with a length, but got "
            f"{type(part).__name__}."
        )
    if split == "train" and not len(part):
        raise ValueError(f"Expected argument `{split}` to hold samples, but got none.")
    if not isinstance(part, (tuple, list)) or _are_samples(part):
        return
    if len(part) != 2:
        raise ValueError(f"Expected argument `{split}` to be a pair (inputs, labels), but got {len(part)} entries.")
    sizes = [len(entry) for entry in part]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"Expected argument `{split}` to be a pair of as many inputs as labels, but got {sizes} entries."
        )


def _labels_of(dataset: Any) -> Any:
    """The labels of all samples where a data set keeps them at hand, so that no picture needs to be opened."""
    if getattr(dataset, "target_transform", None) is not None:
        return None
    for name in _LABEL_ATTRIBUTES:
        values = getattr(dataset, name, None)
        if isinstance(values, (Tensor, np.ndarray, list, tuple)) and len(values) == len(dataset):
            return values
    return None


def _names_of(dataset: Any, labels: Any) -> list[str] | None:
    """Names of the classes where a data set has them and labels are ids."""
    first = labels[0] if len(labels) else None
    if isinstance(first, str):
        return None
    names = next((getattr(dataset, name) for name in _NAME_ATTRIBUTES if hasattr(dataset, name)), None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return list(names)
    return None
