"""The module that fine-tunes a backbone on a target; ``lightning-transfer finetune`` runs it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from lightning_transfer._compat import datamodule_of
from lightning_transfer.backbones import Backbone, load_backbone
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.inputs import describe_batch, keys_of, match_labels, split_batch, task_of
from lightning_transfer.passes import read_input_shape
from lightning_transfer.utilities.checks import check_in_interval, check_one_of, check_positive_int
from lightning_transfer.utilities.distributed import leave_group_at_exit
from lightning_transfer.utilities.imports import require

if TYPE_CHECKING:
    from torchmetrics import Metric

Task = Literal["classification", "multilabel", "regression"]
Mode = Literal["head", "full", "head_then_full", "lora"]
MODES = ("head", "full", "head_then_full", "lora")
_FIRST_RATE = 0.01  # share of the learning rate before any time has passed
_SCORE_NAMES = {"classification": "accuracy", "multilabel": "accuracy", "regression": "r2"}


class FineTuningModule(pl.LightningModule):
    """A backbone with a new linear head for a target task.

    Logs ``train/loss``, ``val/loss``, ``test/loss`` and for validation and test the score of the task: ``accuracy``
    (classification; the mean over labels for several labels a sample) or ``r2`` (regression). The original head stays
    in the backbone, frozen, so that :class:`~lightning_transfer.callbacks.TransferabilityMonitor` can follow scores
    that need source probabilities.

    Args:
        backbone: Any backbone of the package; raw inputs go in, its own preprocessing runs inside.
        num_outputs: Number of classes, labels or regression targets.
        task: ``"classification"`` (cross-entropy), ``"multilabel"`` (binary cross-entropy) or ``"regression"`` (mean
            squared error of standardised targets).
        mode: ``"head"`` trains the head on a frozen backbone in evaluation mode, ``"full"`` all weights,
            ``"head_then_full"`` the head alone for ``head_epochs`` epochs first. ``"lora"`` trains low-rank adapters in
            the linear layers of the backbone and the head (Hu et al., ICLR 2022; needs ``lightning-transfer[peft]``).
        head_epochs: See ``mode``.
        optimizer: Called with parameter groups; by default AdamW with learning rate 1e-3 and weight decay 1e-2. Biases
            and normalisation weights are not decayed.
        backbone_factor: Learning rate of the backbone over that of the head.
        layer_decay: Each of the ``blocks`` consecutive parts of the backbone learns by this factor slower than the
            part after it.
        blocks: Number of such parts.
        lora_rank: Rank of the adapters of ``mode="lora"``; they are scaled by 2.
        scheduler: ``"cosine"`` or ``"linear"`` decay to zero over the whole training (over its time, where the Trainer
            knows nothing but ``max_time``), or ``"constant"``.
        warmup: Share of the training in which the learning rates rise from zero.
        label_smoothing: Of the cross-entropy.
        batch_norm: ``"frozen"`` normalises with the statistics of pre-training, in training too; layers that carry none
            (means 0, variances 1) learn theirs, with a momentum of 0.1 at least. ``"train"`` leaves the layers as they
            are: networks from TensorFlow, with a momentum of 0.01, then need hundreds of steps before evaluation says
            anything.
        target_mean: Mean of each regression target, for standardisation.
        target_std: Standard deviation of each regression target.

    Raises:
        ValueError: For a bad argument.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.finetuning import FineTuningModule
        >>> backbone = ModuleBackbone(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), input_shape=(4,), head=None)
        >>> module = FineTuningModule(backbone, num_outputs=3, mode="head")
        >>> module(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
        >>> sum(parameter.requires_grad for parameter in module.parameters())
        2
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        backbone: Backbone | nn.Module | str,
        num_outputs: int,
        *,
        task: Task = "classification",
        mode: Mode = "full",
        head_epochs: int = 1,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer] | None = None,
        backbone_factor: float = 0.1,
        layer_decay: float = 1.0,
        blocks: int = 4,
        lora_rank: int = 8,
        scheduler: Literal["cosine", "linear", "constant"] = "cosine",
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        batch_norm: Literal["frozen", "train"] = "frozen",
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_one_of(task, tuple(_SCORE_NAMES), "task")
        check_one_of(mode, MODES, "mode")
        check_one_of(scheduler, ("cosine", "linear", "constant"), "scheduler")
        check_one_of(batch_norm, ("frozen", "train"), "batch_norm")
        check_positive_int(num_outputs, "num_outputs")
        self.save_hyperparameters(ignore=["backbone", "optimizer"])
        self.task, self.mode, self.head_epochs = task, mode, check_positive_int(head_epochs, "head_epochs", 0)
        self.optimizer_factory = optimizer or partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-2)
        self.backbone_factor = check_in_interval(backbone_factor, 0, math.inf, "backbone_factor")
        self.layer_decay = check_in_interval(layer_decay, 0, 1, "layer_decay")
        self.blocks = check_positive_int(blocks, "blocks")
        self.scheduler, self.warmup = scheduler, check_in_interval(warmup, 0, 1, "warmup")
        self.label_smoothing = check_in_interval(label_smoothing, 0, 1, "label_smoothing")

        self.backbone = load_backbone(backbone)
        self.head = nn.Linear(self.backbone.feature_dim, num_outputs)
        if self.backbone.head is not None:
            self.backbone.head.requires_grad_(False)
        if mode == "head":
            self.backbone.requires_grad_(False)
        elif mode == "lora":
            _add_adapters(self.backbone, check_positive_int(lora_rank, "lora_rank"))
        # by name: Lightning may put synchronised layers in their place
        self._frozen_norms: set[str] = set()
        for name, layer in self.backbone.named_modules():
            if batch_norm == "frozen" and isinstance(layer, _BatchNorm):
                if _knows_its_data(layer):
                    self._frozen_norms.add(name)
                elif layer.momentum is not None:
                    layer.momentum = max(layer.momentum, 0.1)
        self.register_buffer("target_mean", torch.tensor(target_mean or [0.0] * num_outputs))
        self.register_buffer("target_std", torch.tensor(target_std or [1.0] * num_outputs))
        self.val_score, self.test_score = _make_score(task, num_outputs), _make_score(task, num_outputs)

    @classmethod
    def for_target(
        cls, backbone: Backbone | nn.Module | str, target: pl.LightningDataModule, **options: Any
    ) -> FineTuningModule:
        """Build the module that fits a target: its task, number of outputs and, for regression, scale.

        Args:
            backbone: The backbone, its name, or a module, which takes the shape of the target's inputs if it does not
                say its own.
            target: The target. A datamodule of your own says ``num_classes`` (or ``class_names``), and its ``task`` if
                that is not classification; what it does not say is given by ``task`` and ``num_outputs``.
            options: Further arguments of the class.

        Raises:
            ValueError: If the number of outputs is neither known nor given.
        """
        options.setdefault("task", task_of(target))
        if options["task"] == "regression" and isinstance(target, TransferDataModule):
            targets = target.train_dataset.truth.double()
            mean, std = targets.mean(dim=0), targets.std(dim=0).clamp_min(torch.finfo(torch.float32).eps)
            scale = {"target_mean": mean.tolist(), "target_std": std.tolist(), "num_outputs": targets.shape[1]}
            options = scale | options
        if "num_outputs" not in options:
            names = getattr(target, "class_names", None) or ()
            options["num_outputs"] = getattr(target, "num_classes", None) or len(names)
        if not options["num_outputs"]:
            raise ValueError(
                f"Expected `{type(target).__name__}` to say `num_classes`, or the argument `num_outputs` "
                "(finetuning.num_outputs=N on the command line), but got neither."
            )
        return cls(load_backbone(backbone, shape=partial(read_input_shape, target)), **options)

    @property
    def objective(self) -> str:
        """Name of the score that the validation logs; higher is better."""
        return f"val/{_SCORE_NAMES[self.task]}"

    @property
    def backbone_is_frozen(self) -> bool:
        """Whether the backbone is left as it is in the current epoch."""
        waits = self.mode == "head_then_full" and self._trainer is not None and self.current_epoch < self.head_epochs
        return self.mode == "head" or waits

    @override
    def forward(self, inputs: Any) -> Tensor:
        """Output of the head for raw inputs, shape ``(b, num_outputs)``: logits, or standardised targets."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone_is_frozen):
            features = self.backbone(inputs).features
        output: Tensor = self.head(features)
        return output

    @override
    def on_fit_start(self) -> None:
        leave_group_at_exit()
        finds_unused = getattr(self.trainer.strategy, "_ddp_kwargs", {}).get("find_unused_parameters", False)
        if self.mode == "head_then_full" and self.trainer.world_size > 1 and not finds_unused:
            raise MisconfigurationException(
                "`mode='head_then_full'` leaves weights unused at first: "
                "use `strategy='ddp_find_unused_parameters_true'` with several processes."
            )

    @override
    def on_train_epoch_start(self) -> None:
        self.backbone.train(not self.backbone_is_frozen)
        for name in self._frozen_norms:
            self.backbone.get_submodule(name).eval()

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, _, truth = self._step(batch)
        self.log("train/loss", loss, batch_size=len(truth))
        return loss

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Logs loss and score, and gives what :meth:`predict_step` does."""
        return self._evaluate(batch, "val", self.val_score)

    @override
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch, "test", self.test_score)

    @override
    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Probabilities ``(b, k)``, of each class or of each label, or targets ``(b, m)`` in their own units."""
        return self._predictions(self(self._split(batch)[0]))

    def _predictions(self, output: Tensor) -> Tensor:
        output = output.float()
        if self.task == "regression":
            return output * self.target_std + self.target_mean
        return output.softmax(dim=1) if self.task == "classification" else output.sigmoid()

    def _split(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        return split_batch(batch, **keys_of(datamodule_of(self)))

    def _step(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        wanted = "targets" if self.task == "regression" else "labels"
        inputs, named = self._split(batch)
        if not named:
            raise ValueError(
                f"Expected batches with `{wanted}` for a {self.task} task, but got {describe_batch(batch)}: an "
                "attribute `label_key` of the datamodule says where they are."
            )
        output, truth = self(inputs), match_labels(named, wanted)[wanted]
        if self.task == "classification":
            loss = nn.functional.cross_entropy(output, truth.long(), label_smoothing=self.label_smoothing)
        elif self.task == "multilabel":
            loss = nn.functional.binary_cross_entropy_with_logits(output, truth.to(output.dtype))
        else:
            truth = (truth.reshape(len(truth), -1) - self.target_mean) / self.target_std
            loss = nn.functional.mse_loss(output, truth.to(output.dtype))
        return loss, output, truth

    def _evaluate(self, batch: Any, split: str, score: Metric) -> Tensor:
        loss, output, truth = self._step(batch)
        score.update(output.float(), truth)
        self.log(f"{split}/loss", loss, batch_size=len(truth), sync_dist=True)
        self.log(f"{split}/{_SCORE_NAMES[self.task]}", score, batch_size=len(truth), prog_bar=True)
        return self._predictions(output)

    @override
    def configure_optimizers(self) -> Any:
        groups = list(self.parameter_groups())
        try:
            optimizer = self.optimizer_factory(groups)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Expected the optimizer to take its arguments, but got: {error}.") from error
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * group["factor"]
        if self.scheduler == "constant" and not self.warmup:
            return optimizer
        schedule = LambdaLR(optimizer, self._share_of_rate(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Parameters that learn together, first layers first, the head last; ``factor`` scales the learning rate."""
        parts: list[tuple[float, list[nn.Parameter]]] = []
        layers = [direct for layer in self.backbone.modules() if (direct := _own_parameters(layer))]
        size = -(-len(layers) // self.blocks)
        for block, start in enumerate(range(0, len(layers), max(size, 1))):
            factor = self.backbone_factor * self.layer_decay ** (self.blocks - 1 - block)
            parts.append((factor, [parameter for direct in layers[start : start + size] for parameter in direct]))
        parts.append((1.0, list(self.head.parameters())))
        for factor, parameters in parts:
            matrices = [parameter for parameter in parameters if parameter.ndim > 1]
            vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
            if matrices:
                yield {"params": matrices, "factor": factor}
            if vectors:
                yield {"params": vectors, "factor": factor, "weight_decay": 0.0}

    def _share_of_rate(self, total: float) -> Callable[[int], float]:
        needs_end = self.scheduler != "constant" and not math.isfinite(total)
        timer = next(_timers_of(self.trainer), None) if needs_end else None
        if needs_end and timer is None:
            raise ValueError(
                f"Expected a Trainer that ends somewhere for `scheduler={self.scheduler!r}`, but got {total} steps: "
                "`max_epochs`, `max_steps` or `max_time` of the Trainer, or `scheduler='constant'` "
                "(finetuning.scheduler=constant)."
            )
        rising = self.warmup * total if math.isfinite(total) else 0.0

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            done = min(1.0, (step - rising) / max(total - rising, 1.0))
            if timer is not None:  # nothing but the clock says how far it is
                spent = timer.time_elapsed()
                passed = spent / max(spent + (timer.time_remaining() or 0.0), 1e-9)
                if passed < self.warmup:
                    return max(passed / self.warmup, _FIRST_RATE)
                done = min(1.0, (passed - self.warmup) / max(1.0 - self.warmup, 1e-9))
            decay = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}
            return decay[self.scheduler]

        return share


def _timers_of(trainer: pl.Trainer) -> Iterator[Timer]:
    return (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]


def adaptable_layers(backbone: Backbone) -> list[str]:
    """Names of the linear layers of a transformer that low-rank adapters fit into; none for other networks.

    Args:
        backbone: Its classifier is left out.
    """
    head = {id(module) for module in (backbone.head.modules() if backbone.head is not None else ())}
    return [
        name for name, module in backbone.named_modules() if isinstance(module, nn.Linear) and id(module) not in head
    ]


def _add_adapters(backbone: Backbone, rank: int) -> None:
    """Put low-rank adapters into the linear layers; all other weights are frozen."""
    names = adaptable_layers(backbone)
    if not names:
        raise ValueError(f"Expected a backbone with linear layers for `mode='lora'`, but {backbone.name} has none.")
    peft = require("peft", "peft")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    peft.inject_adapter_in_model(config, backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _knows_its_data(layer: _BatchNorm) -> bool:
    starts = ((layer.running_mean, 0.0), (layer.running_var, 1.0))
    return any(value is not None and bool((value != start).any()) for value, start in starts)


def _own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]


def _make_score(task: Task, num_outputs: int) -> Metric:
    from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy
    from torchmetrics.regression import R2Score

    if task == "regression":
        return R2Score()
    if task == "multilabel":
        return MultilabelAccuracy(num_outputs)
    return MulticlassAccuracy(num_outputs, average="micro")


def __getattr__(name: str) -> Any:
    if name != "ContinuedCheckpoint":
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    from lightning_transfer.callbacks.checkpoint import ContinuedCheckpoint

    warnings.warn(
        "`lightning_transfer.finetuning.ContinuedCheckpoint` has moved to `lightning_transfer.callbacks`.",
        FutureWarning,
        stacklevel=2,
    )
    return ContinuedCheckpoint
