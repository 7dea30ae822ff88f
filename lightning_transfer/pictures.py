"""Pictures on their way to a network: prepared in the loader's workers, and marked so that it happens once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_transfer.utilities.isolation import random_states


@dataclass
class Prepared:
    """A batch of network inputs: a backbone takes it as it is, without preprocessing.

    Attributes:
        values: Shape ``(b, *input_shape)``.
    """

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def ndim(self) -> int:
        """Dimensions, the batch's own included."""
        return self.values.ndim

    def __getitem__(self, index: Any) -> Prepared:
        return Prepared(self.values[index])

    def pin_memory(self) -> Prepared:
        """The same batch in page-locked memory, as loaders ask for it."""
        return Prepared(self.values.pin_memory())


@dataclass(frozen=True)
class PreparingCollate:
    """A collate function that hands pictures to a backbone's transform, in whichever process it runs.

    Pictures are objects of Pillow: an entry of a sample, or an entry of a batch that is a list of them. They become
    :class:`Prepared`; everything else is collated as before.

    Args:
        collate: The loader's own collate function.
        transform: From one picture to one network input.
    """

    collate: Callable[[list[Any]], Any]
    transform: Callable[[Any], Tensor]

    def __call__(self, samples: list[Any]) -> Any:
        """A batch of samples."""
        custom = self.collate is not default_collate
        return prepare_pictures(self.collate(samples) if custom else collate_pictures(samples), self.transform)


def prepare_pictures(batch: Any, transform: Callable[[Any], Tensor]) -> Any:
    """Replace the lists of pictures in a batch by network inputs.

    Args:
        batch: A dict, a tuple or list, or a list of pictures.
        transform: From one picture to one network input.

    Returns:
        The batch with :class:`Prepared` in place of each list of pictures.

    Raises:
        ValueError: If the transform gives inputs of different shapes.
    """
    if is_pictures(batch):
        return Prepared(_stack([transform(picture) for picture in batch]))
    if isinstance(batch, Mapping):
        return {
            name: prepare_pictures(value, transform) if is_pictures(value) else value for name, value in batch.items()
        }
    if isinstance(batch, (tuple, list)) and any(map(is_pictures, batch)):
        return [prepare_pictures(value, transform) if is_pictures(value) else value for value in batch]
    return batch


def is_pictures(value: Any) -> bool:
    """Whether a value is a list of Pillow's pictures."""
    from PIL import Image

    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, Image.Image) for v in value)


def collate_pictures(samples: Sequence[Any]) -> Any:
    """Collate like PyTorch, but leave pictures together in a list.

    Args:
        samples: Samples of a data set: pictures, or dicts or tuples with or without pictures.
    """
    first = samples[0]
    if is_pictures(samples):
        return list(samples)
    if isinstance(first, Mapping) and any(is_pictures([value]) for value in first.values()):
        return {name: collate_pictures([sample[name] for sample in samples]) for name in first}
    if isinstance(first, (tuple, list)) and any(is_pictures([value]) for value in first):
        return [collate_pictures(column) for column in zip(*samples, strict=True)]
    return default_collate(list(samples))


def _stack(inputs: list[Tensor]) -> Tensor:
    shapes = sorted({tuple(value.shape) for value in inputs})
    if len(shapes) > 1:
        raise ValueError(f"Expected the backbone's transform to give inputs of one shape, but got {shapes[:4]}.")
    return torch.stack(inputs)


class KeptPictures:
    """Decoded pictures of some inputs, by their place, as long as there is room; the first ones stay.

    What a data set draws at random is not kept.

    Args:
        room: Bytes that they may take, at 4 a pixel.
        sources: Generators of the data set's own.

    Example:
        >>> from PIL import Image
        >>> from lightning_transfer.pictures import KeptPictures
        >>> kept = KeptPictures(room=100)
        >>> one = kept.get(0, lambda place: Image.new("RGB", (5, 5)))
        >>> kept.get(0, lambda place: Image.new("RGB", (9, 9))) is one, kept.room
        (True, 0)
    """

    def __init__(self, room: int, sources: Sequence[Any] = ()) -> None:
        self.room, self.sources = room, list(sources)
        self._pictures: dict[int, Any] = {}

    def get(self, place: int, read: Callable[[int], Any]) -> Any:
        """The picture of a place, or whatever ``read`` gives for it."""
        if place in self._pictures:
            return self._pictures[place]
        before = random_states(*self.sources)
        value = read(place)
        if is_pictures([value]) and value.mode == "RGB":
            size = 4 * value.width * value.height  # what Pillow takes
            if size <= self.room and random_states(*self.sources) == before:
                self._pictures[place] = value
                self.room -= size
        return value


class KeptInputs:
    """Inputs of which the pictures are kept.

    Args:
        inputs: What gives them.
        kept: Where they are kept.
    """

    def __init__(self, inputs: Any, kept: KeptPictures) -> None:
        self.inputs, self.kept = inputs, kept

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        return self.kept.get(index, self.inputs.__getitem__)
