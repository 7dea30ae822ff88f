"""From whatever holds data to a datamodule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_transfer.data.base import split_of
from lightning_transfer.data.hugging_face import HuggingFace, Stream
from lightning_transfer.data.image_folder import ImageFolder
from lightning_transfer.data.npz import NpzArrays
from lightning_transfer.data.samples import Samples
from lightning_transfer.data.shards import Shards
from lightning_transfer.data.table import is_table, open_table
from lightning_transfer.data.truth import TASKS
from lightning_transfer.inputs import Key, Task, names_targets, split_batch, split_sample
from lightning_transfer.passes import as_peekable, first_batch
from lightning_transfer.pictures import collate_pictures
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.isolation import preserve_rng

_SAVED = ("state.json", "dataset_dict.json")  # of `datasets`
_KINDS = (
    "a datamodule, a loader, a data set (PyTorch's or Hugging Face's), a pair (inputs, labels), a dict of these by "
    "split, or the path of a folder of pictures, a table, an .npz file or .tar shards"
)


class UnknownSourceError(ValueError):
    """Something that holds no data as far as this package can tell."""


class Batches(LightningDataModule):
    """A loader, or any iterable of batches, as the one split that there is.

    Args:
        loader: Gives batches as :func:`~lightning_transfer.inputs.split_batch` takes them.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the first batch looks like
            (regression where its key is ``targets``).
        class_names: Names of the classes by id, where they are known.
        input_key: Key or position of the inputs in a batch, where the usual names do not do.
        label_key: Key or position of the labels or targets.
        group_key: Key or position of what says which samples belong together, as whole numbers or text.
        name: Name in tables and files.

    Raises:
        ValueError: If the task is unknown.
    """

    names_batches = False

    def __init__(
        self,
        loader: Iterable[Any],
        *,
        task: str | None = None,
        class_names: Iterable[str] | None = None,
        input_key: Key | None = None,
        label_key: Key | None = None,
        group_key: Key | None = None,
        name: str = "batches",
    ) -> None:
        super().__init__()
        if task is not None:
            check_one_of(task, TASKS, "task")
        self.loader: Iterable[Any] = as_peekable(loader)
        self.name = name
        self.input_key, self.label_key, self.group_key = input_key, label_key, group_key
        self.class_names = tuple(class_names or ())
        self.task: Task = task or self._guess_task()  # type: ignore[assignment]

    @property
    def num_classes(self) -> int | None:
        """Number of classes where their names are known."""
        return len(self.class_names) or None

    def train_dataloader(self) -> Iterable[Any]:
        """The loader."""
        return self.loader

    def predict_dataloader(self) -> Iterable[Any]:
        """The loader."""
        return self.loader

    def _guess_task(self) -> Task:
        with preserve_rng():
            batch = self._first_batch()
        keys = {"input_key": self.input_key, "label_key": self.label_key, "group_key": self.group_key}
        named = split_batch(batch, **keys)[1] if batch is not None else {}
        values = next(iter(named.values()), None)
        if values is not None and values.ndim == 2 and bool(((values == 0) | (values == 1)).all()):
            return "multilabel"
        by_key = self.label_key is None and names_targets(batch)
        return "regression" if "targets" in named or by_key else "classification"

    def _first_batch(self) -> Any:
        loader = self.loader
        if isinstance(loader, DataLoader) and hasattr(loader.dataset, "__len__") and loader.batch_sampler is not None:
            return loader.collate_fn([loader.dataset[0]]) if len(loader.dataset) else None
        return first_batch(loader)


def as_datamodule(
    data: Any,
    *,
    input_key: Any = None,
    label_key: Any = None,
    group_key: Any = None,
    name: str | None = None,
    **options: Any,
) -> LightningDataModule:
    """Make a datamodule of what holds data.

    Args:
        data: A datamodule (comes back as it is); a ``DataLoader`` or another iterable of batches; a ``Dataset``, of
            PyTorch (torchvision's, too) or of Hugging Face's ``datasets``, in memory or streamed; a pair
            ``(inputs, labels)`` of tensors, arrays or lists; a dict from ``train``, ``val`` and ``test`` to these; or a
            path: a folder of pictures, one that ``datasets`` saved, one of ``.tar`` shards, an ``.npz`` file, or a
            table (CSV, TSV or Parquet) whose columns the keys name: ``label_key`` the classes or numbers to predict,
            ``input_key`` the texts, the pictures' files or a number; without it all other columns are the inputs.
        input_key: Key, column or position of the inputs, where the usual names do not do.
        label_key: Key, column or position of the labels or targets.
        group_key: Key, column or position of what says which samples belong together.
        name: Name in tables and files.
        options: Further arguments of the class that fits: :class:`Batches`, :class:`~lightning_transfer.data.Samples`,
            :class:`~lightning_transfer.data.HuggingFace`, :class:`~lightning_transfer.data.Shards`,
            :class:`~lightning_transfer.data.ImageFolder`, :class:`~lightning_transfer.data.NpzArrays`,
            :class:`~lightning_transfer.data.Table`, :class:`~lightning_transfer.data.TextTable` or
            :class:`~lightning_transfer.data.PictureTable`.

    Raises:
        ValueError: If the data are nothing of that kind.

    Example:
        >>> import torch
        >>> from lightning_transfer.data import as_datamodule
        >>> as_datamodule((torch.eye(4), [0, 1, 0, 1])).num_classes
        2
    """
    if isinstance(data, LightningDataModule):
        return data
    named: dict[str, Any] = {**options, **({} if name is None else {"name": name})}
    keys = {"input_key": input_key, "label_key": label_key, **({} if group_key is None else {"group_key": group_key})}
    if isinstance(data, (str, Path)):
        return _from_path(Path(data), named, keys)
    splits = isinstance(data, Mapping) and bool(data) and all(split_of(str(word)) for word in data)
    first = next(iter(data.values())) if splits else data
    if _is_hugging_face(first):
        if hasattr(first, "__len__"):
            return HuggingFace(data, **keys, **{"val_fraction": 0.0, "test_fraction": 0.0, **named})
        return _from_stream(data["train"] if splits else data, named, keys)
    if splits:
        parts: dict[str, Any] = {str(split_of(str(word))): part for word, part in data.items()}
        return Samples(**parts, **keys, **named)
    if isinstance(data, IterableDataset):
        size = named.pop("batch_size", 64)
        return Batches(DataLoader(data, size, collate_fn=collate_pictures), **keys, **named)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        raise UnknownSourceError(
            "Expected a pair of columns, (table['text'], table['label']), or a file, but got a DataFrame."
        )
    if isinstance(data, list) and _are_single(data, keys):
        return Samples(data, **keys, **named)
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and not isinstance(data[0], DataLoader)
    if (pair and _is_column(data[1])) or (hasattr(data, "__getitem__") and _is_dataset(data)):
        return Samples(data, **keys, **named)
    if isinstance(data, Iterable) and not isinstance(data, (Mapping, Tensor, np.ndarray, bytes)):
        return Batches(data, **keys, **named)
    raise UnknownSourceError(f"Expected data to be {_KINDS}, but got {type(data).__name__}.")


def _from_path(path: Path, named: dict[str, Any], keys: dict[str, Any]) -> LightningDataModule:
    if path.is_dir() and any((path / name).is_file() for name in _SAVED):
        return HuggingFace(path, **keys, **named)
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return Shards(path, **keys, **named)
    if is_table(path) and path.is_file():
        return open_table(path, **keys, **named)
    if "group_key" in keys:
        raise ValueError(
            f"Expected argument `groups` to hold one id a sample of {path}, which has no columns to read them from, "
            f"but got {keys['group_key']!r}."
        )
    if path.is_dir():
        return ImageFolder(path, **named)
    if path.suffix.lower() == ".npz" and path.is_file():
        return NpzArrays(path, **named)
    if path.is_file():
        raise ValueError(
            f"Expected {path} to be a folder, a table (.csv, .tsv, .parquet), an .npz file or a .tar shard; a table by "
            "another name is read by `Table(path, label=...)`, `TextTable(path, text=..., label=...)` or "
            "`PictureTable(path, picture=..., label=...)`."
        )
    raise ValueError(f"Expected data to be {_KINDS}, but there is no {str(path)!r}.")


def _from_stream(data: Any, named: dict[str, Any], keys: dict[str, Any]) -> Batches:
    if "group_key" in keys:
        raise ValueError("Expected argument `groups` with data in memory or in batches, but got it with a stream.")
    stream = Stream(data, **keys, class_names=named.pop("class_names", None))
    size = named.pop("batch_size", 64)
    loader: DataLoader[Any] = DataLoader(stream, size, collate_fn=collate_pictures)
    batches = Batches(loader, class_names=stream.class_names, **{"name": "stream", **named})
    batches.names_batches = True  # the columns are no keys of its batches
    return batches


def _is_hugging_face(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets"


def _is_dataset(data: Any) -> bool:
    return isinstance(data, torch.utils.data.Dataset) or (
        hasattr(data, "__len__")
        and not isinstance(data, (DataLoader, Mapping, Tensor, np.ndarray, list, tuple, str, bytes))
    )


def _is_column(values: Any) -> bool:
    """Whether something is the labels of all samples, and no batch."""
    return (isinstance(values, (Tensor, np.ndarray, list)) or hasattr(values, "to_numpy")) and len(values) > 0


def _are_single(data: list[Any], keys: Mapping[str, Any]) -> bool:
    """Whether a list is one of samples in dicts, and not of batches: the first has a single label."""
    if not data or not all(isinstance(sample, Mapping) for sample in data):
        return False
    try:
        label = split_sample(data[0], **keys)[1]
    except ValueError:
        return False
    return isinstance(label, (str, int, float, np.generic)) or (isinstance(label, Tensor) and label.ndim == 0)
