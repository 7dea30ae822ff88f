"""What passes over the same data share while a screen lasts: the loader's workers, and the pictures they decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing.reduction import ForkingPickler
from traceback import format_exc
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lightning_transfer._compat import stop_workers
from lightning_transfer.pictures import KeptPictures, PreparingCollate
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.isolation import find_random_sources, preserve_rng

Transform = Callable[[Any], Tensor]
Reader = Callable[[DataLoader[Any], Sequence[Any], "Transform | None"], "Iterable[Any] | None"]
_MIB = 2**20
PICTURE_MEMORY = 2048  # MiB of decoded pictures that a screen keeps


class SharedReading:
    """Keeps the readers of some data alive from one pass to the next.

    A pass with another transform goes to the same worker processes, which have the pictures that they decoded before.
    Every pass meets the data as the first one did: random states in the workers start anew. A transform that cannot be
    sent to a process has workers of its own, and so have data that only give themselves one after the other.

    Args:
        picture_memory: MiB that decoded pictures may take, in all processes together, at 4 bytes a pixel. Those that do
            not fit are decoded in each pass.
        sides: Over how many data sets, such as target and reference, this memory is spread.

    Example:
        >>> from contextlib import closing
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.extraction import extract
        >>> from lightning_transfer.workers import SharedReading
        >>> nets = [ModuleBackbone(nn.Flatten(), input_shape=(1, 8, 8), head=None) for _ in range(2)]
        >>> with closing(SharedReading()) as reading:
        ...     [extract(net, Digits(max_samples=50), reading=reading).num_samples for net in nets]
        [50, 50]
    """

    def __init__(self, picture_memory: int = 0, sides: int = 1) -> None:
        self.bytes = check_positive_int(picture_memory, "picture_memory", minimum=0) * _MIB // sides
        self._readers: dict[Any, _Reader] = {}

    def close(self) -> None:
        """Stop the workers and forget the pictures."""
        while self._readers:
            self._readers.popitem()[1].close()

    def at(self, place: Any, among: int = 1) -> Reader:
        """What reads the batches of a loader, and keeps its place from pass to pass.

        Args:
            place: What tells one loader from another, such as the split.
            among: How many loaders share the memory of a data set.

        Returns:
            A function of the loader, of what each batch is made of (:func:`as_batches`, or what a data set of whole
            batches is asked for) and of the transform of pictures. It gives ``None`` where nothing would be shared.
        """
        return partial(self._read, place, self.bytes // among)

    def _read(
        self, place: Any, room: int, loader: DataLoader[Any], indices: Sequence[Any], transform: Transform | None
    ) -> Iterable[Any] | None:
        keeps = room > 0 and hasattr(loader.dataset, "keeping")
        if not (loader.num_workers or keeps):
            return None
        if loader.num_workers and not _can_be_sent(transform):
            self._keep((place, "alone"), reader := _Reader(loader, 0, transform))
            return _Round(reader, indices, None)
        found = self._readers.get(place)
        reader = found if found is not None and found.fits(loader) else _Reader(loader, room)
        self._keep(place, reader)
        return _Round(reader, indices, transform)

    def _keep(self, place: Any, reader: _Reader) -> None:
        """Put a reader into a place and close the one that was there."""
        before, self._readers[place] = self._readers.get(place), reader
        if before is not None and before is not reader:
            before.close()


class _Reader:
    """A loader that is told in each pass what to read; its workers stay."""

    def __init__(self, loader: DataLoader[Any], room: int, transform: Transform | None = None) -> None:
        self.dataset, self.collate, self.options = loader.dataset, loader.collate_fn, options_of(loader)
        self.orders: list[_Order] = []
        self.numbers = count()
        self.loader: DataLoader[Any] = DataLoader(
            _Source(self.dataset, self.collate, room // max(1, loader.num_workers), transform),
            batch_size=None,
            sampler=_Orders(self),
            collate_fn=_as_it_is,
            persistent_workers=loader.num_workers > 0,
            **options_of(loader),
        )

    def fits(self, loader: DataLoader[Any]) -> bool:
        """Whether another loader would read the same in the same way."""
        same = loader.dataset is self.dataset and loader.collate_fn == self.collate
        now, then = options_of(loader), self.options
        return same and all(now[name] == value for name, value in then.items() if name != "generator")

    def close(self) -> None:
        """Stop the workers."""
        stop_workers(self.loader)


class _Orders:
    """What a reader is to read now, as a sampler."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader

    def __iter__(self) -> Iterator[_Order]:
        return iter(self.reader.orders)

    def __len__(self) -> int:
        return len(self.reader.orders)


class _Round:
    """The batches of one pass."""

    def __init__(self, reader: _Reader, indices: Sequence[Any], transform: Transform | None) -> None:
        self.reader = reader
        number = next(reader.numbers)
        self.orders = [_Order(number, entry, transform) for entry in indices]

    def __iter__(self) -> Iterator[Any]:
        self.reader.orders = self.orders
        for batch in self.reader.loader:
            if isinstance(batch, _Failed):
                batch.raise_again()
            yield batch


@dataclass(frozen=True)
class _Order:
    """What a worker is asked for: the number of the pass, what a batch is made of, and what is made of its pictures."""

    number: int
    indices: Any
    transform: Transform | None


@dataclass(frozen=True)
class _Failed:
    """What went wrong in a worker: in one line, with the traceback behind it."""

    refused: bool
    message: str
    traceback: str

    def raise_again(self) -> None:
        kind = ValueError if self.refused else RuntimeError
        raise kind(self.message) from RuntimeError(f"in a worker of the loader:\n{self.traceback}")


class _Source(Dataset[Any]):
    """Whole batches of a data set, made in the process that is asked."""

    def __init__(self, dataset: Any, collate: Callable[[Any], Any], room: int, transform: Transform | None) -> None:
        self.dataset, self.collate, self.room, self.transform = dataset, collate, room, transform
        self._kept: Any = None
        self._number: int | None = None
        self._start = ExitStack()

    def __getitem__(self, order: _Order) -> Any:
        if get_worker_info() is None:
            return self._make(order)
        try:
            return self._make(order)
        except Exception as error:
            refused = isinstance(error, ValueError)
            message = str(error) if refused else f"{type(error).__name__}: {error}"
            return _Failed(refused, message, format_exc())

    def _make(self, order: _Order) -> Any:
        if get_worker_info() is not None and order.number != self._number:
            self._start.close()
            self._start.enter_context(preserve_rng(*find_random_sources(self.dataset)))
            self._number = order.number
        if self._kept is None:  # here, since generators of a data set are others in each process
            keeps = self.room > 0 and hasattr(self.dataset, "keeping")
            pictures = KeptPictures(self.room, find_random_sources(self.dataset)) if keeps else None
            self._kept = self.dataset.keeping(pictures) if keeps else self.dataset
        dataset, collate = as_wanted(self._kept, self.collate, order.transform or self.transform)
        if not isinstance(order.indices, _Batch):
            return collate(dataset[order.indices])
        at_once = getattr(dataset, "__getitems__", None)
        return collate(at_once(order.indices) if at_once else [dataset[index] for index in order.indices])


class _Batch(list[Any]):
    """Indices of single samples, which a batch is collated from."""


def as_batches(indices: Sequence[Any], batch_size: int) -> list[_Batch]:
    """Cut indices of samples into those of batches."""
    return [_Batch(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]


def options_of(loader: DataLoader[Any]) -> dict[str, Any]:
    """How a loader reads, whatever it reads: arguments of a loader that shares neither workers nor random state."""
    return {
        "num_workers": loader.num_workers,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context,
        "prefetch_factor": loader.prefetch_factor,
        "generator": torch.Generator().manual_seed(0),  # a loader without one draws from the global state
    }


def as_wanted(dataset: Any, collate: Callable[[Any], Any], transform: Transform | None) -> tuple[Any, Any]:
    """A data set that gives what a transform takes, and a collate function that lets it do so.

    Args:
        dataset: If it has ``originals()`` and the transform ``wants_originals``, pictures come as they lie on disk.
        collate: The loader's own.
        transform: Makes network inputs of pictures.
    """
    if transform is None:
        return dataset, collate
    if getattr(transform, "wants_originals", False) and hasattr(dataset, "originals"):
        dataset = dataset.originals()
    return dataset, PreparingCollate(collate, transform)


def _as_it_is(batch: Any) -> Any:
    return batch


def _can_be_sent(transform: Transform | None) -> bool:
    try:
        ForkingPickler.dumps(transform)
    except Exception:  # whatever an object of somebody's own raises
        return False
    return True
