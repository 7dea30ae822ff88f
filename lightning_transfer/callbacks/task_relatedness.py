"""Watch the task-relatedness bound from inside the Trainer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from typing_extensions import override

from lightning_transfer.callbacks.monitor import FeatureMonitor
from lightning_transfer.callbacks.publish import publish_figures
from lightning_transfer.functional.task_relatedness import check_given
from lightning_transfer.inputs import GROUPS, Key, keys_of
from lightning_transfer.relatedness import TaskRelatednessResult
from lightning_transfer.relatedness.config import DATA, BoundConfig, GroundCost
from lightning_transfer.utilities.checks import check_in_interval, check_positive_int
from lightning_transfer.utilities.digest import digest

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_TERMS = ("reweighted_reference_loss", "label_mismatch", "distribution_mismatch", "target_loss")
_NAME = "task_relatedness"
_MOST_SOLVES = 10
Kept = tuple[Tensor, Tensor, "Tensor | None", "Tensor | None"]  # places, features, labels, groups
Side = tuple[Tensor, "Tensor | None", "Tensor | None"]  # features, labels, groups
Sides = dict[int, list[Kept]]


class TaskRelatednessMonitor(FeatureMonitor):
    """Bound the target loss by a reference task, for the features as they are, before training and after every epoch.

    The bound of :func:`lightning_transfer.functional.task_relatedness` and its three terms appear as
    ``transfer/task_relatedness``, ``transfer/reweighted_reference_loss``, ``transfer/label_mismatch`` and
    ``transfer/distribution_mismatch``, beside ``transfer/target_loss``, the loss of the classifier that the bound is
    about; lower is better (``transfer/bound`` is the first again, deprecated). Target features come from the
    validation pass, as in :class:`~lightning_transfer.callbacks.TransferabilityMonitor`; reference data, unless given
    as features, make a pass of their own through the network as it is now, unless its weights and buffers below the
    features are those of the last pass. Each look learns the transforms on one half
    of the samples and evaluates them on the other, both ways. With ``options={"folds": 1}`` it learns and evaluates on
    the same samples, afresh and from the transforms of the last look, and goes on with the better one until that pays
    no more: a single solve would tell how long has been solved rather than what the features are. Features that have
    not changed keep their bound. Loggers that take figures get the decomposition and the label map.

    Args:
        reference: The reference task: a datamodule (its training data) or its name (``"digits"``), a folder of pictures
            or another path that :func:`~lightning_transfer.data.as_datamodule` takes, a loader of labelled batches, or
            features that stay as they are: a pair ``(features, labels)`` of shapes ``(n, d)`` and ``(n,)``, or with
            ids of groups ``(n,)`` after them. Data of either side that say what their groups are (an attribute
            ``group_key``) are divided by groups.
        layer: Dotted name of the module whose output is the feature; by default the input of the last
            :class:`~torch.nn.Linear`.
        before_fit: Look before training.
        every_n_epochs: Look at the end of every n-th epoch.
        data: The target: ``"val"``, ``"train"``, a loader or a datamodule.
        max_samples: Look at no more target samples.
        reference_samples: Look at no more reference samples.
        input_key: Key of the inputs in a batch of either side, where the usual names do not do (see
            :func:`~lightning_transfer.inputs.split_batch`); a reference with an attribute ``input_key`` has its own.
        label_key: The same for the labels.
        ground_cost: See :class:`~lightning_transfer.relatedness.BoundConfig`, whose defaults hold here too (and before
            them a ``config`` in ``options``).
        settle: With ``options={"folds": 1}``, solve on as long as this lowers the bound by more than this share; 1 for
            one solve from each start. Halves are solved for once: transforms of the last look have seen other halves.
        prefix: Group of the names of the values.
        name: Tells this monitor from others of its kind (another reference, say), which Lightning refuses side by side
            otherwise: the names of the values are ``prefix/name/value`` then.
        strict: Let an exception end the training instead of warning once.
        options: Further arguments of :func:`lightning_transfer.functional.task_relatedness`.

    Attributes:
        results: The last result of each loader, with transforms and class names.
        values: The last values, by name without prefix.
        history: One record a look: epoch, step and values.

    Raises:
        ValueError: For a bad argument.
        MisconfigurationException: In ``setup``, with a strategy that shards the module.

    Example:
        >>> import torch
        >>> from lightning.pytorch import Trainer
        >>> from lightning_transfer.callbacks import TaskRelatednessMonitor
        >>> reference = torch.randn(40, 8), torch.arange(40) % 4
        >>> trainer = Trainer(callbacks=[TaskRelatednessMonitor(reference, every_n_epochs=5)], logger=False)
    """

    def __init__(
        self,
        reference: Any,
        *,
        layer: str | None = None,
        before_fit: bool = True,
        every_n_epochs: int = 1,
        data: Any = "val",
        max_samples: int | None = 1000,
        reference_samples: int | None = 1000,
        input_key: Key | None = None,
        label_key: Key | None = None,
        ground_cost: GroundCost = BoundConfig.ground_cost,
        settle: float = 0.05,
        prefix: str = "transfer",
        name: str | None = None,
        strict: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            layer=layer,
            before_fit=before_fit,
            every_n_epochs=every_n_epochs,
            data=data,
            max_samples=max_samples,
            input_key=input_key,
            label_key=label_key,
            prefix=prefix,
            name=name,
            strict=strict,
        )
        fixed = isinstance(reference, tuple | list) and len(reference) in (2, 3) and isinstance(reference[0], Tensor)
        if isinstance(reference, str | Path):
            from lightning_transfer.data.loading import load_data

            reference = load_data(reference, "reference")
        if not (fixed or isinstance(reference, Iterable) or hasattr(reference, "setup")):
            raise ValueError(
                "Expected argument `reference` to be a datamodule, a loader or features and labels, "
                f"but got {reference!r}."
            )
        self.reference = reference
        self.reference_samples = (
            None if reference_samples is None else check_positive_int(reference_samples, "reference_samples")
        )
        self.settle = check_in_interval(settle, 0, 1, "settle")
        given = dict(options or {})
        config = given.pop("config", None)
        if config is None or ground_cost != BoundConfig.ground_cost:
            given = {"ground_cost": ground_cost, **given}
        self.data_options = {name: given.pop(name) for name in DATA if name in given}
        self.config = BoundConfig.of(config, given)
        check_given(self.config, **self.data_options)
        for name in ("warm_start", "reference_groups", "target_groups"):
            if self.data_options.get(name) is not None:
                raise ValueError(f"Expected argument `options` without {name!r}, which each look has of its own.")
        self.results: dict[int, TaskRelatednessResult] = {}
        self._digests: dict[int, str] = {}  # of the features behind the results
        self._passed = ""  # digest of the weights that the reference went through
        self._fixed = fixed
        self._target: Sides = defaultdict(list)
        self._reference: Sides = defaultdict(list)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "results": {loader: r.state_dict() for loader, r in self.results.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._restored:
            results = state_dict.get("results", {})
            self.results = {loader: TaskRelatednessResult.from_state(state) for loader, state in results.items()}

    @override
    def prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.set_up(trainer, self.reference)
        self._digests, self._passed = {}, ""
        self._reference.clear()
        if not self._restored:
            self.results = {}

    @override
    def reset(self) -> None:
        self._target.clear()

    @override
    def update(self, inputs: dict[str, Tensor], places: Tensor, dataloader_idx: int) -> None:
        self._target[dataloader_idx].append(_keep(inputs, places))

    def _update_reference(self, inputs: dict[str, Tensor], places: Tensor, dataloader_idx: int) -> None:
        self._reference[0].append(_keep(inputs, places))

    @override
    def gather(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fixed:
            return
        weights = self._digest_weights()
        if trainer.strategy.reduce_boolean_decision(bool(weights) and weights == self._passed, all=True):
            return
        self._reference.clear()
        self._passed = ""
        keys = keys_of(self.reference, self.input_key, self.label_key, own_first=True)
        with self.guard("The pass over the reference"):
            self.run_pass(
                trainer,
                pl_module,
                self.reference,
                self._update_reference,
                self.reference_samples,
                split="train",
                keys=keys,
            )
            self._passed = weights

    def _digest_weights(self) -> str:
        """The digest of what the features depend on; empty where that trains, or has values that have no digest."""
        assert self._capture is not None
        weights = self._capture.weights()
        if any(part.requires_grad or part.layout is not torch.strided or part.is_quantized for part in weights):
            return ""
        return digest(weights)

    @override
    def compute(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        reference: Side | None
        if self._fixed:
            features, labels, *groups = self.reference
            reference = features, labels, groups[0] if groups else None
        else:
            reference = _gather(trainer, self._reference[0])
        values: dict[str, float] = {}
        for loader in range(self.look.num_loaders):
            target = _gather(trainer, self._target[loader])
            state: dict[str, Tensor] | str = "no samples"
            if trainer.is_global_zero and target is not None and reference is not None:
                state = self._solve(trainer, reference, target, loader)
            state = trainer.strategy.broadcast(state)  # a long solve is made once, and all agree on its value
            if isinstance(state, str):
                self.fail("The bound", RuntimeError(state))
                continue
            self.results[loader] = result = TaskRelatednessResult.from_state(state)
            terms = {_NAME: result.bound, "bound": result.bound, **{term: getattr(result, term) for term in _TERMS}}
            values |= {f"{term}{self.suffix(loader)}": value for term, value in terms.items()}
        return values

    def _solve(
        self,
        trainer: Trainer,
        reference: Side,
        target: Side,
        loader: int,
    ) -> dict[str, Tensor] | str:
        from lightning_transfer.functional.task_relatedness import task_relatedness

        content = digest(part for part in (*reference, *target) if part is not None)
        previous = self.results.get(loader)
        if previous is not None and self._digests.get(loader) == content:
            return previous.state_dict()
        names = [getattr(data, "class_names", None) for data in (self.reference, getattr(trainer, "datamodule", None))]
        data = {"reference_class_names": names[0], "target_class_names": names[1]}
        data |= {"reference_groups": reference[2], "target_groups": target[2], **self.data_options}

        def solve(start: TaskRelatednessResult | None) -> TaskRelatednessResult:
            assert reference[1] is not None
            return task_relatedness(
                reference[0], reference[1], target[0], target[1], warm_start=start, config=self.config, **data
            )

        try:
            if reference[1] is None:
                raise ValueError("Expected the batches of the reference to have class labels, but got none.")
            with torch.enable_grad():
                result = self._settle(solve, previous)
        except Exception as error:
            if self.strict and trainer.world_size == 1:
                raise
            return f"{type(error).__name__}: {error}"
        self._digests[loader] = content
        return result.state_dict()

    def _settle(
        self,
        solve: Callable[[TaskRelatednessResult | None], TaskRelatednessResult],
        previous: TaskRelatednessResult | None,
    ) -> TaskRelatednessResult:
        """The best bound from no transforms and from the last ones, once solving on pays no more."""
        best = solve(None)
        if self.config.method == "published" or best.folds:  # which start nowhere else
            return best
        if previous is not None:
            with suppress(ValueError):  # classes or width are others than last time
                best = min(best, solve(previous), key=_bound_of)
        for _ in range(_MOST_SOLVES if self.settle < 1 else 0):
            last, best = best, min(best, solve(best), key=_bound_of)
            if last.bound - best.bound <= self.settle * last.bound:
                break
        return best

    @override
    def after_publish(self, trainer: Trainer) -> None:
        figures = {f"relatedness{self.suffix(loader)}": result.plot for loader, result in self.results.items()}
        publish_figures(trainer, figures, self.prefix)


def _keep(inputs: dict[str, Tensor], places: Tensor) -> Kept:
    labels, groups = (None if name not in inputs else inputs[name].cpu() for name in ("labels", GROUPS))
    return places, inputs["features"].cpu(), labels, groups


def _bound_of(result: TaskRelatednessResult) -> float:
    return result.bound


def _gather(trainer: Trainer, kept: list[Kept]) -> Side | None:
    """Bring the samples of all processes together in the order of the data, whatever that number is."""
    if trainer.world_size > 1:
        shares: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, kept)
        kept = [part for share in shares for part in share]
    if not kept:
        return None
    order = torch.cat([places for places, *_ in kept]).argsort(stable=True)

    def joined(parts: Iterable[Tensor | None]) -> Tensor | None:
        known = [part for part in parts if part is not None]
        return torch.cat(known)[order] if len(known) == len(kept) else None

    features = torch.cat([part for _, part, *_ in kept])
    return features[order], joined(part for _, _, part, _ in kept), joined(part for *_, part in kept)
