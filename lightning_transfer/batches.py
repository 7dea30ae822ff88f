"""Anybody's data as batches to score: what a batch holds, and a pass over a split in which every sample comes once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_transfer.utilities.checks import check_one_of, check_positive_int

_INPUT_NAMES = ("inputs", "input", "image", "images", "img", "x", "features", "pixel_values", "text")
_ANSWER_NAMES = ("labels", "label", "targets", "target", "y")
_STAGES = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}


def split_batch(batch: Any) -> tuple[Any, dict[str, Tensor]]:
    """Take a batch apart into the inputs of the network and the answers.

    Args:
        batch: ``{"inputs": ..., "labels" | "targets": ...}`` as datamodules of this package give it; another dict with
            usual names (``image``, ``x``, ``label``, ``y``, ...); tokenised text with ``input_ids`` (all other entries
            stay together); a pair ``(inputs, answers)`` (more entries are ignored); or inputs alone.

    Returns:
        The inputs, and a dict with ``labels`` (integer answers), ``targets`` (floating answers) or nothing.

    Raises:
        ValueError: If no inputs are found.

    Example:
        >>> import torch
        >>> from lightning_transfer.extraction import split_batch
        >>> inputs, answers = split_batch((torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])))
        >>> inputs.shape, answers
        (torch.Size([2, 3, 8, 8]), {'labels': tensor([0, 1])})
    """
    if isinstance(batch, Mapping):
        answer = next((batch[name] for name in _ANSWER_NAMES if name in batch), None)
        return _inputs_of(batch), _name_answer(answer)
    if isinstance(batch, (list, tuple)) and batch and not isinstance(batch[0], str):
        return batch[0], _name_answer(batch[1] if len(batch) > 1 else None)
    if isinstance(batch, Tensor) or (isinstance(batch, (list, tuple)) and batch):
        return batch, {}
    raise ValueError(f"Expected a batch to be a tensor, a pair or a dict with inputs, but got {type(batch).__name__}.")


def _inputs_of(batch: Mapping[str, Any]) -> Any:
    if "input_ids" in batch:
        return {n: v for n, v in batch.items() if n not in _ANSWER_NAMES and isinstance(v, Tensor)}
    for name in _INPUT_NAMES:
        if name in batch:
            return batch[name]
    raise ValueError(f"Expected a batch to have one of the keys {_INPUT_NAMES}, but got {sorted(map(str, batch))}.")


def _name_answer(answer: Any) -> dict[str, Tensor]:
    if not isinstance(answer, Tensor):
        return {}
    return {"targets" if answer.is_floating_point() else "labels": answer}


class ScoringPass(LightningDataModule):
    """One pass over a split of anybody's data, for ``Trainer.predict``: unshuffled, nothing dropped, nothing repeated.

    Loaders over map-style data are rebuilt: one process or many see every sample exactly once. Other iterables are
    taken as they come; of several processes each takes every n-th batch. Transfer hooks of a user's datamodule run.

    Args:
        source: A datamodule, a ``DataLoader``, several of them, or an iterable of batches.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``: which loader of a datamodule is meant.
        max_samples: Upper limit of the number of samples: a seeded random subset of map-style data, the first samples
            of other iterables.
        seed: Seed of that subset.
    """

    def __init__(self, source: Any, *, split: str = "train", max_samples: int | None = None, seed: int = 0) -> None:
        super().__init__()
        check_one_of(split, tuple(_STAGES), "split")
        if max_samples is not None:
            check_positive_int(max_samples, "max_samples")
        self.source = source
        self.split = split
        self.max_samples = max_samples
        self.seed = seed
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self._owner = source if isinstance(source, LightningDataModule) else LightningDataModule()

    def prepare_data(self) -> None:
        """Let a datamodule prepare its data."""
        self._owner.prepare_data()

    def setup(self, stage: str) -> None:
        """Let a datamodule set up the stage that the split belongs to."""
        if self._owner is self.source:
            self._owner.trainer = self.trainer
        self._owner.setup(_STAGES[self.split])

    def teardown(self, stage: str) -> None:
        """Let a datamodule tear down the stage that was set up."""
        self._owner.teardown(_STAGES[self.split])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self._owner.on_before_batch_transfer(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self._owner.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self._owner.on_after_batch_transfer(batch, dataloader_idx)

    def predict_dataloader(self) -> list[Any]:
        """The loaders of the pass, for this rank."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        left = self.max_samples
        passes: list[Any] = []
        for loader in _as_loaders(self._ask_for_loaders()):
            if left == 0:
                break
            if not _is_indexable(loader):
                passes.append(_EveryNth(loader, rank, world_size, left))
                continue
            indices = self._choose(len(loader.dataset), left)
            left = None if left is None else left - len(indices)
            if indices:
                passes.append(_Share(loader, indices, rank, world_size))
        if not passes:
            raise ValueError(f"Expected argument `data` to hold samples for split {self.split!r}, but got none.")
        return passes

    def _ask_for_loaders(self) -> Any:
        if self._owner is not self.source:
            return self.source
        if hasattr(self.source, "split_dataloader") and self.split != "predict":
            return self.source.split_dataloader(self.split)
        return getattr(self.source, f"{self.split}_dataloader")()

    def _choose(self, n: int, limit: int | None) -> list[int]:
        if limit is None or limit >= n:
            return list(range(n))
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))[:limit]
        return list(map(int, chosen.sort().values))


class _Share:
    """One rank's share of map-style data: every sample on one rank, none repeated; ranks may stay empty.

    Lightning takes it as it is, since it is no ``DataLoader``. Its length is that of the first rank, so that a rank
    without samples takes part in everything that the ranks do together.
    """

    def __init__(self, loader: DataLoader[Any], indices: Sequence[int], rank: int, world_size: int) -> None:
        self.loader = rebuild_loader(loader, indices[rank::world_size], size_of_batches(loader))
        self.length = math.ceil(len(indices[::world_size]) / (self.loader.batch_size or 1))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return self.length


class _EveryNth:
    """One rank's share of an iterable of batches, which is cut after a number of samples."""

    def __init__(self, batches: Iterable[Any], rank: int, world_size: int, max_samples: int | None) -> None:
        self.batches, self.rank, self.world_size, self.max_samples = batches, rank, world_size, max_samples

    def __iter__(self) -> Iterator[Any]:
        return islice(self._limited(), self.rank, None, self.world_size)

    def _limited(self) -> Iterator[Any]:
        left = self.max_samples
        for batch in self.batches:
            if left is None:
                yield batch
                continue
            size = batch_size(batch)
            yield batch if size <= left else _first(batch, left)
            left -= min(size, left)
            if left == 0:
                return


def batch_size(batch: Any) -> int:
    """Number of samples of a batch."""
    inputs, answers = split_batch(batch)
    some = next(iter(answers.values()), inputs)
    return len(next(iter(some.values())) if isinstance(some, Mapping) else some)


def _first(batch: Any, n: int) -> Any:
    if isinstance(batch, Mapping):
        return {name: value[:n] if isinstance(value, (Tensor, list, tuple)) else value for name, value in batch.items()}
    if isinstance(batch, (list, tuple)) and not isinstance(batch[0], str):
        return [_first(value, n) if isinstance(value, (Mapping, Tensor)) else value[:n] for value in batch]
    return batch[:n]


def _as_loaders(loaders: Any) -> list[Any]:
    if isinstance(loaders, CombinedLoader):
        return list(loaders.flattened)
    if isinstance(loaders, Mapping):
        return list(loaders.values())
    if isinstance(loaders, (list, tuple)) and all(isinstance(loader, DataLoader) for loader in loaders):
        return list(loaders)
    return [loaders]


def _is_indexable(loader: Any) -> bool:
    return (
        isinstance(loader, DataLoader)
        and not isinstance(loader.dataset, IterableDataset)
        and hasattr(loader.dataset, "__len__")
        and loader.batch_sampler is not None  # otherwise the dataset gives whole batches
    )


def rebuild_loader(
    loader: DataLoader[Any], indices: Sequence[int] | Sequence[list[int]] | None, batch_size: int | None
) -> DataLoader[Any]:
    """A loader like the given one that reads in the given order and shares neither workers nor random state with it.

    Args:
        loader: The loader to copy.
        indices: What is read, in this order, or the batches of it; ``None`` for data sets of the iterable kind.
        batch_size: Samples a batch; ``None`` where the data set gives whole batches.
    """
    return DataLoader(
        loader.dataset,
        batch_size=batch_size,
        sampler=indices,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        generator=torch.Generator().manual_seed(0),  # a loader without one draws from the global state
    )


def size_of_batches(loader: DataLoader[Any]) -> int:
    """Samples a batch of a loader; 64 where a batch sampler of the user's own does not say."""
    drawn = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return loader.batch_size or getattr(drawn, "batch_size", None) or 64
