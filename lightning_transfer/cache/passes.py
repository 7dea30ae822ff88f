"""Passes over data that run once: features that lie in a cache are fed to scores without their backbone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric, MetricCollection

from lightning_transfer.backbones.base import Backbone, BackboneOutput
from lightning_transfer.backbones.layers import OUTPUT, LayeredBackbone
from lightning_transfer.backbones.precomputed import PrecomputedFeatures
from lightning_transfer.cache.files import FileHashes
from lightning_transfer.cache.identity import BackboneIdentity, DataIdentity, NoIdentityError
from lightning_transfer.cache.store import FORMAT, LOGITS, Entry, EntryWriter, FeatureCache
from lightning_transfer.data.base import TransferDataset
from lightning_transfer.extraction import USUAL_OPTIONS, Extraction, check_trainer, extract, feed
from lightning_transfer.inputs import GROUPS, batch_size, keys_of, split_batch
from lightning_transfer.passes import Pass, ScoringPass, is_read_once, opened
from lightning_transfer.utilities.digest import digest
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.notice import warn_user

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


@dataclass(frozen=True)
class CachedExtraction(Extraction):
    """What came out of a pass, or of features that an earlier one left.

    Attributes:
        cached: Whether features came from the cache; ``seconds`` and ``images_per_second`` are then those of the pass
            that put them there.
        error: Relative error of features that were rounded for the cache, where such were used; else 0.
        saved: Seconds that the pass would have taken longer.
        notes: Says what was noted of the inputs during the pass.
    """

    cached: bool = False
    error: float = 0.0
    saved: float = 0.0
    notes: Callable[[], Mapping[str, Any]] = dict


class CachedPasses:
    """:func:`~lightning_transfer.extraction.extract` that finds features of an earlier pass again.

    Features are looked for by what gave them: the weights and code of the backbone, its preprocessing, the content of
    the inputs, the samples chosen of them, the precision and kind of device, and the versions of the libraries. Labels
    are no part of that. Inputs are looked at, and labels read, once for each object of this class: while it lives, data
    are taken to stay.

    Args:
        cache: Where features lie; ``None`` runs every pass.
        cache_key: What data are called that do not say what they hold (streams, loaders of one's own): whoever gives it
            changes it when the data change.
        watch: Looks at the inputs of a module during a pass over some data: a context manager that gives a function,
            which says afterwards what is to be noted.
        version: Of what it notes: features without notes of this version are made anew.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.cache import CachedPasses, FeatureCache
        >>> backbone = ModuleBackbone(nn.Linear(4, 3), input_shape=(4,), head=None)
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.tensor([0, 1, 0, 1]))
        >>> loader = torch.utils.data.DataLoader(data, batch_size=2)
        >>> passes = CachedPasses(FeatureCache(tempfile.mkdtemp()))
        >>> [passes(backbone, loader, keep=["features"]).cached for _ in range(2)]
        [False, True]
    """

    def __init__(
        self,
        cache: FeatureCache | None,
        cache_key: str | None = None,
        watch: Callable[[nn.Module, Any], AbstractContextManager[Callable[[], Mapping[str, Any]]]] | None = None,
        version: int = 0,
    ) -> None:
        if cache_key is not None and (not isinstance(cache_key, str) or not cache_key):
            raise ValueError(f"Expected argument `cache_key` to be a name of the data, but got {cache_key!r}.")
        self.cache, self.cache_key, self.watch, self.version = cache, cache_key, watch, version
        self._said: set[str] = set()
        self._names: dict[tuple[Any, ...], str] = {}
        self._labels: dict[tuple[Any, ...], tuple[dict[str, Tensor], int]] = {}
        self._seen: list[Any] = []  # data stay alive as long as they are known by their number in memory
        self._numerics: tuple[Any, dict[str, Any]] | None = None

    def __call__(
        self,
        backbone: Backbone,
        data: Any,
        metrics: MetricCollection | Metric | None = None,
        *,
        fingerprint: str | None = None,
        role: str = "target",
        **options: Any,
    ) -> CachedExtraction:
        """Run a pass, or feed metrics with what an earlier one gave.

        Args:
            backbone: As for :func:`~lightning_transfer.extraction.extract`.
            data: As there.
            metrics: As there.
            fingerprint: That of the backbone, where it is known.
            role: What the data are here; tells two data sets with one ``cache_key`` apart.
            options: As there.

        Raises:
            ValueError: As there.
        """
        with ExitStack() as stack:
            search = None
            if self.cache is not None and not isinstance(backbone, PrecomputedFeatures):
                search = self._look(self.cache, backbone, data, fingerprint, role, options, stack)
            if search is None or search.entry is None:
                return self._run(search, backbone, data, metrics, options)
        return self._replay(search.entry, search, backbone, metrics, options)

    def _look(
        self,
        cache: FeatureCache,
        backbone: Backbone,
        data: Any,
        fingerprint: str | None,
        role: str,
        options: Mapping[str, Any],
        stack: ExitStack,
    ) -> _Search | None:
        """Find what is known of a pass; None where it cannot be told what it would give."""
        name = str(getattr(data, "name", None) or type(data).__name__)
        try:
            numerics = self.numerics(options.get("trainer"))
            identity = BackboneIdentity(backbone, fingerprint)
        except NoIdentityError as error:
            self._say(f"The features of {backbone.name} are not cached: {error}.")
            return None
        except ValueError:  # a wrong Trainer, which the pass refuses
            return None
        about = {"backbone": backbone.name, **identity.parts(), "data": name}
        search = _Search(identity, about, None if self.watch is None else self.version)
        try:
            with _Walk(data, backbone, options).opened() as walk:
                if numerics["processes"] > 1 and not walk.is_one_set:
                    raise NoIdentityError("its samples have no numbers by which several processes could share them")
                same = (id(data), role, *walk.choices)
                if same not in self._names:
                    self._names[same] = self._name_samples(walk, role, FileHashes(cache.table))
                    self._seen.append(data)
                search.about |= {
                    "samples": self._names[same],
                    "split": options.get("split", "train"),
                    "max_samples": options.get("max_samples"),
                    "optimize": sorted(options.get("optimize", ())),
                    "seed": options.get("seed", 0) if options.get("max_samples") else None,
                    **{part: value for part, value in numerics.items() if part != "processes"},
                }
                read = partial(self._read_labels, walk, same)
                if not search.find(cache, read) and numerics["processes"] == 1:
                    stack.enter_context(cache.turn(search.key))
                    search.find(cache, read)  # what another process has put there meanwhile
        except NoIdentityError as error:
            hint = (
                "" if self.cache_key is not None else " `cache_key` gives it a name, `cache=False` turns this line off."
            )
            self._say(f"The features of `{name}` are not cached: {error}.{hint}")
            return None
        except ValueError:  # wrong arguments or data, which the pass refuses
            return None
        except Exception as error:
            self._say(f"The cache of features is not used: {Failure.of(error)}")
            return None
        return search

    def _read_labels(self, walk: _Walk, same: tuple[Any, ...]) -> tuple[dict[str, Tensor], int]:
        if same not in self._labels:
            self._labels[same] = walk.read_labels()
        return self._labels[same]

    def numerics(self, trainer: Any) -> dict[str, Any]:
        """What of a Trainer, and of PyTorch's settings, the values of features depend on.

        Args:
            trainer: As for :func:`~lightning_transfer.extraction.extract`.

        Raises:
            ValueError: If no Trainer can be built from it.
        """
        if self._numerics is None or self._numerics[0] is not trainer:
            runner = check_trainer(trainer)
            accelerator = type(runner.accelerator).__name__
            numerics = {
                "precision": str(runner.precision),
                "accelerator": accelerator,
                "matmul": torch.get_float32_matmul_precision(),
                "processes": runner.world_size,
            }
            if accelerator == "CUDAAccelerator":
                numerics["tf32"] = [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
            self._numerics = (trainer, numerics)
        return self._numerics[1]

    def _name_samples(self, walk: _Walk, role: str, hashes: FileHashes) -> str:
        if walk.is_read_once:
            raise NoIdentityError("it can be read once only")
        try:
            return DataIdentity(hashes).of(walk.passes, walk.owner, walk.keys)
        except NoIdentityError:
            if self.cache_key is None:
                raise
        return digest([], "named", self.cache_key, role)

    def _run(
        self, search: _Search | None, backbone: Backbone, data: Any, metrics: Any, options: Mapping[str, Any]
    ) -> CachedExtraction:
        writer = None if search is None else self._begin(search, backbone)
        try:
            with _notes_nothing() if self.watch is None else self.watch(backbone, data) as notes:
                extraction = extract(backbone, data, metrics, recorder=writer, **options)
            result = CachedExtraction(**vars(extraction), notes=lru_cache(notes))
            if search is not None and writer is not None:
                self._finish(search, writer, result)
        finally:
            if writer is not None:
                writer.discard()  # what was not made an entry
        return result

    def _begin(self, search: _Search, backbone: Backbone) -> EntryWriter | None:
        assert self.cache is not None
        try:
            writer = self.cache.writer(search.key)
        except OSError as error:
            self._say(f"Features are not written to `{self.cache.folder}`: {Failure.of(error)}", "writing")
            return None
        if isinstance(backbone, LayeredBackbone):
            writer.columns = {_tensor(layer): columns for layer, columns in backbone.slices.items()}
        return writer

    def _finish(self, search: _Search, writer: EntryWriter, result: CachedExtraction) -> None:
        assert self.cache is not None
        if writer.rank != 0:
            return
        failure: Any = writer.failure or "not every process could write its part"
        try:
            done = self.cache.finish(
                writer, search.about, search.identity.answers,
                num_samples=result.num_samples, seconds=result.seconds,
                notes={**result.notes(), **({} if search.notes is None else {"version": search.notes})},
            )  # fmt: skip
        except OSError as error:
            done, failure = False, Failure.of(error)
        if not done:
            self._say(f"Features are not written to `{self.cache.folder}`: {failure}", "writing")

    def _replay(
        self, entry: Entry, search: _Search, backbone: Backbone, metrics: Any, options: Mapping[str, Any]
    ) -> CachedExtraction:
        known = {name: value for name, value in options.items() if name in ("trainer", "keep", "progress", "title")}
        data: Any = DataLoader(_Numbered(entry.num_samples, search.labels), batch_size=entry.largest_batch)
        if entry.batches and self.numerics(options.get("trainer"))["processes"] == 1:
            data = list(data.dataset.batches(entry.batches))  # sums in the very same order
        stored = _StoredFeatures(entry, backbone, search.identity.layers)
        group_key = GROUPS if GROUPS in search.labels else None
        if entry.batches and self._is_plain(**known):
            extraction = feed(stored, data, metrics, known.get("keep", ()), group_key)
        else:
            extraction = extract(stored, data, metrics, group_key=group_key, **known)
        return CachedExtraction(
            **vars(extraction) | {"seconds": entry.seconds}, cached=True, error=entry.error,
            saved=max(0.0, entry.seconds - extraction.seconds), notes=lambda: entry.notes,
        )  # fmt: skip

    def _is_plain(self, trainer: Any = None, progress: bool | None = None, **_: Any) -> bool:
        """Whether a Trainer would only hand batches in memory to scores: no device, cast, callback, bar asked for."""
        numerics = self.numerics(trainer)
        kind = (numerics["accelerator"], numerics["precision"], numerics["processes"])
        if isinstance(trainer, Trainer) or progress or kind != ("CPUAccelerator", "32-true", 1):
            return False
        return all(name in USUAL_OPTIONS or name.startswith("_") for name in trainer or ())

    def _say(self, line: str, about: str = "") -> None:
        """Say a line once, or one line about a matter."""
        if (matter := about or line) not in self._said:
            self._said.add(matter)
            warn_user(line)


class _Search:
    """What a pass would give, and what was found of it."""

    def __init__(self, identity: BackboneIdentity, about: dict[str, Any], notes: int | None) -> None:
        self.identity, self.about, self.notes = identity, about, notes
        self.entry: Entry | None = None
        self.labels: dict[str, Tensor] = {}

    @property
    def key(self) -> str:
        """64 hexadecimal digits; what backbone and data are called is no part of it."""
        parts = {name: value for name, value in self.about.items() if name not in ("backbone", "data")}
        return digest([], json.dumps({**parts, "format": FORMAT}, sort_keys=True))

    def find(self, cache: FeatureCache, read_labels: Callable[[], tuple[dict[str, Tensor], int]]) -> bool:
        """Look for an entry of this very network, with the notes asked for and as many samples as there are labels."""
        for entry in cache.find(self.key, [_tensor(layer) for layer in self.identity.layers]):
            noted = self.notes is None or entry.notes.get("version") == self.notes
            if noted and self.identity.answers_alike(entry.answers()):
                self.labels, count = read_labels()
                if count == entry.num_samples:
                    self.entry = entry
                    return True
        return False


class _Walk:
    """The passes over some data, on one process and without a Trainer."""

    def __init__(self, data: Any, backbone: Backbone, options: Mapping[str, Any]) -> None:
        self.keys = keys_of(data, *(options.get(name) for name in ("input_key", "label_key", "group_key")))
        self.data = data
        self._chosen = {name: options[name] for name in ("split", "max_samples", "seed") if name in options}
        transform = backbone.transform if backbone.takes_pictures else None
        originals = None if transform is None else transform.wants_originals
        self.choices = (originals, *sorted(self.keys.items()), *sorted(self._chosen.items()))
        self._source = ScoringPass(data, keys=self.keys, transform=transform, **self._chosen)
        self.passes: list[Pass] = []

    @property
    def owner(self) -> LightningDataModule:
        """The datamodule whose hooks run."""
        return self._source.owner

    @property
    def is_one_set(self) -> bool:
        """Whether the samples have numbers from 0 on."""
        return len(self.passes) == 1 and self.passes[0].num_samples is not None

    @property
    def is_read_once(self) -> bool:
        """Whether the data are gone when they have been read."""
        return any(is_read_once(walk.loader) for walk in self.passes)

    @contextmanager
    def opened(self) -> Iterator[_Walk]:
        """Prepare the data, for a while."""
        with opened(self._source) as self.passes:
            yield self

    def read_labels(self) -> tuple[dict[str, Tensor], int]:
        """Labels or targets, and groups, of all samples, which may be none, and the number of samples."""
        if all(isinstance(getattr(walk.loader, "dataset", None), TransferDataset) for walk in self.passes):
            named = [_truth_of(walk.loader) for walk in self.passes]
        else:
            plain = ScoringPass(self.data, keys=self.keys, transform=_blank, **self._chosen)
            batches = (batch for walk in plain.predict_dataloader() for batch in walk)
            named = [self._labels_in(batch) for batch in batches]
        names = {name for _, labels in named for name in labels}
        return {name: torch.cat([labels[name] for _, labels in named]) for name in names}, sum(n for n, _ in named)

    def _labels_in(self, batch: Any) -> tuple[int, dict[str, Tensor]]:
        batch = self.owner.on_before_batch_transfer(batch, 0)
        batch = self.owner.on_after_batch_transfer(batch, 0)
        return batch_size(batch, **self.keys), split_batch(batch, **self.keys)[1]


def _blank(_: Any) -> Tensor:
    """What stands for a picture where only labels are looked at."""
    return torch.zeros(1)


def _truth_of(loader: Any) -> tuple[int, dict[str, Tensor]]:
    indices = torch.as_tensor(list(loader.sampler), dtype=torch.long)
    columns = {loader.dataset.key: loader.dataset.truth, GROUPS: loader.dataset.groups}
    return len(indices), {name: values[indices] for name, values in columns.items() if values is not None}


class _Numbered(Dataset[dict[str, Tensor]]):
    """Numbers of samples with their labels."""

    def __init__(self, count: int, labels: Mapping[str, Tensor]) -> None:
        self.columns = {"inputs": torch.arange(count), **labels}

    def __len__(self) -> int:
        return len(self.columns["inputs"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.columns.items()}

    def batches(self, sizes: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        """Batches of given sizes."""
        parts = {name: values.split(list(sizes)) for name, values in self.columns.items()}
        return (dict(zip(parts, batch, strict=True)) for batch in zip(*parts.values(), strict=True))


class _StoredFeatures(Backbone):
    """What a backbone gave, by number of sample."""

    def __init__(self, entry: Entry, backbone: Backbone, layers: Sequence[str]) -> None:
        super().__init__(
            name=backbone.name,
            feature_dim=backbone.feature_dim,
            num_source_classes=backbone.num_source_classes,
            input_shape=(1,),
            preprocessing=None,
        )
        self.entry = entry
        self.tensors = [_tensor(layer) for layer in layers]

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """Look up features and logits by number of sample, shape ``(b,)``."""
        places = inputs.cpu()
        parts = [self.entry.rows(name, places) for name in self.tensors]
        features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        logits = self.entry.rows(LOGITS, places).to(inputs.device) if LOGITS in self.entry.widths else None
        return BackboneOutput(features.to(inputs.device), logits)


@contextmanager
def _notes_nothing() -> Iterator[Callable[[], Mapping[str, Any]]]:
    yield dict


def _tensor(layer: str) -> str:
    """What the features of a layer are called in an entry."""
    return layer if layer == OUTPUT else f"layer {layer}"
