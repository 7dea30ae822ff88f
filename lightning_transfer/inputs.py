"""The vocabulary: what a score may read, what a batch of anybody's data holds, and what follows from the logits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, Literal, get_args

from torch import Tensor

from lightning_transfer.pictures import Prepared, is_pictures
from lightning_transfer.utilities.groups import read_groups
from lightning_transfer.utilities.notice import warn_user

Task = Literal["classification", "multilabel", "regression"]
Key = str | int  # of an entry in a batch
#: What a score may read, by the names that every ``update`` takes.
INPUTS = ("features", "labels", "targets", "source_outputs", "source_probs", "source_labels")
#: Those of them that are made of the logits ``(n, k)`` of the original head.
SOURCE_INPUTS = INPUTS[3:]
#: What a batch calls the ids of samples that belong together, beside what scores read.
GROUPS = "groups"

INPUT_KEYS = (
    "inputs", "input", "image", "images", "img", "imgs", "x", "features", "pixel_values", "input_values",
    "input_features", "text", "audio", "jpg", "jpeg", "png", "webp", "data",
)  # fmt: skip
LABEL_KEYS = (
    "labels", "label", "targets", "target", "y", "class", "classes", "cls", "category", "fine_label", "label_ids",
    "class_id", "coarse_label", "mask",
)  # fmt: skip
_AMONG_TOKENS = "mask"  # what a tokeniser may give too
_STRUCTURE = "a tensor, a pair or a dict with inputs"

_TASK_WORDS: dict[str, Task] = {
    **dict.fromkeys(("", "class", "multiclass", "binary", "singlelabel", "image", "text", "audio"), "classification"),
    **dict.fromkeys(("multilabel", "multihot"), "multilabel"),
    "regression": "regression",
}


def split_batch(
    batch: Any, *, input_key: Key | None = None, label_key: Key | None = None, group_key: Key | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Take a batch apart into the inputs of the network and what they are scored against.

    Args:
        batch: ``{"inputs": ..., "labels" | "targets": ...}`` as datamodules of this package give it; another dict with
            usual names (``image``, ``x``, ``pixel_values``, ``label``, ``y``, ``class``, ...); tokenised text with
            ``input_ids`` (all other entries stay together); a pair ``(inputs, labels)``, where ``labels`` may be a dict
            too; or inputs alone: a tensor, a list of texts or of pictures.
        input_key: Key of the inputs in the batch, or their position in a tuple, where the usual names do not do.
        label_key: Key or position of the labels or targets.
        group_key: Key or position of what tells samples apart that belong together: whole numbers or text. Nothing is
            taken for it unless it is given.

    Returns:
        The inputs, and a dict with ``labels`` (int64), ``targets`` (floating values) or neither, and with ``group_key``
        the ids ``groups`` (int64).

    Raises:
        ValueError: If no inputs are found, or nothing under a key; the message lists the keys that there are.

    Example:
        >>> import torch
        >>> from lightning_transfer.inputs import split_batch
        >>> inputs, labels = split_batch((torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])))
        >>> inputs.shape, labels
        (torch.Size([2, 3, 8, 8]), {'labels': tensor([0, 1])})
        >>> split_batch({"image": torch.zeros(1, 2), "species": torch.tensor([7])}, label_key="species")[1]
        {'labels': tensor([7])}
    """
    inputs = _find_inputs(batch) if input_key is None else pick(batch, input_key, "input_key")
    rest = batch if group_key is None else _without_entry(batch, group_key)
    values = _find_labels(rest) if label_key is None else pick(batch, label_key, "label_key")
    inputs = _without_keys(inputs, label_key, group_key)
    named: dict[str, Tensor] = {}
    if isinstance(values, Tensor):
        named = {"targets": values} if values.is_floating_point() else {"labels": values.long()}
    if group_key is not None:
        found = pick(batch, group_key, "group_key")
        groups = read_groups(found, name=str(group_key))
        named[GROUPS] = groups.to(found.device) if isinstance(found, Tensor) else groups
    return inputs, named


def names_targets(batch: Any) -> bool:
    """Whether what a batch is scored against lies under the key ``targets``: real values, whole numbers or not.

    Args:
        batch: As for :func:`split_batch`.
    """
    if isinstance(batch, (list, tuple)) and len(batch) > 1:
        batch = batch[1]
    return isinstance(batch, Mapping) and next((name for name in LABEL_KEYS if name in batch), None) == "targets"


def split_sample(
    sample: Any, *, input_key: Key | None = None, label_key: Key | None = None, group_key: Key | None = None
) -> tuple[Any, Any]:
    """Take one sample of a data set apart, as :func:`split_batch` does with batches.

    Args:
        sample: A dict with usual names, a pair ``(input, label)``, or an input alone.
        input_key: Key or position of the input, where the usual names do not do.
        label_key: Key or position of the label or target.
        group_key: Key or position of what tells samples apart that belong together: no part of the input.

    Returns:
        The input and the label as they are; ``None`` for a label that is not found.

    Raises:
        ValueError: If no input is found, or nothing under a key; the message lists the keys that there are.

    Example:
        >>> from lightning_transfer.inputs import split_sample
        >>> split_sample({"text": "a fine day", "mood": "good"}, label_key="mood")
        ('a fine day', 'good')
    """
    if isinstance(sample, (list, tuple)) and sample:
        first, second = sample[0], sample[1] if len(sample) > 1 else None
        label = _find_labels(second) if isinstance(second, Mapping) else second
    else:
        first = _find_inputs(sample) if isinstance(sample, Mapping) and input_key is None else sample
        label = _find_labels(sample)
    inputs = first if input_key is None else pick(sample, input_key, "input_key")
    label = label if label_key is None else pick(sample, label_key, "label_key")
    return _without_keys(inputs, label_key, group_key), label


def match_labels(named: Mapping[str, Tensor], wanted: str | None) -> dict[str, Tensor]:
    """Give what a batch is scored against the name that the task calls for.

    Classes come as floating values too (0 and 1 for a binary cross-entropy), and real targets as whole numbers.

    Args:
        named: ``labels`` or ``targets`` of :func:`split_batch`.
        wanted: ``"labels"``, ``"targets"``, or ``None`` where either will do.

    Returns:
        The values by that name, in int64 or in floating point; groups stay beside them.

    Raises:
        ValueError: If values that are no whole numbers should be labels.

    Example:
        >>> import torch
        >>> from lightning_transfer.inputs import match_labels
        >>> match_labels({"targets": torch.tensor([[0.0, 1.0]])}, "labels")
        {'labels': tensor([[0, 1]])}
    """
    if wanted == "labels" and "targets" in named:
        values = named["targets"]
        labels = values.long()
        if not bool((labels == values).all()):
            raise ValueError(
                "Expected labels to be whole numbers (classes, or 0 and 1), but got other values; "
                '`task = "regression"` of the datamodule or the module makes them targets.'
            )
        return {**_without(named, "targets"), "labels": labels}
    if wanted == "targets" and "labels" in named:
        values = named["labels"]
        values = values.float() if values.device.type == "mps" else values.double()  # it has no float64
        return {**_without(named, "labels"), "targets": values}
    return dict(named)


def _without(named: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: values for other, values in named.items() if other != name}


def needs_of(metric: Any) -> tuple[str, ...]:
    """Names among :data:`INPUTS` that a metric cannot do without: what it ``requires``, or its ``update`` asks for.

    Args:
        metric: Any object with an ``update``.
    """
    if getattr(metric, "requires", ()):
        return tuple(metric.requires)
    parameters = signature(metric.update).parameters
    return tuple(name for name in INPUTS if name in parameters and parameters[name].default is Parameter.empty)


def wanted_labels(needs: Iterable[str]) -> str | None:
    """Which of ``labels`` and ``targets`` is called for; ``None`` where none is, or both are.

    Args:
        needs: Names of inputs, see :func:`needs_of`.
    """
    kinds = {"labels", "targets"} & set(needs)
    return kinds.pop() if len(kinds) == 1 else None


def keys_of(
    data: object,
    input_key: Key | None = None,
    label_key: Key | None = None,
    group_key: Key | None = None,
    *,
    own_first: bool = False,
) -> dict[str, Any]:
    """The keywords of :func:`split_batch` for some data, which may have attributes of that name.

    Args:
        data: A datamodule or a loader.
        input_key: Key of the inputs.
        label_key: Key of the labels or targets.
        group_key: Key of the groups; the keyword is there only if one is given or the data have one.
        own_first: The attributes of the data come before the arguments (as for a reference, where these are about a
            target in the first place) and not after them.

    Data that name their batches themselves (``names_batches``: the datamodules of this package) need no keys, and what
    they call their columns is no key of a batch.
    """
    if getattr(data, "names_batches", False):
        own = getattr(data, "group_key", None)
        return {"input_key": None, "label_key": None, **({} if own is None else {"group_key": own})}
    keys = {}
    for name, given in {"input_key": input_key, "label_key": label_key, "group_key": group_key}.items():
        attribute = getattr(data, name, None)
        first, second = (attribute, given) if own_first else (given, attribute)
        keys[name] = second if first is None else first
    if keys["group_key"] is None:
        del keys["group_key"]
    return keys


def describe_batch(batch: Any) -> str:
    """What a batch holds, in words: the keys of a dict, or the number of entries.

    Args:
        batch: Any batch.
    """
    if isinstance(batch, Mapping):
        return f"the keys {sorted(map(str, batch))}"
    if isinstance(batch, (list, tuple)):
        return f"{len(batch)} entries"
    return f"one {type(batch).__name__}"


def task_of(*owners: object) -> Task:
    """The kind of task that a datamodule or a module says it has, by its attribute ``task``.

    Usual words for one of the three kinds mean that kind (``"multiclass"``, ``"binary"``, ``"multi-label"``, ...). With
    any other word (``"mrpc"``) it is classification, and a warning says so.

    Args:
        owners: Asked in this order; those without the attribute are passed over.

    Example:
        >>> from types import SimpleNamespace
        >>> from lightning_transfer.inputs import task_of
        >>> task_of(None, SimpleNamespace(task="multi-label")), task_of(None)
        ('multilabel', 'classification')
    """
    words = [word for owner in owners if (word := getattr(owner, "task", None)) is not None]
    for word in words:
        letters = re.sub("[^a-z]", "", str(word).lower())
        if (kind := _TASK_WORDS.get(letters.removesuffix("classification"))) is not None:
            return kind
    if words:
        message = f"The task {words[0]!r} is none of {get_args(Task)}: it is taken for classification."
        warn_user(message)
    return "classification"


def derive_source_inputs(logits: Tensor, names: Collection[str] = SOURCE_INPUTS) -> dict[str, Tensor]:
    """Make the inputs of scores that follow from the outputs of the original head.

    Args:
        logits: Shape ``(n, k)``, floating point.
        names: Which of ``source_outputs`` (the logits), ``source_probs`` (their softmax) and ``source_labels`` (their
            argmax, int64) are wanted; other names are passed over.

    Returns:
        The wanted ones by name.

    Example:
        >>> import torch
        >>> from lightning_transfer.inputs import derive_source_inputs
        >>> derive_source_inputs(torch.tensor([[0.0, 1.0]]), ["source_labels"])
        {'source_labels': tensor([1])}
    """
    makers = {
        "source_outputs": lambda: logits,
        "source_probs": lambda: logits.softmax(dim=1),
        "source_labels": lambda: logits.argmax(dim=1),
    }
    return {name: make() for name, make in makers.items() if name in names}


def batch_size(
    batch: Any, input_key: Key | None = None, label_key: Key | None = None, group_key: Key | None = None
) -> int:
    """Number of samples of a batch; keys as for :func:`split_batch`."""
    inputs, named = split_batch(batch, input_key=input_key, label_key=label_key, group_key=group_key)
    some = next(iter(named.values()), inputs)
    return len(next(iter(some.values())) if isinstance(some, Mapping) else some)


def first_samples(batch: Any, n: int, size: int) -> Any:
    """The first ``n`` samples of a batch of ``size``; entries that are not one a sample stay as they are."""
    if isinstance(batch, Mapping):
        return {name: first_samples(value, n, size) for name, value in batch.items()}
    if isinstance(batch, (Tensor, Prepared)):
        return batch[:n] if batch.ndim and len(batch) == size else batch
    if isinstance(batch, (list, tuple)):
        if any(isinstance(entry, (Tensor, Mapping, list, tuple)) for entry in batch):
            return [first_samples(entry, n, size) for entry in batch]
        return batch[:n] if len(batch) == size else batch
    return batch


def _find_inputs(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        if "input_ids" in batch:
            labels = set(LABEL_KEYS) - {_AMONG_TOKENS}
            return {name: value for name, value in batch.items() if name not in labels and isinstance(value, Tensor)}
        key = next((name for name in INPUT_KEYS if name in batch), None)
        if key is not None:
            return batch[key]
        raise ValueError(
            f"Expected a batch to have inputs under one of the keys {INPUT_KEYS}, but got {describe_batch(batch)}; "
            "`input_key` says which it is."
        )
    if isinstance(batch, (list, tuple)) and batch:
        return batch if _is_one_column(batch) else batch[0]
    if isinstance(batch, (Tensor, Prepared)):
        return batch
    raise ValueError(f"Expected a batch to be {_STRUCTURE}, but got {type(batch).__name__}.")


def _is_one_column(batch: Sequence[Any]) -> bool:
    """Whether a list is one text or picture a sample, not one entry a column."""
    return isinstance(batch[0], str) or is_pictures(batch)


def _without_keys(inputs: Any, *keys: Key | None) -> Any:
    """Inputs that are a dict themselves, without what lies under other keys."""
    apart = {key for key in keys if key is not None}
    if not isinstance(inputs, Mapping) or apart.isdisjoint(inputs):
        return inputs
    return {name: value for name, value in inputs.items() if name not in apart}


def _find_labels(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        passed_over = _AMONG_TOKENS if "input_ids" in batch else None
        return next((batch[name] for name in LABEL_KEYS if name in batch and name != passed_over), None)
    if not isinstance(batch, (list, tuple)) or len(batch) < 2 or _is_one_column(batch):
        return None
    if isinstance(batch[1], Mapping):
        return _find_labels(batch[1])
    _warn_of_choice(batch)
    return batch[1]


def _warn_of_choice(batch: Sequence[Any]) -> None:
    """Say so where another entry than the second may be the labels, as in ``(inputs, index, label)``."""
    entries = {place: entry for place, entry in enumerate(batch) if place and isinstance(entry, Tensor) and entry.ndim}
    whole = [place for place, entry in entries.items() if not entry.is_floating_point()]
    if len(whole) > 1 or (whole and 1 in entries and 1 not in whole):
        warn_user(
            f"Batches have {len(batch)} entries, of which {sorted({1, *whole})} may be the labels: entry 1 is taken. "
            "`label_key` says which it is."
        )


def _without_entry(batch: Any, key: Key) -> Any:
    """A batch without the entry under a key, so that it is not taken for the labels."""
    if isinstance(batch, Mapping):
        return {name: entry for name, entry in batch.items() if name != key}
    if isinstance(batch, (list, tuple)) and isinstance(key, int) and -len(batch) <= key < len(batch):
        return [entry for place, entry in enumerate(batch) if place != key % len(batch)]
    if isinstance(batch, (list, tuple)) and not _is_one_column(batch):
        return [_without_entry(entry, key) if isinstance(entry, Mapping) else entry for entry in batch]
    return batch


def pick(batch: Any, key: Key, argument: str) -> Any:
    """The entry of a batch or a sample under a key, also of a dict in a tuple.

    Args:
        batch: A dict, or a tuple.
        key: Name or position.
        argument: What the key is called in messages.

    Raises:
        ValueError: If there is no such entry.
    """
    if isinstance(key, int) and isinstance(batch, (list, tuple)) and -len(batch) <= key < len(batch):
        return batch[key]
    places = [batch, *batch] if isinstance(batch, (list, tuple)) else [batch]
    dicts = [place for place in places if isinstance(place, Mapping)]
    for entries in dicts:
        if key in entries:
            return entries[key]
    held = " and ".join(
        [describe_batch(batch), *(describe_batch(entries) for entries in dicts if entries is not batch)]
    )
    raise ValueError(f"Expected argument `{argument}` to say where a batch has it, which has {held}, but got {key!r}.")
