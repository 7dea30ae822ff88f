"""Samples that nearly repeat each other, or show a part of the same picture: they flatter scores that leave one out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.pictures import Prepared

NOTES = 1  # version of what is noted of inputs beside their features
_MOST_SAMPLES = 1000
_SIDE = 96  # of the part of a picture that is looked at, from its middle
_WINDOW = 8
_SMALLEST_PICTURE = 24  # smaller ones are compared as wholes: their windows are alike by chance
_KEPT = 64  # hashes of windows that are kept of a picture, the smallest
_SHARED = 4  # of them in common tell that two pictures overlap
_NO_HASH = 2**31
_FLATTEST = 6.0  # standard deviation, in grey levels, below which a window tells nothing
_NEARLY = 2.0  # root mean square difference, in grey levels, of thumbnails of nearly the same picture
_NEAREST = 1e-3  # of the median distance, within which two vectors are nearly the same
_DEVIATION = 58.0  # grey levels, of the usual normalisations
_FEWEST_NUMBERS = 4  # of a vector; shorter ones come that close by chance
_PRIMES = (1009, 7919, 15485, 20011, 24593, 28411, 30577, 32749)


class InputSketch:
    """Keeps a part of the inputs that pass through a module, to compare them afterwards.

    Example:
        >>> import torch
        >>> from lightning_transfer.screening.duplicates import InputSketch
        >>> pictures = torch.randint(0, 256, (4, 3, 40, 40), generator=torch.Generator().manual_seed(0)).byte()
        >>> shifted = pictures[:1, :, 5:, 5:]
        >>> sketch = InputSketch()
        >>> sketch.add(pictures[:, :, :35, :35])
        >>> sketch.add(shifted)
        >>> sketch.share_of_near_duplicates()
        0.4
    """

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.texts: list[str | tuple[int, ...]] = []
        self.count = 0

    def add(self, inputs: Any) -> None:
        """Keep what is needed of a batch; what cannot be compared is passed over.

        Args:
            inputs: Images ``(b, c, h, w)``, uint8 or floating in [0, 1], or as a transform has prepared them; or
                vectors, or ids of tokens, ``(b, d)``; or a list of texts; or a dict with ``input_ids`` and
                ``attention_mask``.
        """
        if self.count >= _MOST_SAMPLES:
            return
        if texts := _as_texts(inputs)[: _MOST_SAMPLES - self.count]:
            self.texts += texts
            self.count += len(texts)
            return
        prepared = isinstance(inputs, Prepared)
        inputs = inputs.values if prepared else inputs
        if not isinstance(inputs, Tensor) or inputs.ndim not in (2, 4):
            return
        inputs = inputs.detach()[: _MOST_SAMPLES - self.count].cpu()
        self.count += len(inputs)
        if inputs.ndim == 4:
            scale = _level(inputs, prepared) if inputs.is_floating_point() else 1.0
            top, left = (max(0, (side - _SIDE) // 2) for side in inputs.shape[2:])
            crop = inputs[:, :, top : top + _SIDE, left : left + _SIDE].float() * scale
            inputs = crop.mean(dim=1).round().to(torch.int16)
        self.parts.append(inputs.clone())

    def share_of_near_duplicates(self) -> float:
        """The share of the samples that have a near-duplicate among them, or overlap with another; 0 if unknown."""
        if self.texts and not self.parts:
            counts = Counter(self.texts)
            return sum(counts[text] > 1 for text in self.texts) / len(self.texts)
        if not self.parts or len({part.shape[1:] for part in self.parts}) > 1:
            return 0.0
        samples = torch.cat(self.parts)
        alike = _equal_rows(samples.flatten(1))
        if samples.is_floating_point() and samples.shape[1] >= _FEWEST_NUMBERS:
            alike |= _close_rows(samples.double())
        if samples.ndim == 3:
            alike |= _equal_thumbnails(samples.float())
            if min(samples.shape[1:]) >= _SMALLEST_PICTURE:
                alike |= _overlapping(samples.double())
        return float(alike.double().mean())


def _level(images: Tensor, prepared: bool) -> float:
    """Grey levels a unit: 255 of images in [0, 1], of normalised ones about the deviation that they were divided by."""
    normalised = prepared and bool((images.amin() < 0) | (images.amax() > 1))
    return _DEVIATION if normalised else 255.0


def _as_texts(inputs: Any) -> list[str | tuple[int, ...]]:
    """One text a sample, without case and spacing, or its token ids without padding; none where it is no text."""
    if isinstance(inputs, (list, tuple)) and all(isinstance(text, str) for text in inputs):
        return [" ".join(text.split()).casefold() for text in inputs]
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
        return []
    mask = inputs.get("attention_mask")
    seen = mask.bool() if isinstance(mask, Tensor) and mask.shape == ids.shape else torch.ones_like(ids).bool()
    rows = zip(ids.tolist(), seen.tolist(), strict=True)
    return [tuple(token for token, there in zip(*row, strict=True) if there) for row in rows]


@contextmanager
def sketch_inputs(module: nn.Module) -> Iterator[InputSketch]:
    """Sketch what a module is given while the body runs, or the features that it looks up.

    Args:
        module: Called with a batch of inputs.
    """
    from lightning_transfer.backbones import PrecomputedFeatures

    sketch = InputSketch()
    stored = module.features if isinstance(module, PrecomputedFeatures) else None

    handle = module.register_forward_pre_hook(partial(_add_inputs, sketch, stored))
    try:
        yield sketch
    finally:
        handle.remove()


def _add_inputs(sketch: InputSketch, stored: Tensor | None, _: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A hook that goes along to processes that are spawned, whose sketches are lost."""
    samples = inputs[0] if inputs else None
    sketch.add(samples if stored is None else stored[samples])


@contextmanager
def watch_duplicates(module: nn.Module, _: object = None) -> Iterator[Callable[[], dict[str, float]]]:
    """Sketch what a module is given, and tell what there is to keep beside its features.

    Args:
        module: Called with a batch of inputs.
        _: The data that they are of; whoever sees them once only does not ask.

    Yields:
        A function for afterwards: the share of the samples with a near-duplicate as ``near_duplicates``; nothing where
        no sample was seen.
    """
    with sketch_inputs(module) as sketch:
        yield lambda: {"near_duplicates": sketch.share_of_near_duplicates()} if sketch.count else {}


def _equal_rows(rows: Tensor) -> Tensor:
    _, numbers, counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    alike: Tensor = counts[numbers] > 1
    return alike


def _close_rows(rows: Tensor) -> Tensor:
    """Which vectors are nearly another one, as after rounding or by another batch."""
    rows = rows - rows.mean(dim=0)
    distances = torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    return distances.amin(dim=1) < _NEAREST * distances.median()


def _equal_thumbnails(pictures: Tensor) -> Tensor:
    """Which pictures are nearly another one, as after another compression or a change of size."""
    small = nn.functional.adaptive_avg_pool2d(pictures[:, None], _WINDOW).flatten(1)
    differences = torch.cdist(small, small) / math.sqrt(small.shape[1])
    differences.fill_diagonal_(math.inf)
    return (differences.amin(dim=1) < _NEARLY) & (small.std(dim=1) > _FLATTEST)


def _overlapping(pictures: Tensor) -> Tensor:
    """Which pictures share windows of equal pixels with another one, wherever in the picture they lie.

    Each picture is sketched by the smallest hashes of its windows: a part that two pictures share gives both the same.
    Sums of whole numbers are exact in float64 here, so that equal windows have equal hashes.
    """
    area = _WINDOW**2
    variance = area * _box_sums(pictures.square()) - _box_sums(pictures).square()  # times area squared
    hashes = _hash_windows(pictures).long()
    hashes = (hashes * 0x9E3779B1) % (2**31 - 1)  # mixed, so that the smallest are a fair draw
    hashes[variance < (area * _FLATTEST) ** 2] = _NO_HASH
    hashes = hashes.flatten(1).sort(dim=1).values
    hashes[:, 1:][hashes[:, 1:] == hashes[:, :-1]] = _NO_HASH
    return _share_hashes(hashes.topk(min(_KEPT, hashes.shape[1]), largest=False).values)


def _box_sums(pictures: Tensor) -> Tensor:
    """Sums over all square windows, shape ``(n, rows, columns)``, of halves that are doubled."""
    for dim in (2, 1):
        step = 1
        while step < _WINDOW:
            size = pictures.shape[dim] - step
            pictures = pictures.narrow(dim, 0, size) + pictures.narrow(dim, step, size)
            step *= 2
    return pictures


def _hash_windows(pictures: Tensor) -> Tensor:
    """Weighted sums over all square windows, shape ``(n, rows, columns)``."""
    for dim, weights in ((2, _PRIMES), (1, _PRIMES[::-1])):
        size = pictures.shape[dim] - _WINDOW + 1
        sums = torch.zeros_like(pictures.narrow(dim, 0, size))
        for start, weight in enumerate(weights):
            sums.add_(pictures.narrow(dim, start, size), alpha=weight)
        pictures = sums
    return pictures


def _share_hashes(sketches: Tensor) -> Tensor:
    """Which rows have enough hashes in common with another row."""
    from scipy.sparse import csr_matrix

    owners, places = (sketches != _NO_HASH).nonzero(as_tuple=True)
    _, hashes, counts = sketches[owners, places].unique(return_inverse=True, return_counts=True)
    told = counts[hashes] <= max(2, len(sketches) // 10)  # a window that many pictures have is a pattern
    shape = (len(sketches), max(1, len(counts)))
    table = csr_matrix((torch.ones(int(told.sum()), dtype=torch.int32), (owners[told], hashes[told])), shape=shape)
    shared = (table @ table.T).tolil()
    shared.setdiag(0)
    most = torch.from_numpy(shared.tocsr().max(axis=1).toarray()[:, 0])
    return most >= _SHARED


def remark_on_duplicates(share: float, titles: Sequence[str]) -> str:
    """What a reader of leave-one-out scores has to know; empty where there is nothing to say.

    Args:
        share: The share of samples with a near-duplicate.
        titles: The scores that leave one sample out.
    """
    if not titles or share < 0.05:
        return ""
    return (
        f"Flattered by samples that repeat or overlap others (at least {share:.0%}), since they leave one out: "
        f"{', '.join(titles)}. `groups` keeps samples that belong together on one side."
    )
