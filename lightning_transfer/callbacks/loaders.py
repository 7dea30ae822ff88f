"""Which samples a monitor sees: fresh unshuffled loaders of its own, and the place of each sample in the whole set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightning_transfer.batches import rebuild_loader, size_of_batches

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def spread(n: int, kept: int | None) -> Tensor:
    """Positions of ``kept`` samples spread evenly over ``n``: the same ones on any number of processes.

    Example:
        >>> from lightning_transfer.callbacks.loaders import spread
        >>> spread(10, 4).tolist()
        [0, 2, 5, 7]
    """
    if kept is None or kept >= n:
        return torch.arange(n)
    return torch.arange(kept) * n // kept


class Places:
    """The place of each arriving sample in the whole set, and whether it counts.

    A distributed sampler pads the shards of the ranks to equal length by repeating samples: places at or beyond the
    number of samples are such repetitions. With ``max_samples`` the kept places are spread evenly where the number of
    samples is known and are the first ones elsewhere.

    Args:
        total: Number of samples in the whole set, over all ranks; ``None`` where unknown.
        rank: Number of this process.
        world_size: Number of processes.
        max_samples: Keep at most as many, over all ranks.
        replicated: Every rank sees the whole set, so it keeps every ``world_size``-th sample only.

    Example:
        >>> from lightning_transfer.callbacks.loaders import Places
        >>> places = Places(total=3, rank=1, world_size=2)  # rank 1 of 2 sees sample 1 and a padded one
        >>> [(place.tolist(), counts.tolist()) for place, counts in (places.take(1), places.take(1))]
        [([1], [True]), ([3], [False])]
    """

    def __init__(
        self,
        total: int | None,
        rank: int = 0,
        world_size: int = 1,
        max_samples: int | None = None,
        replicated: bool = False,
    ) -> None:
        self.total, self.rank, self.world_size = total, rank, world_size
        self.max_samples, self.replicated = max_samples, replicated
        self.seen = 0

    def take(self, count: int) -> tuple[Tensor, Tensor]:
        """Number the next ``count`` samples of this rank: their places and whether each counts, shape ``(count,)``."""
        arrived = torch.arange(self.seen, self.seen + count)
        self.seen += count
        place = arrived if self.replicated else self.rank + self.world_size * arrived
        counts = place % self.world_size == self.rank
        if self.total is not None:
            counts &= place < self.total
        if self.max_samples is not None and self.total is None:
            counts &= place < self.max_samples
        elif self.max_samples is not None and self.total is not None and self.max_samples < self.total:
            slot = (place * self.max_samples + self.total - 1) // self.total  # the first kept place from here on
            counts &= (slot < self.max_samples) & (slot * self.total // self.max_samples == place)
        return place, counts


def places_in(loader: object, trainer: Trainer, limit: float, max_samples: int | None) -> Places:
    """Tell how the samples of a loader that the Trainer runs are numbered.

    Args:
        loader: The loader as the Trainer prepared it, with its distributed sampler where there is one.
        trainer: Gives rank and number of processes.
        limit: Number of batches that the Trainer runs of it on each rank.
        max_samples: See :class:`Places`.
    """
    world_size, sampler = trainer.world_size, _sampler_of(loader)
    if isinstance(loader, DataLoader) and isinstance(sampler, DistributedSampler):
        places = Places(len(sampler.dataset), sampler.rank, sampler.num_replicas, max_samples)  # type: ignore[arg-type]
    elif isinstance(loader, DataLoader) and world_size == 1:
        places = Places(_length(sampler), max_samples=max_samples)
    elif isinstance(loader, DataLoader) and isinstance(sampler, SequentialSampler):
        places = Places(len(sampler), trainer.global_rank, world_size, max_samples, replicated=True)
    else:
        return Places(None, trainer.global_rank, world_size, max_samples)
    if places.total is not None and loader.batch_size is not None and limit != float("inf"):
        ranks = 1 if places.replicated else places.world_size
        places.total = min(places.total, int(limit) * loader.batch_size * ranks)
    return places


def request_loaders(trainer: Trainer, split: str) -> list[Any]:
    """Ask the Trainer's own source of data for its loaders anew.

    Args:
        trainer: A Trainer inside ``fit``.
        split: ``"train"`` or ``"val"``.

    Returns:
        The loaders, none where the source defines none. Nothing of it is iterated, nor does the Trainer use it.
    """
    loop = trainer.fit_loop if split == "train" else trainer.fit_loop.epoch_loop.val_loop
    source = loop._data_source  # the one place that knows loaders handed to fit as well as hooks
    return as_loaders(source.dataloader()) if source.is_defined() and source.instance is not None else []


def as_loaders(loaders: Any) -> list[Any]:
    """Make a list of loaders from one loader, a collection of them or a ``CombinedLoader``."""
    from lightning.pytorch.utilities import CombinedLoader

    combined = loaders if isinstance(loaders, CombinedLoader) else CombinedLoader(loaders, "sequential")
    return [loader for loader in combined.flattened if loader is not None]


class OwnPass:
    """One unshuffled pass over a loader's data, shared among the ranks without padding.

    The loader itself is not iterated where it is a :class:`~torch.utils.data.DataLoader` over a map-style data set: a
    sequential one is built from its parts, so that persistent workers and the order of training stay untouched.

    Args:
        loader: A loader, or any iterable of batches.
        trainer: Gives rank, number of processes.
        limit: Trainer's limit of batches: a number of them or a fraction.
        max_samples: At most as many samples over all ranks, spread evenly.
    """

    def __init__(self, loader: Any, trainer: Trainer, limit: float = 1.0, max_samples: int | None = None) -> None:
        rank, world_size = trainer.global_rank, trainer.world_size
        self.places = Places(None, rank, world_size, max_samples)
        self.batches: Iterable[Any]
        if not isinstance(loader, DataLoader):
            self.batches = islice(iter(loader), rank, _last(limit, world_size), world_size)
        elif isinstance(loader.dataset, IterableDataset):  # shards itself, as Lightning asks
            self.batches = islice(iter(rebuild_loader(loader, None, loader.batch_size)), _last(limit))
        elif loader.batch_sampler is None and _sampler_of(loader) is None:  # a sample of the data set is a batch
            whole = range(_number_of_batches(len(loader.dataset), limit))  # type: ignore[arg-type]
            self.batches = rebuild_loader(loader, whole[rank::world_size], None)
        else:
            indices, size = _indices(loader), size_of_batches(loader)
            batches = _number_of_batches(-(-len(indices) // (size * world_size)), limit)
            total = min(len(indices), batches * size * world_size)
            chosen = [indices[place] for place in spread(total, max_samples).tolist()]
            self.places = Places(len(chosen), rank, world_size)
            share = chosen[rank::world_size]
            if loader.batch_sampler is None:  # the data set takes the indices of a batch at once
                self.batches = rebuild_loader(loader, list(BatchSampler(share, size, drop_last=False)), None)
            else:
                self.batches = rebuild_loader(loader, share, size)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the batches of this rank; stops early once ``max_samples`` have been numbered."""
        for batch in self.batches:
            yield batch
            if (
                self.places.max_samples is not None
                and self.places.seen * self.places.world_size >= self.places.max_samples
            ):
                return


def _number_of_batches(available: int, limit: float) -> int:
    return int(available * limit) if isinstance(limit, float) else min(available, limit)


def _last(limit: float, world_size: int = 1) -> int | None:
    return None if isinstance(limit, float) else limit * world_size


def _sampler_of(loader: object) -> Any:
    """The sampler that draws single samples; ``None`` where there is none or it cannot be told."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler = getattr(loader.sampler if loader.batch_sampler is None else loader.batch_sampler, "sampler", None)
    while isinstance(sampler, BatchSampler):
        sampler = sampler.sampler
    return sampler


def _length(sampler: Any) -> int | None:
    return len(sampler) if hasattr(sampler, "__len__") else None


def _indices(loader: DataLoader) -> Sequence[int]:
    """What a loader reads, in the order of the data; all of the data where its sampler may go on for ever."""
    sampler = _sampler_of(loader)
    if isinstance(sampler, SubsetRandomSampler):
        return sorted(sampler.indices)
    drawn: Any = loader.batch_sampler if sampler is None else sampler
    whole = isinstance(sampler, SequentialSampler | RandomSampler | DistributedSampler | WeightedRandomSampler)
    if whole or _length(drawn) is None:
        return range(len(loader.dataset))  # type: ignore[arg-type]
    once = islice(copy(drawn), _length(drawn))  # a copy: a sampler may count its epochs
    return sorted(set(chain.from_iterable(once) if sampler is None else once))
