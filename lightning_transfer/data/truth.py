"""Labels and targets as people keep them, made into class ids, zeros and ones, or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.base import round_targets
from lightning_transfer.inputs import Task
from lightning_transfer.utilities.checks import check_targets

TASKS = ("classification", "multilabel", "regression")
_DENSE = "dense outputs (segmentation, detection, one label a token) are not supported here"


@dataclass(frozen=True)
class Truth:
    """What the samples of a data set are scored against.

    Attributes:
        task: What kind of truth it is.
        values: By split class ids ``(n,)`` or zeros and ones ``(n, l)`` in int64, or numbers ``(n, m)``.
        names: Names of the classes, labels or targets.
    """

    task: Task
    values: Mapping[str, Tensor]
    names: tuple[str, ...]

    @property
    def key(self) -> Literal["labels", "targets"]:
        """What a batch calls the values."""
        return "targets" if self.task == "regression" else "labels"


def encode_truth(given: Mapping[str, Any], names: Sequence[str] | None = None, task: str | None = None) -> Truth:
    """Find out what labels or targets are, and number the classes.

    Args:
        given: By split ``n`` values: text, booleans or integers (classes, in the order of their sorted values);
            floating numbers ``(n,)`` or ``(n, m)`` (regression); zeros and ones ``(n, l)`` of any type (several labels
            a sample), or lists of class ids where ``names`` are known. One column counts as none.
        names: Names by class id, or of the columns.
        task: ``"classification"``, ``"multilabel"`` or ``"regression"`` where the values leave a doubt: whole numbers
            that are targets, or classes that are floating.

    Raises:
        ValueError: If the values are nothing of that kind.

    Example:
        >>> from lightning_transfer.data.truth import encode_truth
        >>> truth = encode_truth({"train": ["cat", "dog", "cat"]})
        >>> truth.task, truth.names, truth.values["train"]
        ('classification', ('cat', 'dog'), tensor([0, 1, 0]))
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"Expected argument `task` to be one of {TASKS}, but got {task!r}.")
    if names is not None:
        names = tuple(str(name) for name in names)
    arrays = {split: _as_array(values, names, task) for split, values in given.items()}
    shapes = {array.shape[1:] for array in arrays.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) > 1:
        raise ValueError(
            f"Expected labels or targets of shape (n,) or (n, m), but got (n, ...) with {shapes}; {_DENSE}."
        )
    everything = np.concatenate(list(arrays.values()))
    kind = everything.dtype.kind
    if kind not in "biufU":
        raise ValueError(f"Expected labels or targets to be text or numbers, but got {everything.dtype}; {_DENSE}.")
    kind_of_task = task or _guess(everything)
    if kind_of_task == "regression":
        return _as_targets(arrays, names)
    if kind_of_task == "multilabel":
        return _as_marks(arrays, everything, names)
    return _as_classes(arrays, everything, names)


def _as_array(values: Any, names: Sequence[str] | None, task: str | None) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    if not isinstance(values, np.ndarray):
        values = list(values)
        if values and isinstance(values[0], (list, tuple)) and names is not None and task in (None, "multilabel"):
            values = _mark_ids(values, len(names))
        try:
            values = np.asarray([value.tolist() if isinstance(value, Tensor) else value for value in values])
        except ValueError as error:
            raise ValueError(
                f"Expected labels or targets of one shape, but got {values[0]!r} first; {_DENSE}."
            ) from error
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.flat):
        values = values.astype(np.str_)
    if values.dtype.kind == "O" and any(value is None for value in values.flat):
        raise ValueError("Expected labels or targets to have no gaps, but got None.")
    array: np.ndarray = values
    return array[:, 0] if array.shape[1:] == (1,) else array


def _mark_ids(values: Sequence[Sequence[Any]], count: int) -> Any:
    """Zeros and ones for lists of class ids; what is zeros and ones already stays."""
    if all(len(row) == count and set(row) <= {0, 1} for row in values) and count > 1:
        return values
    marks = np.zeros((len(values), count), np.int64)
    for row, ids in enumerate(values):
        if not all(isinstance(i, (int, np.integer)) and 0 <= i < count for i in ids):
            raise ValueError(f"Expected labels to be class ids below {count}, but got {list(ids)!r:.100}.")
        if len(set(ids)) < len(ids):
            raise ValueError(f"Expected each label of a sample once, but got {list(ids)!r:.100}; {_DENSE}.")
        marks[row, list(ids)] = 1
    return marks


def _guess(values: np.ndarray) -> Task:
    if values.ndim == 2 and values.dtype.kind in "biuf" and bool(np.isin(values, (0, 1)).all()):
        return "multilabel"
    return "regression" if values.dtype.kind == "f" else "classification"


def _as_targets(arrays: Mapping[str, np.ndarray], names: tuple[str, ...] | None) -> Truth:
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ValueError("Expected targets to be numbers, but got text.")
    values = {
        split: check_targets(torch.from_numpy(array.astype(np.float64)), len(array)) for split, array in arrays.items()
    }
    columns = next(iter(values.values())).shape[1]
    default = ("target",) if columns == 1 else tuple(f"target_{i}" for i in range(columns))
    return Truth("regression", round_targets(values), _check_names(names or default, columns))


def _as_marks(arrays: Mapping[str, np.ndarray], everything: np.ndarray, names: tuple[str, ...] | None) -> Truth:
    if everything.ndim != 2 or everything.dtype.kind not in "biuf" or not np.isin(everything, (0, 1)).all():
        raise ValueError(
            f"Expected several labels a sample as zeros and ones (n, l), but got {everything.dtype} values."
        )
    values = {split: torch.from_numpy(array.astype(np.int64)) for split, array in arrays.items()}
    count = everything.shape[1]
    return Truth("multilabel", values, _check_names(names or tuple(str(i) for i in range(count)), count))


def _as_classes(arrays: Mapping[str, np.ndarray], everything: np.ndarray, names: tuple[str, ...] | None) -> Truth:
    if everything.ndim != 1:
        raise ValueError(
            f"Expected class labels (n,) or zeros and ones (n, l), but got (n, {everything.shape[1]}) others; {_DENSE}."
        )
    if everything.dtype.kind == "f":
        if not (np.isfinite(everything).all() and (everything == np.rint(everything)).all()):
            raise ValueError("Expected class labels to be whole numbers, but got others.")
        everything = everything.astype(np.int64)
        arrays = {split: array.astype(np.int64) for split, array in arrays.items()}
    if names is None:
        distinct, ids = np.unique(everything, return_inverse=True)
        names = tuple(str(value) for value in distinct)
    elif everything.dtype.kind == "U":
        numbers = {name: number for number, name in enumerate(names)}
        if unknown := sorted(set(everything.tolist()) - set(numbers)):
            raise ValueError(f"Expected labels to be among {names}, but got {unknown[:5]}.")
        ids = np.array([numbers[name] for name in everything.tolist()], np.int64)
    else:
        ids = everything.astype(np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(names):
            raise ValueError(
                f"Expected labels to be ids from 0 to {len(names) - 1}, but got {ids.min()} to {ids.max()}."
            )
    ends = np.cumsum([len(array) for array in arrays.values()])[:-1]
    parts = np.split(ids.reshape(-1).astype(np.int64), ends)
    values = {split: torch.from_numpy(part) for split, part in zip(arrays, parts, strict=True)}
    return Truth("classification", values, _check_names(names, len(names)))


def _check_names(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    if len(names) != count or len(set(names)) < count:
        raise ValueError(f"Expected {count} different names, but got {names}.")
    return names
