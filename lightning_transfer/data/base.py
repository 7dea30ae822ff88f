"""The datamodule that every target and reference is: splits, class choice, subsampling and loaders in one place."""

from __future__ import annotations

import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from lightning_transfer.data.sampling import grouped_order, stratified_order
from lightning_transfer.inputs import GROUPS, Key, Task
from lightning_transfer.pictures import KeptPictures, collate_pictures, is_pictures
from lightning_transfer.utilities.checks import check_in_interval, check_one_of, check_positive_int, check_seed
from lightning_transfer.utilities.digest import combine_digests, digest
from lightning_transfer.utilities.groups import number_groups, read_groups
from lightning_transfer.utilities.notice import warn_user

SPLITS = ("train", "val", "test")
_SPLIT_WORDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_ENDINGS = frozenset({".bz2", ".csv", ".gz", ".npz", ".parquet", ".pq", ".tsv", ".xz", ".zip"})
_LOOKED_AT = 16  # inputs of a split whose values tell one set from another


class Inputs(Protocol):
    """What a dataset needs of its inputs: a tensor has it, and so have images that stay on disk."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: Tensor) -> Inputs: ...


class TransferDataset(Dataset[dict[str, Tensor]]):
    """Inputs with their truth; a sample is ``{"inputs": ..., "labels": ...}`` or ``{"inputs": ..., "targets": ...}``.

    Args:
        inputs: ``n`` inputs: uint8 images ``(n, c, h, w)`` or float32 vectors ``(n, d)``.
        truth: ``n`` labels (int64) or targets (float32; float64 where that would round too much away).
        key: What the truth is called in a sample: ``"labels"`` or ``"targets"``.
        groups: Ids of samples that belong together, int64 ``(n,)``; a sample then has ``"groups"`` too.

    Raises:
        ValueError: If inputs, truth and groups differ in number.

    Example:
        >>> import torch
        >>> from lightning_transfer.data.base import TransferDataset
        >>> TransferDataset(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), "labels")[1]
        {'inputs': tensor([0., 0.]), 'labels': tensor(1)}
    """

    def __init__(
        self, inputs: Inputs, truth: Tensor, key: Literal["labels", "targets"], groups: Tensor | None = None
    ) -> None:
        for name, values in ((key, truth), (GROUPS, groups)):
            if values is not None and len(inputs) != len(values):
                raise ValueError(f"Expected as many `{name}` as inputs ({len(inputs)}), but got {len(values)}.")
        self.inputs = inputs
        self.truth = truth
        self.key = key
        self.groups = groups

    @property
    def answers(self) -> Tensor:
        """Deprecated name of :attr:`truth`."""
        warnings.warn("`answers` of a data set is called `truth`.", DeprecationWarning, stacklevel=2)
        return self.truth

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = {"inputs": self.inputs[index], self.key: self.truth[index]}
        return sample if self.groups is None else {**sample, GROUPS: self.groups[index]}

    def select(self, indices: Tensor) -> TransferDataset:
        """Keep the samples with the given indices, in that order."""
        groups = None if self.groups is None else self.groups[indices]
        return TransferDataset(self.inputs[indices], self.truth[indices], self.key, groups)

    def originals(self) -> TransferDataset:
        """The same samples with pictures as they lie on disk as inputs; the data set itself where it has none."""
        originals = getattr(self.inputs, "originals", None)
        return self if originals is None else self.with_inputs(originals())

    def keeping(self, kept: KeptPictures) -> TransferDataset:
        """The same samples, of which decoded pictures are kept; the data set itself where it decodes none."""
        keeping = getattr(self.inputs, "keeping", None)
        return self if keeping is None else self.with_inputs(keeping(kept))

    def with_inputs(self, inputs: Any) -> TransferDataset:
        """Give the same samples other inputs."""
        dataset = copy(self)
        dataset.inputs = inputs
        return dataset

    def relabel(self, truth: Tensor) -> TransferDataset:
        """Give the same inputs another truth."""
        return TransferDataset(self.inputs, truth, self.key, self.groups)


@dataclass(frozen=True)
class LoadedData:
    """What a datamodule reads: its splits before classes are chosen and samples left out.

    Attributes:
        task: What the truth is.
        splits: Datasets by the names ``train``, ``val`` and ``test``; the last two may be missing.
        names: Names of the classes, of the labels (multi-label) or of the regression targets.
        remarks: What a reader of the scores should know, such as what was left out.
    """

    task: Task
    splits: Mapping[str, TransferDataset]
    names: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class TransferDataModule(LightningDataModule, ABC):
    """Base of all targets and references; a subclass says in :meth:`load` what its splits are.

    Batches are dictionaries with ``inputs`` (uint8 images ``(b, c, h, w)`` or float32 vectors ``(b, d)``) and
    ``labels`` (int64 ``(b,)``; ``(b, l)`` of 0 and 1 for several labels a sample) or ``targets`` (``(b, m)``, float32,
    or float64 where float32 would round away more than a hundred-thousandth of their standard deviation).
    Data are read once, when :meth:`setup` or any attribute first needs them. No global random state is used.

    Args:
        batch_size: Samples a batch.
        num_workers: Worker processes of every loader; they persist between epochs.
        seed: Seed of splits, subsamples and the order of training batches.
        classes: Classes to keep, by id or name; ids are renumbered from 0 in the given order. For multi-label data
            the labels to keep. ``None`` keeps all.
        max_samples: Size of a stratified subsample of the training split; larger subsamples with the same seed contain
            smaller ones. ``None`` keeps all.
        name: Name in tables and files; by default that of the data set, or of the folder or file of your own.

    Raises:
        ValueError: For a bad argument here, and for data without samples or with one class only once they are read.

    Example:
        >>> from lightning_transfer.data import Digits
        >>> data = Digits(classes=[3, "8"], max_samples=100)
        >>> data.class_names, len(data.train_dataset), data.input_shape
        (('3', '8'), 100, (1, 8, 8))
        >>> batch = next(iter(data.predict_dataloader()))
        >>> batch["inputs"].dtype, batch["labels"].shape
        (torch.uint8, torch.Size([64]))
    """

    default_name = "data"
    names_batches = True  # batches have inputs and labels or targets, whatever the data call them
    reads_groups = False  # whether `load` finds the groups of samples under the name `groups`
    groups: Key | None = None  # where samples say which of them belong together

    def __init__(
        self,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        classes: Sequence[int | str] | None = None,
        max_samples: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = check_positive_int(batch_size, "batch_size")
        self.num_workers = check_positive_int(num_workers, "num_workers", minimum=0)
        self.seed = check_seed(seed)
        if isinstance(classes, (str, bytes)) or not (classes is None or isinstance(classes, Sequence)):
            raise ValueError(f"Expected argument `classes` to be a list of ids or names, but got {classes!r}.")
        self.classes = None if classes is None else list(classes)
        self.max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples")
        self.name = name or self.default_name
        self.named_after_path = False
        self._is_named = bool(name)

    def call_after(self, path: Any) -> None:
        """Take the name of a folder or file, without its ending, where no name was given.

        Args:
            path: Where the data lie; a folder or file of a split stands for what it lies in. Anything else is no name.
        """
        if self._is_named or not isinstance(path, str | Path):
            return
        place = Path(os.path.abspath(os.path.expanduser(path)))
        names = (_without_endings(part.name) for part in (place, *place.parents))
        if name := next((name for name in names if name and not split_of(name)), ""):
            self.name, self.named_after_path = name, True

    @abstractmethod
    def load(self) -> LoadedData:
        """Read all samples and split them; called once in a process."""

    def setup(self, stage: str | None = None) -> None:
        """Read the data, if that has not happened yet.

        Args:
            stage: Lightning's stage; all splits are made at every stage.

        Raises:
            ValueError: If the data are missing, malformed, empty or hold one class only.
        """
        _ = self._data

    @cached_property
    def _data(self) -> LoadedData:
        try:
            return self._read_data()
        except ValueError as error:
            arguments = vars(self)
            places = [*map(arguments.get, ("path", "root", "data")), *arguments.get("paths", {}).values()]
            named = [str(place) for place in places if isinstance(place, str | Path)]
            if not named or any(Path(place).name in str(error) for place in named):
                raise
            raise ValueError(f"{error} ({', '.join(named)})") from error

    def _read_data(self) -> LoadedData:
        data = self.load()
        if not isinstance(data, LoadedData):
            raise ValueError(
                f"Expected `load` of {type(self).__name__} to return a LoadedData(task, splits, names), but got "
                f"{type(data).__name__}; for inputs and labels in memory `Samples((inputs, labels))` is a datamodule."
            )
        for remark in data.remarks:
            warn_user(f"{self.name}: {remark}")
        if self.classes is not None:
            data = choose_classes(data, self.classes)
        data = replace(data, splits={split: dataset for split, dataset in data.splits.items() if len(dataset)})
        if "train" not in data.splits:
            raise ValueError(f"Expected the training split of `{self.name}` to hold samples, but got none.")
        if data.task == "classification":
            present = data.splits["train"].truth.unique()
            if len(present) < 2:
                class_names = [data.names[int(label)] for label in present]
                raise ValueError(
                    f"Expected the training split of `{self.name}` to hold at least two classes, but got {class_names}."
                )
        return self._subsample(data)

    def _subsample(self, data: LoadedData) -> LoadedData:
        train = data.splits["train"]
        if self.max_samples is None or self.max_samples >= len(train):
            return data
        if data.task == "classification" and self.max_samples < len(train.truth.unique()):
            raise ValueError(
                f"Expected argument `max_samples` to be at least the number of classes "
                f"({len(train.truth.unique())}), but got {self.max_samples}."
            )
        order = stratified_order(train.truth, self.seed, every_class_first=True)
        kept = train.select(order[: self.max_samples].sort().values)
        return replace(data, splits={**data.splits, "train": kept})

    @property
    def group_key(self) -> str | None:
        """What batches call the ids of samples that belong together; ``None`` where nobody asked for them."""
        return None if self.groups is None else GROUPS

    def with_groups(self, groups: Any, split: str = "train") -> TransferDataModule:
        """The same data, in which samples belong together.

        Args:
            groups: The group of each sample of the split, in its order (whole numbers or text); or the name of the
                column or key under which the data have it, where :attr:`reads_groups` is true.
            split: ``"train"``, ``"val"`` or ``"test"``: the split that ids are of. Samples of the others are groups of
                their own, as long as they have no ids.

        Raises:
            ValueError: If ids are missing, not as many as samples, or all the same, or the data have no columns.

        Example:
            >>> from lightning_transfer.data import Digits
            >>> data = Digits(max_samples=10).with_groups([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
            >>> data.train_dataset.groups
            tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
        """
        part = copy(self)
        if isinstance(groups, (str, int)):
            if not self.reads_groups:
                raise ValueError(
                    f"Expected argument `groups` to hold one id a sample of `{self.name}`, which has no columns to "
                    f"read them from, but got {groups!r}."
                )
            part.groups = groups
            part.__dict__.pop("_data", None)
            return part
        dataset = self.split_dataset(split)
        numbers = number_groups(read_groups(groups, len(dataset)))[0]
        split = "train" if split == "predict" else split
        grouped = {split: TransferDataset(dataset.inputs, dataset.truth, dataset.key, numbers)}
        for other, rest in self._data.splits.items():  # whose batches are asked for groups too
            if other != split and rest.groups is None:
                grouped[other] = TransferDataset(rest.inputs, rest.truth, rest.key, torch.arange(len(rest)))
        part.groups = GROUPS
        part.__dict__["_data"] = replace(self._data, splits={**self._data.splits, **grouped})
        return part

    @property
    def task(self) -> Task:
        """``"classification"``, ``"multilabel"`` or ``"regression"``."""
        return self._data.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by id (of the labels by column, for multi-label data); empty for regression."""
        return () if self.task == "regression" else self._data.names

    @property
    def num_classes(self) -> int | None:
        """Number of classes or labels; ``None`` for regression."""
        return None if self.task == "regression" else len(self._data.names)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the regression targets by column; empty for other tasks."""
        return self._data.names if self.task == "regression" else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the scores should know, such as which pictures were left out."""
        return self._data.remarks

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input: ``(c, h, w)`` or ``(d,)``; of a picture as it is, in RGB; ``()`` of text."""
        first: Any = self.train_dataset[0]["inputs"]
        return (3, first.height, first.width) if is_pictures([first]) else tuple(getattr(first, "shape", ()))

    @property
    def train_dataset(self) -> TransferDataset:
        """The training split, after classes are chosen and samples left out."""
        return self._data.splits["train"]

    @property
    def val_dataset(self) -> TransferDataset | None:
        """The validation split, or ``None`` where there is none."""
        return self._data.splits.get("val")

    @property
    def test_dataset(self) -> TransferDataset | None:
        """The test split, or ``None`` where there is none."""
        return self._data.splits.get("test")

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Training batches in a seeded random order that changes from epoch to epoch.

        A last batch of one sample, of which batch normalisation has no variance, is left out: another one each epoch.
        """
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]] | list[Any]:
        """Validation batches; an empty list where there is no validation split."""
        return self._loader(self.val_dataset) if self.val_dataset is not None else []

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]] | list[Any]:
        """Test batches; an empty list where there is no test split."""
        return self._loader(self.test_dataset) if self.test_dataset is not None else []

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Batches of the training split in fixed order: what scores are computed on."""
        return self.split_dataloader("predict")

    def split_dataloader(self, split: str) -> DataLoader[dict[str, Tensor]]:
        """Batches of one split in fixed order; see :meth:`split_dataset`."""
        return self._loader(self.split_dataset(split))

    def split_dataset(self, split: str) -> TransferDataset:
        """The samples of one split.

        Args:
            split: ``"train"``, ``"val"``, ``"test"``, or ``"predict"``, which is the training split.

        Raises:
            ValueError: If there is no such split.
        """
        check_one_of(split, (*SPLITS, "predict"), "split")
        split = "train" if split == "predict" else split
        if split not in self._data.splits:
            raise ValueError(
                f"Expected argument `split` to name a split of `{self.name}`, but {split!r} has no samples."
            )
        return self._data.splits[split]

    def portion(self, split: str, indices: Tensor) -> TransferDataModule:
        """The same data with only some samples of one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            indices: Which samples, in their order.

        Raises:
            ValueError: If there is no such split.
        """
        part = copy(self)
        chosen = {split: self.split_dataset(split).select(indices)}
        part.__dict__["_data"] = replace(self._data, splits={**self._data.splits, **chosen})
        return part

    def fingerprint(self, split: str) -> str:
        """Name the content of a split: all its labels or targets, and inputs that are evenly spread over it.

        Args:
            split: As for :meth:`split_dataset`.

        Returns:
            64 hexadecimal digits: the same for the same samples in the same order, whatever they are called.

        Raises:
            ValueError: If there is no such split.
        """
        dataset = self.split_dataset(split)
        some = torch.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset))).long().tolist()
        inputs = [_digest_input(dataset[index]["inputs"]) for index in some]
        groups = [] if dataset.groups is None else [digest([dataset.groups])]
        return combine_digests([digest([dataset.truth]), *inputs, *groups])

    def _loader(self, dataset: TransferDataset, *, shuffle: bool = False) -> DataLoader[dict[str, Tensor]]:
        # generators of their own: without them a loader draws from the global state, and workers would change the order
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(self.seed)) if shuffle else None
        one_is_left = len(dataset) > self.batch_size and len(dataset) % self.batch_size == 1
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=shuffle and one_is_left,
            collate_fn=collate_pictures,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(self.seed),
        )


def _without_endings(name: str) -> str:
    while Path(name).suffix.lower() in _ENDINGS:
        name = Path(name).stem
    return name


def split_of(word: str) -> str | None:
    """The split that a word names: also ``Training``, ``valid`` or ``test_set``; ``None`` where it names none.

    Args:
        word: Name of a folder, a column's value, a key.
    """
    word = re.sub("[ _-]?set$", "", word.lower())
    return word if word in SPLITS else _SPLIT_WORDS.get(word)


def some_of(names: Sequence[str], limit: int = 5) -> str:
    """The first of some names in one line, and how many there are besides."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def number_classes(count: int, n: int, first: int = 0) -> tuple[str, ...]:
    """Name classes by their ids.

    Args:
        count: Number of classes.
        n: Number of samples.
        first: Id of the first class.

    Raises:
        ValueError: If there are so many more classes than samples that the ids cannot be ids of classes.
    """
    if count > 1000 + 10 * n:
        raise ValueError(
            f"Expected labels to be ids of classes, but got ids up to {first + count - 1} for {n} samples."
        )
    return tuple(str(first + i) for i in range(count))


def round_targets(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make targets float32 where that keeps what tells them apart.

    Args:
        given: Targets of every split, float64 ``(n, m)``.

    Returns:
        The same in float32, or as they are if that would change some by more than 1e-5 of their standard deviation.
    """
    everything = torch.cat(list(given.values()))
    fits = not bool(rounded_away(everything).any())
    return {split: values.float() if fits else values for split, values in given.items()}


def rounded_away(values: Tensor) -> Tensor:
    """Tell the columns that float32 cannot hold: it would change a value by more than 1e-5 of the standard deviation.

    Args:
        values: float64 of shape ``(n, m)``.

    Returns:
        Boolean of shape ``(m,)``.

    Example:
        >>> import torch
        >>> from lightning_transfer.data.base import rounded_away
        >>> seconds = 1.7e9 + torch.arange(9).double()
        >>> rounded_away(torch.stack([seconds, seconds - 1.7e9], dim=1))
        tensor([ True, False])
    """
    if not len(values):
        return torch.zeros(values.shape[1], dtype=torch.bool)
    lost = (values - values.float().double()).abs().amax(dim=0)
    return lost > 1e-5 * values.std(dim=0, correction=0)


def _digest_input(value: Any) -> str:
    """Name one input: a tensor, a text, a picture, or a dict of these."""
    if isinstance(value, Mapping):
        return combine_digests([_digest_input(entry) for entry in value.values()])
    if is_pictures([value]):
        return digest([torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8)], repr(value.size))
    return digest([], value) if isinstance(value, str) else digest([value])


def draw_splits(
    given: Mapping[str, TransferDataset], seed: int, val_fraction: float, test_fraction: float = 0.0
) -> dict[str, TransferDataset]:
    """Draw the splits that a data set does not come with, stratified by class where there are classes.

    Samples of a group are in one split; validation and test get whole groups as long as these fit their shares.

    Args:
        given: ``train``, and the splits that exist. With ``train`` alone both others are drawn from it; with a test
            split only validation samples are, and with a validation split nothing is.
        seed: Seed of the draw.
        val_fraction: Share of the training samples for validation, in ``[0, 1]``.
        test_fraction: Share of the training samples for the test, in ``[0, 1]``.

    Returns:
        Disjoint splits, each in the order of ``given["train"]``.

    Raises:
        ValueError: If a fraction is out of range or nothing is left for training.
    """
    fractions = {
        "val": check_in_interval(val_fraction, 0.0, 1.0, "val_fraction") if "val" not in given else 0.0,
        "test": check_in_interval(test_fraction, 0.0, 1.0, "test_fraction") if len(given) == 1 else 0.0,
    }
    train = given["train"]
    sizes = [round(share * len(train)) for share in fractions.values()]
    if len(train) and sum(sizes) >= len(train):
        raise ValueError(
            f"Expected arguments `val_fraction` and `test_fraction` to leave samples for training, "
            f"but got {tuple(fractions.values())} of {len(train)} samples."
        )
    if train.groups is None:
        parts = torch.split(stratified_order(train.truth, seed), [*sizes, len(train) - sum(sizes)])
    else:
        order, ends = grouped_order(train.truth, train.groups, seed)
        room, chosen = [*sizes, len(train)], [[order[:0]] for _ in range(3)]
        for rows in order.tensor_split(ends[:-1]):  # one that does not fit keeps out none that does
            place = next(place for place, left in enumerate(room) if len(rows) <= left)
            room[place] -= len(rows)
            chosen[place].append(rows)
        parts = tuple(map(torch.cat, chosen))
    drawn = {
        split: train.select(part.sort().values) for split, part in zip(("val", "test", "train"), parts, strict=True)
    }
    return {**drawn, **{split: dataset for split, dataset in given.items() if split != "train"}}


def choose_classes(data: LoadedData, classes: Sequence[int | str]) -> LoadedData:
    """Keep some classes of a data set and renumber them from 0 in the given order.

    Args:
        data: Classification or multi-label data.
        classes: Ids or names, each once.

    Returns:
        The data of these classes; for multi-label data all samples with these labels only.

    Raises:
        ValueError: If a class is unknown or named twice, or the data have no classes.
    """
    if data.task == "regression":
        raise ValueError(f"Expected argument `classes` to be None for regression, but got {list(classes)}.")
    ids = [_class_id(wanted, data.names) for wanted in classes]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"Expected argument `classes` to name different classes, but got {list(classes)}.")
    names = tuple(data.names[i] for i in ids)
    if data.task == "multilabel":
        chosen = {split: dataset.relabel(dataset.truth[:, ids]) for split, dataset in data.splits.items()}
        return replace(data, splits=chosen, names=names)
    new_ids = torch.full((len(data.names),), -1)
    new_ids[ids] = torch.arange(len(ids))
    renumbered = {split: dataset.relabel(new_ids[dataset.truth]) for split, dataset in data.splits.items()}
    kept = {split: dataset.select((dataset.truth >= 0).nonzero()[:, 0]) for split, dataset in renumbered.items()}
    return replace(data, splits=kept, names=names)


def _class_id(wanted: int | str, names: tuple[str, ...]) -> int:
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(names):
        return wanted
    listing = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise ValueError(
        f"Expected argument `classes` to hold ids below {len(names)} or names among: {listing}; but got {wanted!r}."
    )
