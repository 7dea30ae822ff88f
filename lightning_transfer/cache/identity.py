"""What data and a backbone are: names of their content, or the reason why there is none."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, default_collate, default_convert

from lightning_transfer.backbones.base import Backbone, undisturbed
from lightning_transfer.backbones.layers import OUTPUT, LayeredBackbone
from lightning_transfer.cache.files import FileHashes
from lightning_transfer.cache.store import answers_agree
from lightning_transfer.data.base import TransferDataset
from lightning_transfer.data.hugging_face import Column
from lightning_transfer.data.images import ImageFiles, OriginalFiles
from lightning_transfer.data.samples import LazyInputs, PickInput, as_input
from lightning_transfer.data.shards import Member
from lightning_transfer.inputs import split_sample
from lightning_transfer.passes import Pass
from lightning_transfer.pictures import PreparingCollate, collate_pictures, is_pictures
from lightning_transfer.utilities.digest import digest
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.isolation import preserve_rng

_PLAIN_COLLATES = (default_collate, default_convert, collate_pictures)
_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device")
_READ_TWICE = 2  # samples, to find what is drawn at random
_OWN = __name__.partition(".")[0]
_TEXT = (
    "The 3 quick brown foxes' e-mail (naïve@Zürich.example) cost $1,299.50 - 'twas "
    "unbelievably antidisestablishmentarian! Ωμέγα привет 你好 🙂 <b>def f(x): return x**2</b>\tWAS   it?"
)
Keys = Mapping[str, Any]


class NoIdentityError(ValueError):
    """Data or a backbone of which nothing says what they hold; the message is the reason."""


class DataIdentity:
    """Names the inputs that passes over data give, never their labels.

    Args:
        hashes: For the files among the data.
    """

    def __init__(self, hashes: FileHashes) -> None:
        self.hashes = hashes

    def of(self, walks: Sequence[Any], owner: LightningDataModule, keys: Keys) -> str:
        """Name the inputs of passes.

        Args:
            walks: Passes over the loaders of the data, on one process.
            owner: The datamodule whose hooks run; any other one where there is none.
            keys: Keywords of :func:`~lightning_transfer.inputs.split_batch`.

        Returns:
            64 hexadecimal digits.

        Raises:
            NoIdentityError: If the data have none.
        """
        changed = [name for name in _HOOKS if getattr(type(owner), name) is not getattr(LightningDataModule, name)]
        if changed:
            raise NoIdentityError(f"its hook `{changed[0]}` may change the batches")
        return digest([], *(self._of_walk(walk, keys) for walk in walks))

    def _of_walk(self, walk: Any, keys: Keys) -> str:
        loader = walk.loader if isinstance(walk, Pass) else None
        if not isinstance(loader, DataLoader) or walk.num_samples is None:
            raise NoIdentityError("a stream or an iterable says so only when it has been read")
        collate = loader.collate_fn
        collate = collate.collate if isinstance(collate, PreparingCollate) else collate
        if collate not in _PLAIN_COLLATES:
            raise NoIdentityError("its `collate_fn` may change the batches")
        indices: list[Any] = list(loader.sampler)
        if loader.batch_size is None:
            indices = [place for batch in indices for place in batch]
        if not all(isinstance(place, int) for place in indices):
            raise NoIdentityError("its sampler gives no numbers")
        try:
            with preserve_rng():
                self._read_twice(loader.dataset, indices[:_READ_TWICE], keys)
            return self.of_samples(loader.dataset, indices, keys)
        except NoIdentityError:
            raise
        except Exception as error:  # whatever reading raises
            raise NoIdentityError(f"reading it gave {Failure.of(error)}") from error

    def _read_twice(self, dataset: Any, indices: Sequence[int], keys: Keys) -> None:
        for index in indices:
            first, again = (self.of_item(split_sample(dataset[index], **keys)[0]) for _ in range(2))
            if first != again:
                raise NoIdentityError("it gives different values when the same sample is read twice")

    def of_samples(self, dataset: Any, indices: Sequence[int], keys: Keys) -> str:
        """Name the inputs of some samples of a data set, in their order.

        Raises:
            NoIdentityError: If nothing says what the data set holds.
        """
        if _is_plain(dataset, TransferDataset):
            return self.of_inputs(dataset.inputs, indices)
        if _is_plain(dataset, TensorDataset):
            return digest([_rows(split_sample(dataset.tensors, **keys)[0], indices)])
        if _is_plain(dataset, Subset):
            return self.of_samples(dataset.dataset, [int(dataset.indices[place]) for place in indices], keys)
        if _is_plain(dataset, ConcatDataset):
            return self._of_concatenated(dataset, indices, keys)
        if _is_hugging_face(dataset):
            return self._of_hugging_face(dataset, indices)
        if isinstance(dataset, (list, tuple)):
            return digest([], *(self.of_item(split_sample(dataset[place], **keys)[0]) for place in indices))
        if callable(getattr(dataset, "fingerprint", None)):
            return digest([torch.as_tensor(indices)], str(dataset.fingerprint()))
        raise NoIdentityError(f"a {type(dataset).__name__} does not say what it holds")

    def _of_concatenated(self, dataset: ConcatDataset[Any], indices: Sequence[int], keys: Keys) -> str:
        starts = [0, *dataset.cumulative_sizes]
        places = [(bisect_right(starts, place) - 1, place) for place in indices]
        runs = [
            (part, [place - starts[part] for _, place in run]) for part, run in groupby(places, lambda pair: pair[0])
        ]
        return digest([], *(self.of_samples(dataset.datasets[part], run, keys) for part, run in runs))

    def of_inputs(self, inputs: Any, indices: Sequence[int]) -> str:
        """Name some inputs of a data set of this package."""
        if isinstance(inputs, Tensor):
            return digest([_rows(inputs, indices)])
        if _is_plain(inputs, ImageFiles) and inputs.stored is not None:
            return digest([_rows(inputs.stored, indices)])
        if _is_plain(inputs, ImageFiles) or _is_plain(inputs, OriginalFiles):
            size = getattr(inputs, "image_size", None)
            return digest([], f"pictures of {size}", *self.hashes.of([inputs.paths[place] for place in indices]))
        if _is_plain(inputs, LazyInputs):
            return self._of_lazy(inputs, inputs.indices[torch.as_tensor(indices)].tolist())
        if callable(getattr(inputs, "fingerprint", None)):
            return digest([torch.as_tensor(indices)], str(inputs.fingerprint()))
        raise NoIdentityError(f"a {type(inputs).__name__} does not say what it holds")

    def _of_lazy(self, inputs: LazyInputs, indices: list[int]) -> str:
        source, pick = inputs.source, inputs.pick
        if isinstance(pick, PickInput):
            return self.of_samples(source, indices, vars(pick))
        if pick is not None and not str(getattr(pick, "__module__", "")).startswith(f"{_OWN}."):
            raise NoIdentityError("a function of your own picks its inputs")
        picked = pick.name if isinstance(pick, Column) else getattr(pick, "__qualname__", "")
        if _is_hugging_face(source):
            return digest([], picked, self._of_hugging_face(source, indices))
        if not isinstance(source, (list, tuple)):
            raise NoIdentityError(f"a {type(source).__name__} does not say what it holds")
        items = [source[place] for place in indices]
        if items and all(isinstance(item, Path) for item in items):
            return digest([], picked, *self.hashes.of(items))
        if items and all(isinstance(item, Member) for item in items):
            shards = list(dict.fromkeys(item.shard for item in items))
            known = dict(zip(shards, self.hashes.of(shards), strict=True))
            return digest([], picked, *(f"{known[item.shard]} {item.offset} {item.size}" for item in items))
        return digest([], picked, *map(self.of_item, items))

    def _of_hugging_face(self, dataset: Any, indices: Sequence[int]) -> str:
        """The library's own name, which says nothing of the content of files that a column of pictures names."""
        outside = self.hashes.of(_named_files(dataset, indices))
        return digest([torch.as_tensor(indices)], _fingerprint_of(dataset), *outside)

    def of_item(self, value: Any) -> str:
        """Name one input: a tensor, numbers, text, the bytes of a file, a path, a picture, or a dict of these.

        Raises:
            NoIdentityError: If it is something else.
        """
        if isinstance(value, Tensor):
            return digest([value])
        if isinstance(value, str):
            return digest([], "text", value)
        if isinstance(value, bytes):
            return digest([torch.frombuffer(bytearray(value), dtype=torch.uint8)], "bytes") if value else digest([])
        if isinstance(value, Path):
            return self.hashes.of([value])[0]
        if isinstance(value, Mapping):
            named = sorted((str(name), entry) for name, entry in value.items() if entry is not None)
            return digest([], *(f"{name}={self.of_item(entry)}" for name, entry in named))
        if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biuf":
            return digest([torch.from_numpy(np.atleast_1d(np.ascontiguousarray(value)))], str(value.shape))
        if isinstance(value, Image.Image):
            picture = as_input(value)
            return digest([torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)], repr(picture.size))
        if isinstance(value, (int, float, list, tuple)) and not is_pictures(value):
            return self.of_item(np.asarray(value))
        raise NoIdentityError(f"its inputs are of the kind {type(value).__name__}")


class BackboneIdentity:
    """What a backbone is: its weights, its code and its preprocessing, as far as they can be told.

    Weights, structure and options are its fingerprint. What functions do, which have no content to compare, is told by
    what they give: a transform for two pictures, a tokeniser for a text, the network for two samples.

    Args:
        backbone: The backbone.
        fingerprint: Its fingerprint, where it is known already.

    Attributes:
        layers: Names of the layers whose features it gives, one behind the other.
        answers: Features and logits of two samples, by name: equal up to rounding on every run.

    Raises:
        NoIdentityError: If it gives different values for the same input.
    """

    def __init__(self, backbone: Backbone, fingerprint: str | None = None) -> None:
        layered = isinstance(backbone, LayeredBackbone)
        self.backbone: Backbone = backbone.backbone if isinstance(backbone, LayeredBackbone) else backbone
        self.layers = tuple(backbone.slices) if isinstance(backbone, LayeredBackbone) else (OUTPUT,)
        self.fingerprint = self.backbone.fingerprint() if fingerprint is None or layered else fingerprint
        try:
            self.inputs = self._digest_inputs()
            self.answers = self._answer()
        except NoIdentityError:
            raise
        except Exception as error:  # what a transform or network of the user's own raises is said by the pass
            raise NoIdentityError(f"a trial of it gave {Failure.of(error)}") from error

    def parts(self) -> dict[str, Any]:
        """What tells it from others, as plain JSON values."""
        return {"weights": self.fingerprint, "inputs": self.inputs, "versions": self._versions()}

    def _digest_inputs(self) -> str:
        parts = []
        if self.backbone.takes_pictures:
            transform = self.backbone.transform
            first, again = ([digest([transform(picture)]) for picture in _trial_pictures()] for _ in range(2))
            if first != again:
                raise NoIdentityError("its transform gives different values for the same picture")
            parts += first
        if callable(tokenize := getattr(self.backbone, "tokenize", None)):
            tokens = tokenize([_TEXT])
            parts.append(digest([tokens[name] for name in sorted(tokens) if isinstance(tokens[name], Tensor)]))
            vocabulary = getattr(getattr(self.backbone, "tokenizer", None), "get_vocab", None)
            if callable(vocabulary):
                parts.append(digest([], repr(sorted(vocabulary().items()))))
        return digest([], *parts)

    def _answer(self) -> dict[str, Tensor]:
        with undisturbed(self.backbone):
            inputs = self.backbone.preprocess(self.backbone.example_inputs(2))
            features, logits = self.backbone.encode(inputs)
        answers = {"features": features} if logits is None else {"features": features, "logits": logits}
        return {name: _as_floating(values) for name, values in answers.items()}

    def _versions(self) -> dict[str, str]:
        makers: set[Any] = {type(module) for module in self.backbone.modules()}
        if self.backbone.takes_pictures:
            library: Any = self.backbone.transform.library
            steps = getattr(library, "transforms", None)
            makers |= {type(library), *map(type, steps if isinstance(steps, (list, tuple)) else ())}
            makers |= {type(processor) for processor in [getattr(library, "processor", None)] if processor is not None}
            makers.add(Image.Image)
        makers.add(type(getattr(self.backbone, "tokenizer", None)))
        packages = {str(maker.__module__).partition(".")[0] for maker in makers} | {"torch"}
        return versions_of(packages - {_OWN, "builtins", "__main__"})

    def answers_alike(self, stored: Mapping[str, Tensor]) -> bool:
        """Whether the backbone gives what was kept of it, up to what rounding may do.

        Args:
            stored: :attr:`answers` of an earlier time.
        """
        return answers_agree(self.answers, stored)


def versions_of(packages: set[str]) -> dict[str, str]:
    """Versions of imported packages by name; those that do not tell theirs are left out."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in sorted(packages)}
    return {name: str(version) for name, version in found.items() if version is not None}


def _trial_pictures() -> list[Image.Image]:
    """A wide and a tall picture of many colours, the same ones on every call."""
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((9, 14), (17, 8))]
    return [
        Image.fromarray(part).resize(size, Image.Resampling.BICUBIC)
        for part, size in zip(coarse, ((310, 190), (150, 330)), strict=True)
    ]


def _as_floating(values: Tensor) -> Tensor:
    values = values.detach().cpu()
    return (values.clone() if values.is_floating_point() else values.float()).contiguous()


def _is_plain(data: Any, kind: type) -> bool:
    """Whether data are of a class that gives its samples as this module knows it, not of one that changes them."""
    return isinstance(data, kind) and getattr(type(data), "__getitem__") is getattr(kind, "__getitem__")  # noqa: B009


def _rows(values: Tensor, indices: Sequence[int]) -> Tensor:
    whole = len(indices) == len(values) and list(indices) == list(range(len(values)))
    return values if whole else values[torch.as_tensor(indices, dtype=torch.long)]


def _is_hugging_face(dataset: Any) -> bool:
    return type(dataset).__module__.partition(".")[0] == "datasets" and hasattr(dataset, "_fingerprint")


def _named_files(dataset: Any, indices: Sequence[int]) -> list[Path]:
    """The files of pictures that lie outside a data set of the library, which holds their paths."""
    paths: list[Path] = []
    for name, feature in dataset.features.items():
        if type(feature).__name__ != "Image":
            continue
        if not any(chunk.field("bytes").null_count for chunk in dataset.data.column(name).chunks):
            continue
        plain = dataset.with_format(None).select_columns([name]).cast_column(name, type(feature)(decode=False))
        entries = plain[list(indices)][name]
        paths += [Path(entry["path"]) for entry in entries if entry and entry["bytes"] is None and entry["path"]]
    return paths


def _fingerprint_of(dataset: Any) -> str:
    """The library's own name of a data set, with what its files look like now."""
    files = [Path(entry["filename"]) for entry in getattr(dataset, "cache_files", ())]
    status = [f"{file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.is_file()]
    return digest([], str(dataset._fingerprint), *status)
