"""One pass of Lightning's predict loop through a backbone, which feeds scores as batches arrive."""

from __future__ import annotations

import io
import logging
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_transfer._compat import callbacks_of_packages_sought_once, spawns_processes
from lightning_transfer.backbones import load_backbone
from lightning_transfer.data.loading import load_data
from lightning_transfer.inputs import (
    GROUPS,
    INPUTS,
    SOURCE_INPUTS,
    Key,
    derive_source_inputs,
    describe_batch,
    keys_of,
    match_labels,
    needs_of,
    split_batch,
    wanted_labels,
)
from lightning_transfer.passes import ScoringPass
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.distributed import leave_group_at_exit
from lightning_transfer.utilities.files import write_atomically
from lightning_transfer.utilities.handover import read_results, write_results
from lightning_transfer.utilities.isolation import find_random_sources, preserve_modules, preserve_rng
from lightning_transfer.utilities.optimization import check_optimizations, optimized
from lightning_transfer.utilities.overlap import LateLooks, OneBehind
from lightning_transfer.workers import SharedReading

if TYPE_CHECKING:
    from typing_extensions import Self

    from lightning_transfer.backbones import Backbone

__all__ = ["INPUTS", "Extraction", "extract", "quiet_lightning", "split_batch"]

USUAL_OPTIONS = (
    "accelerator", "devices", "precision", "logger", "enable_checkpointing", "enable_model_summary",
    "enable_progress_bar", "inference_mode",
)  # fmt: skip


@dataclass(frozen=True)
class Extraction:
    """What came out of a pass.

    Attributes:
        metrics: The metrics that were handed in, fed with all samples; ready to compute.
        num_samples: Samples seen by all processes.
        seconds: Wall time of the pass: reading, forward passes and updates.
        kept: Tensors asked for by ``keep``, on the CPU, samples in order.
    """

    metrics: MetricCollection | Metric | None
    num_samples: int
    seconds: float
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        """How many samples, in which time, and the shapes of what was kept."""
        kept = ", ".join(f"{name} {tuple(values.shape)}" for name, values in self.kept.items())
        return f"{self.num_samples} samples in {self.seconds:.2f} s{f': {kept}' if kept else ''}"

    def save(self, path: str | Path) -> Path:
        """Write what was kept (features, labels, ...) for other programs, or for another screen.

        Args:
            path: A name that ends in ``.npz`` (numpy; half precision of torch's own becomes float32) or
                ``.safetensors``.

        Returns:
            The path.

        Raises:
            ValueError: If nothing was kept, or the name has another ending.

        Example:
            >>> import tempfile, torch
            >>> from torch import nn
            >>> from lightning_transfer import extract
            >>> from lightning_transfer.backbones import ModuleBackbone
            >>> net = ModuleBackbone(nn.Linear(4, 3), input_shape=(4,), head=None)
            >>> batches = [(torch.eye(4), torch.arange(4))]
            >>> extraction = extract(net, batches, keep=("features", "labels"))
            >>> extraction.save(f"{tempfile.mkdtemp()}/features.npz").name
            'features.npz'
        """
        path = check_path(path, "path")
        if path.suffix not in (".npz", ".safetensors"):
            raise ValueError(f"Expected argument `path` to end in .npz or .safetensors, but got {str(path)!r}.")
        if not self.kept:
            raise ValueError(
                "Expected tensors to save, but nothing was kept: extract(..., keep=('features', 'labels'))."
            )
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.kept.items()}
        if path.suffix == ".safetensors":
            from safetensors.torch import save

            write_atomically(path, save(tensors))
            return path
        buffer = io.BytesIO()
        arrays = {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in tensors.items()}
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomically(path, buffer.getvalue())
        return path

    @property
    def images_per_second(self) -> float:
        """Samples a second."""
        return self.num_samples / self.seconds if self.seconds > 0 else float("inf")


class Recorder(Protocol):
    """What listens to a pass in each of its processes; it never fails."""

    folder: Path

    def start(self, rank: int, folder: str | Path) -> None:
        """Hear which process this is, and the folder of the first one."""

    def add(self, features: Tensor, logits: Tensor | None) -> None:
        """Take features and logits of a batch."""

    def finish(self) -> None:
        """Take no more."""


def extract(
    backbone: Backbone | str | Path,
    data: Any,
    metrics: MetricCollection | Metric | None = None,
    *,
    split: str = "train",
    max_samples: int | None = None,
    trainer: Trainer | Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    seed: int = 0,
    progress: bool | None = None,
    title: str | None = None,
    input_key: Key | None = None,
    label_key: Key | None = None,
    group_key: Key | None = None,
    reading: SharedReading | None = None,
    optimize: Collection[str] = (),
    recorder: Recorder | None = None,
) -> Extraction:
    """Send a split of the data through a backbone and feed metrics with what they need, batch by batch.

    Nothing is stored but the states of the metrics and what ``keep`` names. Modes of modules, weights, buffers and the
    global random states are afterwards what they were; the metrics are reset first.

    Args:
        backbone: Takes raw inputs, gives features and logits; or its name, as for
            :func:`~lightning_transfer.backbones.load_backbone`.
        data: A datamodule, a ``DataLoader`` (or several), an iterable of batches, a pair ``(inputs, labels)`` of
            tensors or arrays, or a name or path as for a screen; see :func:`~lightning_transfer.inputs.split_batch` for
            what a batch may be. Pillow's pictures in it go through the backbone's ``transform``, in the loader's
            workers.
        metrics: Updated with the keywords ``features``, ``labels``, ``targets``, ``source_probs`` (softmax of the
            logits), ``source_labels`` (their argmax) and ``source_outputs`` (the logits), each metric with those that
            it takes. Floating values are float32 (float64 from float64 backbones) whatever the precision of the pass.
        split: Which loader of a datamodule is used: ``"train"``, ``"val"``, ``"test"`` or ``"predict"``.
        max_samples: Look at no more samples: a seeded random subset of map-style data, the first samples of others.
        trainer: Arguments of a Trainer (``accelerator``, ``devices``, ``precision``, ...; a ``_target_`` beside them is
            ignored), or a Trainer. In several processes every sample is seen once, and ``compute`` of the metrics
            merges the processes.
        keep: Names among :data:`INPUTS`, and ``"groups"``, to return as tensors.
        seed: Seed of the subset that ``max_samples`` draws.
        progress: Show a bar on standard error; by default if that is a terminal.
        title: What stands in front of the bar; by default the backbone's name.
        input_key: Key of the inputs in a batch, or their position in a tuple, where the usual names do not do; by
            default the attribute ``input_key`` of ``data``, if it has one.
        label_key: The same for the labels or targets.
        group_key: The same for what says which samples belong together (a patient, a document); metrics get it as
            ``groups``.
        reading: Loader workers and decoded pictures that last from one pass to the next; without it they end with the
            pass. (Not shared with processes that the Trainer spawns.)
        optimize: ``"channels_last"`` lays the weights of convolutions out for speed, ``"compile"`` compiles the forward
            pass (which takes a while, and again where the size of batches changes); features differ by rounding.
        recorder: Gets features and logits of every batch beside the metrics, as the feature cache asks for.

    Returns:
        The fed metrics, the number of samples, the time and the tensors kept.

    Raises:
        ValueError: If an argument is wrong, the data are empty, a metric needs what neither backbone nor data give, or
            a metric refuses a batch; the message names backbone and batch. On a GPU, which is not waited for, scores
            from moments refuse values (NaN, class ids out of range) at the end of the pass, with a number of batches.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.extraction import extract
        >>> backbone = ModuleBackbone(nn.Linear(4, 3, bias=False), input_shape=(4,), head=None)
        >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]
        >>> result = extract(backbone, batches, keep=("features", "labels"))
        >>> result.num_samples, result.kept["features"].shape
        (4, torch.Size([4, 3]))
    """
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    unknown = [name for name in keep if name not in (*INPUTS, GROUPS)]
    if unknown:
        raise ValueError(f"Expected argument `keep` to hold names among {(*INPUTS, GROUPS)}, but got {unknown}.")
    optimize = check_optimizations(optimize)
    if isinstance(backbone, (str, Path)):
        backbone = load_backbone(backbone)
    if isinstance(data, (str, Path)) or _is_pair(data):
        grouped = {} if group_key is None else {"group_key": group_key}
        data = load_data(data, "data", {"input_key": input_key, "label_key": label_key, **grouped})
    keys = keys_of(data, input_key, label_key, group_key)
    transform = backbone.transform if backbone.takes_pictures else None
    scoring_pass = ScoringPass(
        data, split=split, max_samples=max_samples, seed=seed, keys=keys, transform=transform
    )  # fmt: skip
    module = _FeaturePass(backbone, metrics, keep, keys, recorder)
    with ExitStack() as stack:
        stack.callback(module.let_go)
        stack.callback(module.defer_checks, False)
        for context in (
            quiet_lightning(),
            preserve_rng(*find_random_sources(data)),
            preserve_modules(backbone),
        ):
            stack.enter_context(context)
        put_back = stack.enter_context(_preserve_weights(backbone))
        stack.enter_context(optimized(backbone, optimize))
        if isinstance(data, LightningDataModule):  # its Trainer would keep this backbone alive
            stack.callback(setattr, data, "trainer", data.trainer)
        waiting = " (its first batch waits for the compiler)" if "compile" in optimize else ""
        runner = _build_trainer(trainer, f"{title or backbone.name}{waiting}", progress)
        _check_strategy(runner)
        stack.enter_context(_without_inference_mode(runner))
        if not spawns_processes(runner):
            module.put_back = put_back
            scoring_pass.reading = reading or stack.enter_context(closing(SharedReading()))
        else:
            folder = stack.enter_context(TemporaryDirectory())
            module.results_file = Path(folder) / "results.safetensors"
        runner.predict(module, datamodule=scoring_pass, return_predictions=False)
        if module.results_file is not None:
            module.read_back()
        if module.num_samples == 0:
            raise ValueError(f"Expected argument `data` to hold samples for split {split!r}, but got none.")
        return Extraction(metrics=metrics, num_samples=module.num_samples, seconds=module.seconds, kept=module.kept)


def feed(
    backbone: Backbone,
    batches: Iterable[Any],
    metrics: MetricCollection | Metric | None,
    keep: Sequence[str] = (),
    group_key: Key | None = None,
) -> Extraction:
    """Like :func:`extract` of batches at hand, in this process on the CPU in full precision, without a Trainer.

    Args:
        backbone: Gives features of a batch and draws no random numbers.
        batches: As for :func:`extract`.
        metrics: As there.
        keep: As there.
        group_key: As there.
    """
    module = _FeaturePass(backbone, metrics, keep, keys_of(batches, group_key=group_key))
    with preserve_rng(), preserve_modules(backbone), torch.no_grad():
        module.eval()
        module.begin()
        for number, batch in enumerate(batches):
            module.predict_step(batch, number)
        module.end()
    return Extraction(metrics, module.num_samples, module.seconds, module.kept)


class _FeaturePass(LightningModule):
    """Feeds metrics from ``predict_step``."""

    def __init__(
        self,
        backbone: Backbone,
        metrics: MetricCollection | Metric | None,
        keep: Sequence[str],
        keys: Mapping[str, Key | None],
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.recorder = recorder
        collection = MetricCollection({type(metrics).__name__: metrics}) if isinstance(metrics, Metric) else metrics
        self._hidden = (collection,)  # no submodule: a Trainer in half precision would cast the states
        self.keep = tuple(keep)
        self.keys = keys
        self._needs = {"argument `keep`": self.keep}
        if self.metrics is not None:
            members = self.metrics.items(keep_base=True, copy_state=False)
            self._needs |= {f"metric `{name}`": needs_of(metric) for name, metric in members}
        self._wanted = wanted_labels(chain.from_iterable(self._needs.values()))
        self.num_samples = 0
        self.seconds = 0.0
        self.kept: dict[str, Tensor] = {}
        self.results_file: Path | None = None
        self._parts: dict[str, list[Tensor]] = {name: [] for name in keep}
        self._start = 0.0
        self._missing_checked = False
        self._behind: OneBehind | None = None
        self._late: LateLooks | None = None
        self.put_back: Callable[[], set[torch.device]] = set  # puts weights where they were, and says where that is

    def cpu(self) -> Self:
        """Put the weights back first: at its end a Trainer would copy all of them for nothing."""
        places = self.put_back()
        return self if places == {self.device} else super().cpu()

    @property
    def metrics(self) -> MetricCollection | None:
        """The metrics that are fed."""
        return self._hidden[0]

    def on_predict_start(self) -> None:
        leave_group_at_exit()
        if self.recorder is not None:
            folder = self.trainer.strategy.broadcast(str(self.recorder.folder))
            self.recorder.start(self.trainer.global_rank, folder)
        self.begin()

    def begin(self) -> None:
        """Reset the metrics: here, since spawned processes begin with states in memory that they share."""
        if self.device.type == "cuda":
            self._behind, self._late = OneBehind(self.device, self._take), LateLooks()
        if self.metrics is not None:
            with nullcontext() if self._behind is None else self._behind.stream():
                self.metrics.to(self.device)
                self.metrics.reset()
            self.defer_checks(self.device.type != "cpu")
        self._start = time.perf_counter()

    def defer_checks(self, deferred: bool) -> None:
        """Let metrics that can look at the values of batches on their device, which is not waited for then."""
        for metric in () if self.metrics is None else self.metrics.values(copy_state=False):
            if hasattr(metric, "defer_checks"):
                cast(Any, metric).defer_checks = deferred

    def _raise_faults(self) -> None:
        for metric in () if self.metrics is None else self.metrics.values(copy_state=False):
            if getattr(metric, "defer_checks", False):
                try:
                    cast(Any, metric).raise_faults()
                except ValueError as error:
                    raise ValueError(f"{self.backbone.name}: {error}") from error

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> int:
        self._judge()
        try:
            values = self._run(batch, batch_idx)
            if self._behind is None:
                self._take(batch_idx, values)
            else:
                self._behind.put(batch_idx, values)
        except Exception:
            self._judge(wait=True)  # pictures that are none may be the cause
            raise
        return len(values["features"])

    def _run(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Send a batch through the backbone."""
        with self._naming(batch_idx), nullcontext() if self._late is None else self._late.during(batch_idx):
            inputs, named = split_batch(batch, **self.keys)
            output = self.backbone(inputs)
            with torch.autocast(self.device.type, enabled=False), _default_dtype(torch.float32):
                values = {**match_labels(named, self._wanted), "features": _full_precision(output.features)}
                if output.logits is not None:
                    values |= derive_source_inputs(_full_precision(output.logits))
            self._check_needs(values, batch)
        return values

    @contextmanager
    def _naming(self, batch_idx: int) -> Iterator[None]:
        """Name backbone and batch in errors."""
        try:
            yield
        except Exception as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(f"{self.backbone.name}, batch {batch_idx}: {error}") from error

    def _judge(self, wait: bool = False) -> None:
        """Refuse a batch whose inputs turned out to be wrong."""
        found = None if self._late is None else self._late.judge(wait)
        if found is not None:
            with self._naming(found[0]):
                raise found[1]

    def _take(self, batch_idx: int, values: dict[str, Tensor]) -> None:
        """Hand a batch on to the recorder, the metrics and what is kept."""
        with self._naming(batch_idx), torch.autocast(self.device.type, enabled=False), _default_dtype(torch.float32):
            if self.recorder is not None:
                self.recorder.add(values["features"], values.get("source_outputs"))
            self._feed(values)

    def _feed(self, values: dict[str, Tensor]) -> None:
        if self.metrics is not None:
            self.metrics.update(**values)
        for name, parts in self._parts.items():
            parts.append(values[name].detach().cpu())
        self.num_samples += len(values["features"])

    def _check_needs(self, values: Mapping[str, Tensor], batch: Any) -> None:
        if self._missing_checked:
            return
        for who, names in self._needs.items():
            missing = [name for name in names if name not in values]
            if missing:
                given = f"backbone and data give {sorted(values)} only"
                if not set(missing) <= set(SOURCE_INPUTS):
                    given += f"; a batch has {describe_batch(batch)}, and `label_key` says where the labels are"
                raise ValueError(f"{who} needs {missing}, but {given}.")
        self._missing_checked = True

    def on_predict_end(self) -> None:
        self.end(self.trainer.world_size)
        if self.recorder is not None:
            self.recorder.finish()  # before the processes meet below: then all parts are there
        count = torch.tensor(self.num_samples, device=self.device)
        self.num_samples = int(self.trainer.strategy.reduce(count, reduce_op="sum"))
        if self.results_file is not None:
            totals = torch.tensor([self.num_samples, self.seconds], dtype=torch.float64)
            tensors = {"totals": totals, **self.kept}
            write_results(self.results_file, self.metrics, tensors, first=self.trainer.is_global_zero)

    def end(self, processes: int = 1) -> None:
        """Take the time, and put together what was kept."""
        if self._behind is not None:
            self._judge(wait=True)
            self._behind.finish()
        self.seconds = time.perf_counter() - self._start
        self._raise_faults()
        self.kept = {name: _gather(parts, processes) for name, parts in self._parts.items()}

    def let_go(self) -> None:
        """Drop all that is large: a Trainer and its module hold each other until Python looks for such cycles."""
        del self.backbone, self.recorder
        self._hidden, self._parts, self.kept, self._behind, self._late = (None,), {}, {}, None, None
        self.put_back = set  # it holds the weights

    def read_back(self) -> None:
        """Take over what the spawned processes found."""
        if self.results_file is not None and self.results_file.is_file():
            self.kept = read_results(self.results_file, self.metrics)
            count, self.seconds = self.kept.pop("totals").tolist()
            self.num_samples = int(count)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _gather(parts: list[Tensor], world_size: int) -> Tensor:
    """One tensor of all processes' samples, in the order of the data: rank r holds the samples r, r + n, ..."""
    share = torch.cat(parts) if parts else None
    if world_size == 1:
        return torch.empty(0) if share is None else share
    shards: list[Tensor | None] = [None] * world_size
    torch.distributed.all_gather_object(shards, share)
    filled = [shard for shard in shards if shard is not None]
    if not filled:
        return torch.empty(0)
    merged = filled[0].new_empty((sum(map(len, filled)), *filled[0].shape[1:]))
    for rank, shard in enumerate(shards):
        if shard is not None:
            merged[rank::world_size] = shard
    return merged


def check_trainer(trainer: Trainer | Mapping[str, Any] | None) -> Trainer:
    """Try the arguments of a Trainer once.

    Args:
        trainer: As for :func:`extract`.

    Returns:
        The Trainer that they make.

    Raises:
        ValueError: If no Trainer can be built from them.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        with quiet_lightning():
            return _build_trainer(trainer, "", progress=False)
    except (MisconfigurationException, TypeError, ValueError) as error:
        hint = " Type trainer=cpu, or accelerator='cpu' in Python." if "gpu backend" in str(error) else ""
        raise ValueError(f"trainer: {error}{hint}") from error


def _is_pair(data: Any) -> bool:
    """Whether something is the inputs and the labels of all samples, and not two batches."""
    if not (
        isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, (Tensor, np.ndarray)) for part in data)
    ):
        return False
    inputs, labels = data
    return inputs.ndim > 1 and labels.ndim == 1 and len(inputs) == len(labels)


def _build_trainer(trainer: Trainer | Mapping[str, Any] | None, title: str, progress: bool | None) -> Trainer:
    from lightning_transfer.utilities.progress import ScoringBar

    if isinstance(trainer, Trainer):
        return trainer
    if not isinstance(trainer or {}, Mapping):
        raise ValueError(f"Expected argument `trainer` to be a Trainer or arguments of one, but got {trainer!r}.")
    defaults: dict[str, Any] = {
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": True,
        "inference_mode": False,
    }
    wanted = {**defaults, **{name: value for name, value in (trainer or {}).items() if not name.startswith("_")}}
    wanted["enable_progress_bar"] &= sys.stderr.isatty() if progress is None else progress
    if wanted["enable_progress_bar"]:
        wanted["callbacks"] = [*(wanted.get("callbacks") or ()), ScoringBar(title)]
    with callbacks_of_packages_sought_once():
        return Trainer(**wanted)


def _check_strategy(trainer: Trainer) -> None:
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

    if isinstance(trainer.strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
        raise ValueError(f"Expected a strategy that keeps modules whole, but got {type(trainer.strategy).__name__}.")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes on devices, tips and workers to itself for a while; errors and scores come through."""
    from lightning.fabric.utilities.warnings import PossibleUserWarning

    loggers = [
        logging.getLogger(name)
        for name in (
            "lightning.pytorch",
            "lightning.fabric",
            "lightning.pytorch.utilities.rank_zero",
            "lightning.fabric.utilities.rank_zero",
        )
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # Lightning over new PyTorch
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let new tensors have a dtype: the step of a Trainer in half or double precision changes the default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _without_inference_mode(trainer: Trainer) -> Iterator[None]:
    """Let the pass run under ``no_grad``: tensors made in inference mode could not be used for training later."""
    loop = trainer.predict_loop
    before = loop.inference_mode
    loop.inference_mode = False
    try:
        yield
    finally:
        loop.inference_mode = before


@contextmanager
def _preserve_weights(module: nn.Module) -> Iterator[Callable[[], set[torch.device]]]:
    """Put the very tensors of parameters and buffers back: a Trainer may move them or change their dtype.

    Yields:
        What puts them back sooner, and says where they are then.
    """
    parameters = [(parameter, parameter.data) for parameter in module.parameters()]
    buffers = [(child, n, b) for child in module.modules() for n, b in child.named_buffers(recurse=False)]

    def put_back() -> set[torch.device]:
        for parameter, values in parameters:
            parameter.data = values
        for child, name, values in buffers:
            setattr(child, name, values)
        return {values.device for _, values in parameters} | {values.device for _, _, values in buffers}

    try:
        yield put_back
    finally:
        put_back()
