"""What the monitors share: when they look, which features they see, and that training does not notice."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.parameter import is_lazy
from typing_extensions import override

from lightning_transfer._compat import before_batch_transfer, current_step, request_loaders, validates_in_turn
from lightning_transfer.backbones import Backbone
from lightning_transfer.callbacks.capture import Capture, average_positions
from lightning_transfer.callbacks.look import Look
from lightning_transfer.callbacks.publish import publish_values
from lightning_transfer.callbacks.schedule import Schedule
from lightning_transfer.inputs import (
    SOURCE_INPUTS,
    Key,
    derive_source_inputs,
    describe_batch,
    keys_of,
    match_labels,
    names_targets,
    split_batch,
)
from lightning_transfer.passes import Pass, Places, as_loaders, places_in
from lightning_transfer.utilities.checks import check_positive_int
from lightning_transfer.utilities.isolation import find_random_sources, leave_no_trace, preserve_rng
from lightning_transfer.utilities.notice import warn_user

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_FORMAT = 2  # of the state in a checkpoint; the first carried no number
Sink = Callable[[dict[str, Tensor], Tensor, int], None]
_UNNAMED = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_SHARDED = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


class FeatureMonitor(Callback, ABC):
    """Base of the callbacks that score the features of the module in training.

    A subclass says what happens with the features: :meth:`reset`, :meth:`update` and :meth:`compute`.

    Args:
        layer: Module whose output is the feature, by its dotted name; the last linear layer's input where not given.
        before_fit: Make a pass before training starts; its values belong to step 0.
        every_n_epochs: Look again at the end of every n-th epoch, or in every n-th validation where the training data
            do not say how long an epoch is.
        data: ``"val"``: during training, features come from the validation pass that runs anyway. ``"train"``, a
            loader or a datamodule (its validation loader): a pass of its own, once an epoch.
        max_samples: Look at no more samples, spread evenly over the set; all where not given.
        input_key: Key of the inputs in a batch, or their position in a tuple; the ``input_key`` of ``data`` (as an
            attribute) or the usual names where not given, see :func:`~lightning_transfer.inputs.split_batch`.
        label_key: The same for the labels or targets.
        prefix: Group of the names of the values: ``prefix/value``.
        name: Tells this monitor from others of its kind: the names of the values are ``prefix/name/value`` then.
        strict: Let an exception in a score end the training; otherwise it is a warning, once.

    Attributes:
        values: The last values, by name without prefix.
        history: One record a look: epoch, step and values.
    """

    def __init__(
        self,
        *,
        layer: str | None = None,
        before_fit: bool = True,
        every_n_epochs: int = 1,
        data: Any = "val",
        max_samples: int | None = None,
        input_key: Key | None = None,
        label_key: Key | None = None,
        prefix: str = "transfer",
        name: str | None = None,
        strict: bool = False,
    ) -> None:
        known = data in ("train", "val") if isinstance(data, str) else isinstance(data, Iterable)
        if not (known or hasattr(data, "setup")):
            raise ValueError(
                f"Expected argument `data` to be 'val', 'train', a loader or a datamodule, but got {data!r}."
            )
        if not isinstance(prefix, str):
            raise ValueError(f"Expected argument `prefix` to be text, but got {prefix!r}.")
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"Expected argument `name` to be text, but got {name!r}.")
        self.layer, self.before_fit, self.data, self.strict = layer, before_fit, data, strict
        self.prefix = prefix if name is None else f"{prefix}/{name}"
        self.input_key, self.label_key = input_key, label_key
        self._keys = keys_of(data, input_key, label_key)  # of the data at hand
        self.schedule = Schedule(every_n_epochs)
        self.max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples")
        self.values: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.look = Look()
        self.available: tuple[str, ...] = ("features",)
        self._capture: Capture | None = None
        self._warned: set[str] = set()
        self._first: dict[str, float] | None = None  # values of step 0, until the training starts
        self._fitting, self._restored = True, False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "published" in vars(cls):
            warnings.warn(f"`{cls.__name__}.published` is now called `after_publish`.", FutureWarning, stacklevel=2)
            cls.after_publish = vars(cls)["published"]  # type: ignore[method-assign]

    # what subclasses say

    source_inputs: Collection[str] = ()  # which of SOURCE_INPUTS update() wants
    labels_as: str | None = None  # "labels" or "targets", where update() takes one of them only

    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready once the module is on its device, before the first look."""

    def gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make further passes with the weights that this look sees; called once a look on every process."""

    @abstractmethod
    def reset(self) -> None:
        """Forget all samples."""

    @abstractmethod
    def update(self, inputs: dict[str, Tensor], places: Tensor, dataloader_idx: int) -> None:
        """Take a batch.

        Args:
            inputs: ``features`` and what else is known of the same samples, by the names of the metrics' inputs.
            places: Place of each sample in the whole set, shape ``(n,)``.
            dataloader_idx: Which of the loaders it came from.
        """

    @abstractmethod
    def compute(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Values of the samples seen by all processes, the same on each; called on every process."""

    def after_publish(self, trainer: Trainer) -> None:
        """React to new values, after they have been published."""

    def forward(self, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Run the module on a batch in a pass of the monitor's own: its ``forward``, else its ``predict_step``.

        Override it where your module wants another call.

        Args:
            pl_module: The module in training, in evaluation mode.
            batch: A batch on the module's device.
            batch_idx: Its number on this process.
        """
        if is_overridden("predict_step", pl_module) and not is_overridden("forward", pl_module):
            pl_module.predict_step(batch, batch_idx)
            return
        inputs, _ = split_batch(batch, **self._keys)
        named = _by_name(pl_module.forward, inputs, batch)
        pl_module(inputs) if named is None else pl_module(**named)

    # hooks

    @property
    @override
    def state_key(self) -> str:
        data = self.data if isinstance(self.data, str) else type(self.data).__name__
        return self._generate_state_key(prefix=self.prefix, layer=self.layer, data=data)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"format": _FORMAT, "values": dict(self.values), "history": [dict(record) for record in self.history]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._fitting:  # testing the best checkpoint does not undo the history of the fit
            self.values, self.history = dict(state_dict.get("values", {})), list(state_dict.get("history", []))
            self._restored = bool(self.history)  # tuners restore a state in which nothing has been seen yet

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._fitting, self._restored = stage == "fit", False
        if self._fitting and isinstance(trainer.strategy, _SHARDED):
            raise MisconfigurationException(
                f"`{type(self).__name__}` runs the whole module on each process and does not support sharded "
                f"strategies, but got `{type(trainer.strategy).__name__}`."
            )

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._detach()
        backbones = (child for child in pl_module.modules() if isinstance(child, Backbone))
        backbone = next((child for child in backbones if child.head is not None), None)
        self._first = None
        self._keys = keys_of(
            _datamodule(trainer) if isinstance(self.data, str) else self.data, self.input_key, self.label_key
        )
        self.available = ("features", *(SOURCE_INPUTS if backbone is not None else ()))
        self.set_up(trainer, self.data)
        self.prepare(trainer, pl_module)
        self._capture = Capture(pl_module, self.layer, backbone if self.source_inputs else None)
        if self.before_fit and not self._restored:
            self._first = self._look_once(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored:
            publish_values(trainer, self.values, self.prefix, to_loggers=False)
            self._restored = False
        if self._first is not None:
            self._publish(trainer, self._first)
            self._first = None
        self.schedule.start(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._capture is not None and self.schedule.counts_validation(trainer, self._is_hooked(trainer)):
            self._begin()
            self.look.active = True
            self.look.num_loaders = len(as_loaders(trainer.val_dataloaders))

    @override
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._capture is None or not self.look.active:
            return
        self._gather(trainer, pl_module)
        self._capture.active = self.look.sound and self._is_hooked(trainer)

    @override
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._capture is None or not self._capture.active:
            return
        with self.guard("Reading a batch"), _quietly():
            if dataloader_idx not in self.look.places:
                loader = as_loaders(trainer.val_dataloaders)[dataloader_idx]
                limit = trainer.fit_loop.epoch_loop.val_loop.max_batches[dataloader_idx]
                self.look.places[dataloader_idx] = places_in(loader, trainer, limit, self.max_samples)
            self._take(batch, self.look.places[dataloader_idx], dataloader_idx, self._count)
        self._capture.active = False

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._capture is not None and self.look.active:
            self._gather(trainer, pl_module)  # on a process without batches
            self._publish(trainer, self._finish(trainer, pl_module))

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._capture is not None and not self._is_hooked(trainer) and self.schedule.counts_epoch(trainer):
            self._publish(trainer, self._look_once(trainer, pl_module))

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.schedule.saw_nothing(trainer):
            every = self.schedule.every_n_epochs
            self.warn_once("The training", f"ended before an epoch or a validation was due (`every_n_epochs={every}`)")

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach()

    # the machinery

    def _is_hooked(self, trainer: Trainer) -> bool:
        """Whether features come from the validation: one loader after the other, each batch through the layer."""
        return isinstance(self.data, str) and self.data == "val" and validates_in_turn(trainer)

    def _detach(self) -> None:
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
        if self.look.active:  # was interrupted
            self._begin()

    def _begin(self) -> None:
        self.look = Look()
        self.reset()

    def _look_once(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        self._begin()
        self._make_pass(trainer, pl_module)
        return self._finish(trainer, pl_module)

    def _gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the passes of a look within the validation.

        The weights are those that the validation runs with then, whatever the order of the callbacks that exchange
        them when a validation starts and ends.
        """
        if self.look.gathered:
            return
        if self._is_hooked(trainer):
            self.look.gathered = True
            self.gather(trainer, pl_module)
        else:
            self._make_pass(trainer, pl_module)

    def _make_pass(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look.gathered = True
        with self.guard("The pass over the data"):
            self.look.num_loaders = self.run_pass(trainer, pl_module, self.data, self._count, self.max_samples)
        self.gather(trainer, pl_module)

    def run_pass(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        data: Any,
        sink: Sink,
        max_samples: int | None = None,
        split: str = "val",
        keys: Mapping[str, Key | None] | None = None,
    ) -> int:
        """Run the module over this process's share of some data, and leave no trace of it.

        Args:
            trainer: A Trainer inside ``fit``.
            pl_module: The module in training.
            data: ``"train"`` or ``"val"`` for the Trainer's own data, a loader (or several) or a datamodule.
            sink: Takes the batches, called like :meth:`update`.
            max_samples: Look at no more samples of each loader.
            split: Which loader of a datamodule.
            keys: See :func:`~lightning_transfer.inputs.split_batch`; those of the monitor where not given.

        Returns:
            Number of loaders.
        """
        capture = self._capture
        assert capture is not None
        if any(map(is_lazy, chain(pl_module.parameters(), pl_module.buffers()))):
            raise RuntimeError("the module has lazy layers, whose weights the first batch of the training has to draw")
        datamodule = _datamodule(trainer)
        owner = data if isinstance(data, LightningDataModule) and data is not datamodule else None
        sources = find_random_sources(pl_module, datamodule, data)
        before, self._keys = self._keys, self._keys if keys is None else dict(keys)
        with leave_no_trace(trainer, pl_module, *sources), _lend(trainer, owner):
            if isinstance(data, str):
                limit = trainer.limit_val_batches if data == "val" else trainer.limit_train_batches
                loaders = as_loaders(request_loaders(trainer, data))
            else:
                limit = int(getattr(trainer, "fast_dev_run", 0)) or 1.0
                owned = isinstance(data, LightningDataModule)
                loaders = as_loaders(getattr(data, f"{split}_dataloader")() if owned else data)
            with preserve_rng(*find_random_sources(*loaders)):
                try:
                    for index, loader in enumerate(loaders):
                        walk = Pass(
                            loader,
                            rank=trainer.global_rank,
                            world_size=trainer.world_size,
                            limit=limit,
                            max_samples=max_samples,
                            sharded=True,
                            keys=self._keys,
                        )
                        for batch_idx, batch in enumerate(walk):
                            batch = _to_device(trainer, owner, batch, index)
                            capture.active = True
                            with trainer.precision_plugin.val_step_context():
                                self.forward(pl_module, batch, batch_idx)
                            self._take(batch, walk.places, index, sink)
                            capture.active = False
                finally:
                    capture.active = False
                    self._keys = before
        return len(loaders)

    def set_up(self, trainer: Trainer, data: Any) -> None:
        """Prepare and set up a datamodule that the Trainer does not know; do nothing for other data."""
        if isinstance(data, LightningDataModule) and data is not _datamodule(trainer):
            with preserve_rng(*find_random_sources(data)), _lend(trainer, data):
                if trainer.local_rank == 0:
                    data.prepare_data()
                trainer.strategy.barrier("datamodule of a monitor")
                data.setup("fit")

    def suffix(self, dataloader_idx: int) -> str:
        """What Lightning puts behind the names of values where there are several loaders."""
        return f"/dataloader_idx_{dataloader_idx}" if self.look.num_loaders > 1 else ""

    def _count(self, inputs: dict[str, Tensor], places: Tensor, dataloader_idx: int) -> None:
        self.look.samples[dataloader_idx] += len(places)
        self.update(inputs, places, dataloader_idx)

    def _take(self, batch: Any, places: Places, dataloader_idx: int, sink: Sink) -> None:
        assert self._capture is not None
        features, source_outputs = self._capture.take()
        if features is None:
            raise RuntimeError("the layer that features are read at did not run; name another one by `layer`")
        inputs = match_labels(split_batch(batch, **self._keys)[1], self.labels_as)
        self.look.batch = describe_batch(batch)
        self.look.targets = self._keys["label_key"] is None and names_targets(batch)
        inputs["features"] = features = average_positions(features, inputs.get("labels", inputs.get("targets")))
        if source_outputs is not None:
            inputs |= derive_source_inputs(source_outputs.float(), self.source_inputs)
        if any(len(value) != len(features) for value in inputs.values()):
            lengths = {name: len(value) for name, value in inputs.items()}
            raise ValueError(
                f"Expected argument `features` to have one row a sample like the others, but got {lengths}."
            )
        place, counts = places.take(len(features))
        if not counts.all():
            place, inputs = place[counts], {name: value[counts.to(value.device)] for name, value in inputs.items()}
        if features.device.type == "mps":  # which has no float64
            inputs = {name: value.cpu() for name, value in inputs.items()}
        if len(place):
            sink(inputs, place, dataloader_idx)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        self.look.active = False
        sound = trainer.strategy.reduce_boolean_decision(self.look.sound, all=True)
        some = trainer.strategy.reduce_boolean_decision(bool(self.look.samples), all=False)
        if not some and self.look.sound:
            self.warn_once("It", "saw no samples")
        values: dict[str, float] = {}
        if sound and some:
            with self.guard("The score"), _quietly():
                values = self.compute(trainer, pl_module)
        for name in [name for name, value in values.items() if not math.isfinite(value)]:
            self.warn_once(f"The score `{name}`", f"is {values.pop(name)} and is not logged")
        self.reset()
        return values

    def _publish(self, trainer: Trainer, values: dict[str, float]) -> None:
        self.schedule.note_look(trainer)
        if not values:
            return
        self.values = values
        record = {"epoch": trainer.current_epoch, "step": current_step(trainer)}
        self.history.append({**record, **values})
        with _quietly():
            publish_values(trainer, values, self.prefix)
            with self.guard("What follows the score"):
                self.after_publish(trainer)

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Turn an exception in the body into a warning, unless ``strict``; the samples so far no longer count then."""
        try:
            yield
        except Exception as error:
            self.look.sound = False
            self.fail(what, error)

    def fail(self, what: str, error: Exception) -> None:
        """Raise an exception in ``strict`` mode; else warn of it, the first time that ``what`` fails."""
        if self.strict:
            raise error
        self.warn_once(what, f"failed and is left out: {type(error).__name__}: {error}")

    def warn_once(self, what: str, happened: str) -> None:
        """Warn, but only the first time for each ``what``."""
        if what not in self._warned:  # on whichever process it happened
            self._warned.add(what)
            warn_user(f"`{type(self).__name__}` ({self.prefix}): {what} {happened}")


def _datamodule(trainer: Trainer) -> LightningDataModule | None:
    return getattr(trainer, "datamodule", None)


@contextmanager
def _quietly() -> Iterator[None]:
    with preserve_rng(), torch.inference_mode(False), torch.no_grad():
        yield


def _by_name(forward: Callable[..., Any], inputs: Any, batch: Any) -> dict[str, Any] | None:
    """Keyword arguments for a ``forward`` that takes the inputs by name; ``None`` for one that takes them as they are.

    What ``forward`` does not know stays behind; what it cannot do without may come from all of the batch.
    """
    if not isinstance(inputs, Mapping):
        return None
    parameters = signature(forward).parameters.values()
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return dict(inputs)
    needs = {p.name: p.default is Parameter.empty for p in parameters if p.kind not in _UNNAMED}
    source = {**batch, **inputs} if isinstance(batch, Mapping) else inputs
    if not needs.keys() & inputs.keys() or any(needed and name not in source for name, needed in needs.items()):
        return None
    return {name: source[name] for name, needed in needs.items() if name in inputs or needed}


@contextmanager
def _lend(trainer: Trainer, owner: LightningDataModule | None) -> Iterator[None]:
    """Let a datamodule that the Trainer does not know see the Trainer in its hooks."""
    before = None if owner is None else owner.trainer
    try:
        if owner is not None:
            owner.trainer = trainer
        yield
    finally:
        if owner is not None:
            owner.trainer = before


def _to_device(trainer: Trainer, owner: LightningDataModule | None, batch: Any, dataloader_idx: int) -> Any:
    batch = trainer.precision_plugin.convert_input(batch)
    if owner is None:
        batch = before_batch_transfer(trainer, batch, dataloader_idx)
        return trainer.strategy.batch_to_device(batch, dataloader_idx=dataloader_idx)
    batch = owner.on_before_batch_transfer(batch, dataloader_idx)
    batch = owner.transfer_batch_to_device(batch, trainer.strategy.root_device, dataloader_idx)
    return owner.on_after_batch_transfer(batch, dataloader_idx)
