"""Data sets of Hugging Face's ``datasets``: in memory, saved to a folder, or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset

from lightning_transfer.data.base import split_of
from lightning_transfer.data.samples import Found, LazyInputs, SampleModule, as_input
from lightning_transfer.data.truth import encode_truth
from lightning_transfer.inputs import INPUT_KEYS, LABEL_KEYS
from lightning_transfer.passes import Peekable
from lightning_transfer.utilities.files import check_folder_is_regular
from lightning_transfer.utilities.imports import require


class HuggingFace(SampleModule):
    """A data set of the library ``datasets`` (needs ``pip install lightning-transfer[datasets]``).

    The column of the inputs is the only one of pictures, else one with a usual name (``image``, ``text``, ...), else
    the only one of text; that of the labels is the only one of class labels, else one with a usual name (``label``,
    ...). Names of classes come from the column. Pictures, texts and numbers are read when they are asked for.

    Args:
        data: A ``Dataset``, a ``DatasetDict`` with ``train`` (and ``validation`` or ``test``), or the folder that
            ``save_to_disk`` wrote one of them to.
        input_key: Column of the inputs.
        label_key: Column of the labels or targets.
        group_key: Column that says which samples belong together (a patient, a document), as whole numbers or text.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``; by default what the labels look like.
        class_names: Names by class id, where the column has none.
        val_fraction: Share of the training samples for validation where it is drawn.
        test_fraction: Share of the training samples for the test where it is drawn.
        on_error: What a sample does that cannot be read: ``"raise"`` when its turn comes, or ``"skip"``.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If the data are something else, columns are unknown or not clear, or the inputs are audio (on
            reading).
        ModuleNotFoundError: If ``datasets`` is not installed.
    """

    default_name = "hugging_face"

    def __init__(
        self,
        data: Any,
        input_key: str | None = None,
        label_key: str | None = None,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        on_error: str = "raise",
        group_key: str | None = None,
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
        self.data = Path(data) if isinstance(data, str) else data
        self.call_after(self.data)

    def read(self, remarks: list[str]) -> Found:
        """Find the columns and the labels of all samples."""
        data = _load(self.data) if isinstance(self.data, Path) else self.data
        parts = _name_splits(data if isinstance(data, Mapping) else {"train": data})
        for part in parts.values():
            if not hasattr(part, "select_columns") or not hasattr(part, "__len__"):
                raise ValueError(
                    f"Expected argument `data` to be a `Dataset` of datasets, but got {type(part).__name__}."
                )
        features = parts["train"].features
        input_key, label_key = find_columns(
            {name: kind for name, kind in features.items() if name != self.groups}, **self.keys
        )
        found = Found(names=names_of_column(features[label_key]))
        for split, part in parts.items():
            for key in (input_key, label_key, self.groups):
                if key is not None and key not in part.column_names:
                    raise ValueError(f"Expected split {split!r} to have a column {key!r}, but got {part.column_names}.")
            plain = part if part.format["type"] == "custom" else part.with_format(None).select_columns([input_key])
            labels = part.with_format(None).select_columns([label_key])[:][label_key]
            groups = None
            if self.groups is not None:
                groups = part.with_format(None).select_columns([self.groups])[:][self.groups]
            inputs = LazyInputs(plain, Column(input_key))
            self.keep_readable(found, inputs, labels, split, remarks, groups=groups)
        return found


class Column:
    """From a row to the value in one column."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The value."""
        return row[self.name]


class Stream(IterableDataset[dict[str, Any]]):
    """A streamed data set of ``datasets`` as samples of this package, in the order in which they come.

    Args:
        data: An ``IterableDataset`` of the library.
        input_key: Column of the inputs; see :class:`HuggingFace` for the default.
        label_key: Column of the labels or targets.
        class_names: Names of the classes where labels are text: a stream does not know which are to come.

    Raises:
        ValueError: If columns are unknown or not clear, or labels are text without ``class_names``.
    """

    def __init__(
        self,
        data: Any,
        input_key: str | None = None,
        label_key: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.data = Peekable(data)
        features = data.features or dict.fromkeys(next(iter(self.data.peek()), ()))
        self.input_key, self.label_key = find_columns(features, input_key, label_key)
        its_names = class_names or names_of_column(features[self.label_key])
        self.class_names = None if its_names is None else tuple(its_names)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give one sample after the other."""
        for row in self.data:
            label = row[self.label_key]
            if isinstance(label, str) and self.class_names is None:
                raise ValueError(
                    f"Expected column {self.label_key!r} of a stream to hold class ids or numbers, but got {label!r}; "
                    "argument `class_names` numbers the classes."
                )
            if isinstance(label, int):
                yield {"inputs": as_input(row[self.input_key]), "labels": torch.tensor(int(label))}
            else:
                truth = encode_truth({"train": [label]}, None if isinstance(label, float) else self.class_names)
                yield {"inputs": as_input(row[self.input_key]), truth.key: truth.values["train"][0]}


def find_columns(features: Mapping[str, Any], input_key: Any, label_key: Any) -> tuple[str, str]:
    """Find the columns of inputs and labels by their types and names.

    Args:
        features: Types of the columns by name.
        input_key: Column of the inputs where it is known.
        label_key: Column of the labels where it is known.

    Raises:
        ValueError: If a column is unknown or it is not clear which is meant; the message lists all.
    """
    kinds = {name: _kind(feature) for name, feature in features.items()}
    listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    for argument, key in (("input_key", input_key), ("label_key", label_key)):
        if key is not None and key not in kinds:
            raise ValueError(f"Expected argument `{argument}` to name one of the columns {listed}, but got {key!r}.")
    if label_key is None:
        label_key = _only(kinds, ("ClassLabel",)) or next((name for name in LABEL_KEYS if name in kinds), None)
    rest = {name: kind for name, kind in kinds.items() if name != label_key}
    if input_key is None:
        named = next((name for name in INPUT_KEYS if name in rest), None)
        input_key = _only(rest, ("Image",)) or named or _only(rest, ("string", "large_string"))
        if input_key is None and "Audio" in rest.values():
            raise ValueError(
                f"Expected a column of pictures, numbers or text, but got {listed}; audio is not supported."
            )
    for argument, key in (("input_key", input_key), ("label_key", label_key)):
        if key is None:
            raise ValueError(f"Expected argument `{argument}` to say which of the columns is meant: {listed}.")
    if kinds[input_key] == "Audio":
        raise ValueError(f"Expected column {input_key!r} to hold pictures, numbers or text; audio is not supported.")
    return input_key, label_key


def names_of_column(feature: Any) -> list[str] | None:
    """Names of the classes of a column of class labels (or of lists of them); ``None`` for other columns."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if isinstance(names, (list, tuple)) else None


def _kind(feature: Any) -> str:
    name = type(feature).__name__
    return str(feature.dtype) if name == "Value" else name


def _only(kinds: Mapping[str, str], wanted: tuple[str, ...]) -> str | None:
    fitting = [name for name, kind in kinds.items() if kind in wanted]
    return fitting[0] if len(fitting) == 1 else None


def _load(folder: Path) -> Any:
    datasets = require("datasets", extra="datasets")
    if not folder.is_dir():
        raise ValueError(f"Expected argument `data` to be a folder that `save_to_disk` wrote, but got {str(folder)!r}.")
    check_folder_is_regular(folder)
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # damaged files raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"Expected {folder} to be a folder that `save_to_disk` wrote, but got: {reason}") from error


def _name_splits(parts: Mapping[Any, Any]) -> dict[str, Any]:
    """Splits by the names of this package; others are passed over if there is a training split."""
    named: dict[str, Any] = {}
    for word, part in parts.items():
        split = split_of(str(word))
        if split in named:
            raise ValueError(f"Expected one data set a split, but got {sorted(map(str, parts))}.")
        if split is not None:
            named[split] = part
    if "train" not in named:
        raise ValueError(f"Expected the splits to have `train` among them, but got {sorted(map(str, parts))}.")
    return named
