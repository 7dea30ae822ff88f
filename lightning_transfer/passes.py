"""One walk over anybody's loader: which samples, on which process, and the place of each in the whole set.

:class:`Pass` makes a walk of the package's own, for extraction and for monitors alike; :class:`Places` numbers the
samples of a loader that a Trainer runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
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
    get_worker_info,
)

from lightning_transfer.inputs import Key, batch_size, first_samples, split_batch
from lightning_transfer.pictures import is_pictures, prepare_pictures
from lightning_transfer.utilities.checks import check_one_of, check_positive_int
from lightning_transfer.utilities.isolation import find_random_sources, preserve_rng, random_states
from lightning_transfer.workers import Reader, SharedReading, as_batches, as_wanted, options_of

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_STAGES = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}
_LOOKED_AT = 8  # samples that tell the shape of inputs
_SHAPED = "inputs of one shape for a module that does not say what it takes"
_SAY_SHAPE = "wrap it, `ModuleBackbone(module, input_shape=(3, 224, 224))`"
_BATCH_SIZE = 64  # where a batch sampler of the user's own does not say


def evenly(n: int, kept: int | None) -> Tensor:
    """Positions of ``kept`` samples spread evenly over ``n``: the same ones on any number of processes.

    Example:
        >>> from lightning_transfer.passes import evenly
        >>> evenly(10, 4).tolist()
        [0, 2, 5, 7]
    """
    if kept is None or kept >= n:
        return torch.arange(n)
    return torch.arange(kept) * n // kept


def draw(n: int, kept: int | None, seed: int) -> Tensor:
    """Positions of ``kept`` samples out of ``n``, drawn at random and sorted."""
    if kept is None or kept >= n:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:kept].sort().values


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
        >>> from lightning_transfer.passes import Places
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


class Pass:
    """One unshuffled walk over a loader's data, shared among the ranks: nothing dropped, repeated or padded.

    A :class:`~torch.utils.data.DataLoader` is not iterated itself, a sequential one is built from its parts: persistent
    workers and the order of training stay untouched. Other iterables are taken as they come, and each rank gets every
    ``world_size``-th batch.

    Lightning's loops take it as it is, since it is no ``DataLoader``. Where its length is known it is that of the first
    rank, so that a rank without samples takes part in everything that the ranks do together.

    Args:
        loader: A loader, or any iterable of batches.
        rank: Number of this process.
        world_size: Number of processes.
        limit: A Trainer's limit of batches: a number of them or a fraction.
        max_samples: At most as many samples over all ranks; of data without single samples the first ones.
        seed: Draw these samples with it at random, sorted; spread them evenly where not given.
        sharded: Data sets of the iterable kind share themselves among the ranks, as Lightning asks inside ``fit``.
        keys: Keywords of :func:`~lightning_transfer.inputs.split_batch`.
        transform: What makes network inputs of pictures, in the loader's workers where there are any.
        reader: Gives the batches of a loader, see :meth:`~lightning_transfer.workers.SharedReading.at`.

    Attributes:
        num_samples: Samples of the walk over all ranks; ``None`` where they are not known before.
        loader: What is iterated: the loader that was built, or the batches that were given.
        places: Numbers the samples that this rank has read.
    """

    def __init__(
        self,
        loader: Any,
        *,
        rank: int = 0,
        world_size: int = 1,
        limit: float = 1.0,
        max_samples: int | None = None,
        seed: int | None = None,
        sharded: bool = False,
        keys: Mapping[str, Key | None] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
        reader: Reader | None = None,
    ) -> None:
        self.places = Places(None, rank, world_size)
        self._transform, self._reader = transform, reader
        self.num_samples: int | None = None
        self._keys = dict(keys or {})
        self._left = max_samples
        self.loader: Iterable[Any] = ()
        self._batches: Iterable[Any]
        self._length: int | None = None
        if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset):
            if sharded and max_samples is not None:
                self._left = len(range(rank, max_samples, world_size))
            self._take(rebuild_loader(loader, None, loader.batch_size, transform), limit, deal=not sharded)
        elif not isinstance(loader, DataLoader) or not hasattr(loader.dataset, "__len__"):
            self._take(loader, limit, deal=True)
        elif loader.batch_sampler is None and _sampler_of(loader) is None:  # a sample of the data set is a batch
            whole = range(_number_of_batches(len(loader.dataset), limit))
            deal = max_samples is not None  # whoever counts samples has to read them
            self._take(self._read(loader, whole if deal else whole[rank::world_size]), 1.0, deal)
        else:
            self._choose(loader, limit, max_samples, seed)

    def _take(self, batches: Iterable[Any], limit: float, deal: bool) -> None:
        """Take batches as they come, of which this rank gets its share where they are dealt out."""
        self.loader = batches
        ranks = self.places.world_size if deal else 1
        last = None if isinstance(limit, float) else limit * ranks
        self._batches = _Slices(batches, self.places.rank if deal else 0, last, ranks, self._left, self._keys)

    def _choose(self, loader: DataLoader[Any], limit: float, max_samples: int | None, seed: int | None) -> None:
        rank, world_size = self.places.rank, self.places.world_size
        indices, size = _indices(loader), _size_of_batches(loader)
        batches = _number_of_batches(-(-len(indices) // (size * world_size)), limit)
        total = min(len(indices), batches * size * world_size)
        kept = evenly(total, max_samples) if seed is None else draw(total, max_samples, seed)
        chosen = [indices[place] for place in kept.tolist()]
        self.num_samples = len(chosen)
        self._length = -(-len(chosen[::world_size]) // size)
        share = chosen[rank::world_size]
        if loader.batch_sampler is None:  # the data set takes the indices of a batch at once
            self.loader = self._read(loader, list(BatchSampler(share, size, drop_last=False)))
        else:
            self.loader = self._read(loader, share, size)
        self._batches = self.loader

    def _read(self, loader: DataLoader[Any], indices: Sequence[Any], size: int | None = None) -> Iterable[Any]:
        """Batches by their indices, or by those of their samples, from a reader that lasts where there is one."""
        batches = None
        if self._reader is not None:
            batches = self._reader(loader, indices if size is None else as_batches(indices, size), self._transform)
        return rebuild_loader(loader, indices, size, self._transform) if batches is None else batches

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the batches of this rank; workers start with the first, since a Trainer may ask twice."""
        for batch in self._batches:
            yield batch if self._transform is None else prepare_pictures(batch, self._transform)

    def __len__(self) -> int:
        """Batches of the first rank."""
        if self._length is None:
            raise TypeError("The number of batches is not known before they have been read.")
        return self._length


class _Slices:
    """Every n-th of some batches up to a last one, cut after a number of samples."""

    def __init__(
        self, batches: Iterable[Any], first: int, last: int | None, step: int, max_samples: int | None, keys: Any
    ) -> None:
        self.batches, self.bounds, self.max_samples, self.keys = batches, (first, last, step), max_samples, keys

    def __iter__(self) -> Iterator[Any]:
        return islice(self._limited(), *self.bounds)

    def _limited(self) -> Iterator[Any]:
        left = self.max_samples
        if left == 0:
            return
        for batch in self.batches:
            if left is None:
                yield batch
                continue
            size = batch_size(batch, **self.keys)
            yield batch if size <= left else first_samples(batch, left, size)
            left -= min(size, left)
            if left == 0:
                return


class Peekable(IterableDataset[Any]):
    """Samples or batches that come one after the other, of which one may look at the first without taking them away.

    The next reading goes on where the look ended and gives what was looked at first, so that data that can be read once
    only lose nothing. Data that draw random numbers, and those that several processes share, are read anew.

    Args:
        dataset: Any iterable.

    Attributes:
        is_read_once: Whether nothing is left after a reading, as far as that is known.

    Example:
        >>> from lightning_transfer.passes import Peekable
        >>> numbers = Peekable(iter(range(4)))
        >>> numbers.peek(2), list(numbers), list(numbers)
        ([0, 1], [0, 1, 2, 3], [])
    """

    def __init__(self, dataset: Iterable[Any]) -> None:
        self.dataset = dataset
        self.is_read_once = isinstance(dataset, Iterator)
        self._head: list[Any] = []
        self._rest: Iterator[Any] | None = None

    def peek(self, count: int = 1) -> list[Any]:
        """The first samples or batches, or as many as there are.

        Args:
            count: How many.
        """
        if self._rest is None:
            sources = find_random_sources(self.dataset)
            with preserve_rng(*sources):
                before, rest = random_states(*sources), iter(self.dataset)
                head = list(islice(rest, count))
                draws = random_states(*sources) != before
            self.is_read_once = self.is_read_once or iter(self.dataset) is rest
            if draws and not self.is_read_once:
                return head
            self._head, self._rest = head, rest
        self._head += islice(self._rest, max(0, count - len(self._head)))
        return self._head[:count]

    def __iter__(self) -> Iterator[Any]:
        """Give all that come, those that were looked at first."""
        worker, head, rest = get_worker_info(), self._head, self._rest
        self._head, self._rest = [], None
        shared = (worker is not None and worker.num_workers > 1) or (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
        if rest is None or (shared and not self.is_read_once):
            yield from self.dataset
        else:
            yield from chain(head, rest)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_head": [], "_rest": None}  # another process reads the data itself


def as_peekable(loader: Any) -> Any:
    """A loader that :func:`first_batch` may look into, whether or not it can be read twice.

    Args:
        loader: A loader, or an iterable of batches.
    """
    if not isinstance(loader, DataLoader):
        sized = isinstance(loader, Peekable) or hasattr(loader, "__len__")
        return loader if sized else Peekable(loader)
    if not isinstance(loader.dataset, IterableDataset) or hasattr(loader.dataset, "__len__"):
        return loader
    options = {**options_of(loader), "generator": loader.generator, "persistent_workers": loader.persistent_workers}
    size: dict[str, Any] = {} if loader.batch_size is None else {"drop_last": loader.drop_last}
    return DataLoader(
        Peekable(loader.dataset), batch_size=loader.batch_size, collate_fn=loader.collate_fn, **size, **options
    )


def first_batch(loader: Any, most: int = 1) -> Any:
    """The first batch of a loader, which keeps it where it is a peekable one; None where there is none.

    Args:
        loader: A loader, or an iterable of batches.
        most: Samples that the batch needs no more of.
    """
    source = _source_of(loader)
    if not isinstance(source, Peekable):
        return next(iter(loader), None)
    in_batches = source is loader or loader.batch_size is None
    samples = source.peek(1 if in_batches else min(most, loader.batch_size))
    if not samples or source is loader:
        return samples[0] if samples else None
    return loader.collate_fn(samples[0] if in_batches else samples)


def is_read_once(loader: Any) -> bool:
    """Whether a loader is known to give its batches once only.

    Args:
        loader: A loader, or an iterable of batches.
    """
    source = _source_of(loader)
    return source.is_read_once if isinstance(source, Peekable) else isinstance(source, Iterator)


def _source_of(loader: Any) -> Any:
    """What a loader reads from; an iterable of batches itself."""
    return loader.dataset if isinstance(loader, DataLoader) else loader


class ScoringPass(LightningDataModule):
    """One pass over a split of anybody's data, for ``Trainer.predict``: every loader of it as a :class:`Pass`.

    Transfer hooks of a user's datamodule run.

    Args:
        source: A datamodule, a ``DataLoader``, several of them, or an iterable of batches.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``: which loader of a datamodule is meant.
        max_samples: Look at no more samples: a seeded random subset of map-style data, the first samples of others.
        seed: Seed of that subset.
        keys: Keywords of :func:`~lightning_transfer.inputs.split_batch`.
        transform: See :class:`Pass`.
        reading: Workers and pictures that outlast the pass.

    Attributes:
        owner: The datamodule whose hooks run: the source, or an empty one.
    """

    def __init__(
        self,
        source: Any,
        *,
        split: str = "train",
        max_samples: int | None = None,
        seed: int = 0,
        keys: Mapping[str, Key | None] | None = None,
        transform: Callable[[Any], Tensor] | None = None,
        reading: SharedReading | None = None,
    ) -> None:
        super().__init__()
        check_one_of(split, tuple(_STAGES), "split")
        if max_samples is not None:
            check_positive_int(max_samples, "max_samples")
        self.source = source
        self.split = split
        self.max_samples = max_samples
        self.reading = reading
        self.options: dict[str, Any] = {"seed": seed, "keys": keys, "transform": transform}
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.owner = source if isinstance(source, LightningDataModule) else LightningDataModule()

    def prepare_data(self) -> None:
        """Let a datamodule prepare its data."""
        self.owner.prepare_data()

    def setup(self, stage: str) -> None:
        """Let a datamodule set up the stage that the split belongs to."""
        if self.owner is self.source:
            self.owner.trainer = self.trainer
        self.owner.setup(_STAGES[self.split])

    def teardown(self, stage: str) -> None:
        """Let a datamodule tear down the stage that was set up."""
        self.owner.teardown(_STAGES[self.split])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self.owner.on_before_batch_transfer(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self.owner.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Run the hook of the user's datamodule."""
        return self.owner.on_after_batch_transfer(batch, dataloader_idx)

    def predict_dataloader(self) -> list[Any]:
        """The loaders of the pass, for this rank."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        left = self.max_samples
        passes: list[Pass] = []
        loaders = as_loaders(self._ask_for_loaders())
        for number, loader in enumerate(loaders):
            if left == 0:
                break
            place = (id(self.source), self.split, number)
            reader = None if self.reading is None else self.reading.at(place, len(loaders))
            walk = Pass(loader, rank=rank, world_size=world_size, max_samples=left, reader=reader, **self.options)
            if walk.num_samples is not None:
                left = None if left is None else left - walk.num_samples
            if walk.num_samples != 0:
                passes.append(walk)
        if not passes:
            raise ValueError(f"Expected argument `data` to hold samples for split {self.split!r}, but got none.")
        return passes

    def _ask_for_loaders(self) -> Any:
        if self.owner is not self.source:
            return self.source
        if hasattr(self.source, "split_dataloader") and self.split != "predict":
            return self.source.split_dataloader(self.split)
        return getattr(self.source, f"{self.split}_dataloader")()


@contextmanager
def opened(scoring_pass: ScoringPass) -> Iterator[list[Pass]]:
    """The walks of a pass, on this process and without a Trainer; data and random states are afterwards as before.

    Args:
        scoring_pass: The pass.
    """
    source = scoring_pass.source
    with ExitStack() as stack:
        stack.enter_context(preserve_rng(*find_random_sources(source)))
        if isinstance(source, LightningDataModule):
            stack.callback(setattr, source, "trainer", source.trainer)
        stack.callback(scoring_pass.teardown, "predict")
        scoring_pass.prepare_data()
        scoring_pass.setup("predict")
        yield scoring_pass.predict_dataloader()


def read_input_shape(data: Any, split: str = "train", keys: Mapping[str, Key | None] | None = None) -> tuple[int, ...]:
    """Shape of one input, told by a few samples; of a picture ``(3, height, width)``.

    Args:
        data: A datamodule, a loader or an iterable of batches.
        split: Which loader of a datamodule is asked.
        keys: Keywords of :func:`~lightning_transfer.inputs.split_batch`.

    Raises:
        ValueError: If inputs are no tensors or pictures of one size, or can be read once only.

    Example:
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.passes import read_input_shape
        >>> read_input_shape(Digits(max_samples=50))
        (1, 8, 8)
    """
    scoring_pass = ScoringPass(data, split=split, max_samples=_LOOKED_AT, keys=keys)
    with opened(scoring_pass) as walks:
        loader = walks[0].loader
        if isinstance(loader, Iterator):
            raise ValueError(f"Expected {_SHAPED}, but got an iterator, which is read once only: {_SAY_SHAPE}.")
        peekable = isinstance(_source_of(loader), Peekable)
        batch: Any = first_batch(loader if peekable else walks[0], _LOOKED_AT)
        for hook in (scoring_pass.on_before_batch_transfer, scoring_pass.on_after_batch_transfer):
            batch = hook(batch, 0)
        inputs = split_batch(batch, **(keys or {}))[0]
    if is_pictures(inputs):
        sizes = sorted({(picture.height, picture.width) for picture in inputs})
        if len(sizes) == 1:
            return (3, *sizes[0])
        raise ValueError(f"Expected {_SHAPED}, but got pictures of sizes such as {sizes[:3]}: {_SAY_SHAPE}.")
    if not isinstance(inputs, Tensor) or inputs.ndim < 2:
        shape = f" of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else ""
        raise ValueError(f"Expected {_SHAPED}, but got a batch of {type(inputs).__name__}{shape}: {_SAY_SHAPE}.")
    return tuple(inputs.shape[1:])


def as_loaders(loaders: Any) -> list[Any]:
    """Make a list of loaders from one loader, a collection of them or a ``CombinedLoader``; batches are one loader.

    Args:
        loaders: What a datamodule gives, or a user hands in.
    """
    if isinstance(loaders, CombinedLoader):
        return [loader for loader in loaders.flattened if loader is not None]
    if isinstance(loaders, (Mapping, list, tuple)) and _is_loader(loaders):
        inside = loaders.values() if isinstance(loaders, Mapping) else loaders
        return list(chain.from_iterable(map(as_loaders, inside)))
    return [] if loaders is None else [loaders]


def _is_loader(candidate: Any) -> bool:
    """Whether something can be iterated for batches, or holds nothing but such things, and is no batch itself."""
    if isinstance(candidate, (Mapping, list, tuple)):
        return all(map(_is_loader, candidate.values() if isinstance(candidate, Mapping) else candidate))
    return candidate is None or (isinstance(candidate, Iterable) and not isinstance(candidate, (str, bytes, Tensor)))


def rebuild_loader(
    loader: DataLoader[Any],
    indices: Sequence[Any] | None,
    batch_size: int | None,
    transform: Callable[[Any], Tensor] | None = None,
) -> DataLoader[Any]:
    """A loader like the given one that reads in the given order and shares neither workers nor random state with it.

    Args:
        loader: The loader to copy.
        indices: What is read, in this order, or the batches of it; ``None`` for data sets of the iterable kind.
        batch_size: Samples a batch; ``None`` where the data set gives whole batches.
        transform: Makes network inputs of pictures, see :func:`~lightning_transfer.workers.as_wanted`.
    """
    dataset, collate = as_wanted(loader.dataset, loader.collate_fn, transform)
    return DataLoader(dataset, batch_size=batch_size, sampler=indices, collate_fn=collate, **options_of(loader))


def _number_of_batches(available: int, limit: float) -> int:
    return int(available * limit) if isinstance(limit, float) else min(available, limit)


def _size_of_batches(loader: DataLoader[Any]) -> int:
    drawn = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    return loader.batch_size or getattr(drawn, "batch_size", None) or _BATCH_SIZE


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


def _indices(loader: DataLoader[Any]) -> Sequence[Any]:
    """What a loader reads, in the order of the data; all of the data where its sampler may go on for ever."""
    sampler = _sampler_of(loader)
    if isinstance(sampler, SubsetRandomSampler):
        return sorted(sampler.indices)
    drawn: Any = loader.batch_sampler if sampler is None else sampler
    whole = isinstance(sampler, SequentialSampler | RandomSampler | DistributedSampler | WeightedRandomSampler)
    if whole or _length(drawn) is None:
        return range(len(loader.dataset))  # type: ignore[arg-type]
    once = list(islice(copy(drawn), _length(drawn)))  # a copy: a sampler may count its epochs
    places = list(chain.from_iterable(once)) if sampler is None else once
    try:
        return sorted(set(places))
    except TypeError:  # indices of the user's own, such as dicts
        return places
