"""What fine-tuning a backbone on a target gives: the truth that scores are judged by."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_transfer.backbones import Backbone, load_backbone
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.extraction import extract, quiet_lightning
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.passes import read_input_shape
from lightning_transfer.utilities.checks import check_one_of, check_positive_int
from lightning_transfer.utilities.isolation import preserve_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODES = ("full", "head", "lora")
_LARGEST = 1e100
ONCE_AN_EPOCH = {  # validation on all data, which curves are made of
    "limit_val_batches": 1.0, "check_val_every_n_epoch": 1, "val_check_interval": 1.0, "num_sanity_val_steps": 0
}  # fmt: skip
_PENALTIES = (0.01, 1.0, 100.0)  # of a linear head, in units where 1 is scikit-learn's default


@dataclass(frozen=True)
class Outcome:
    """How well a backbone does on a target after training.

    Attributes:
        mode: What was trained: ``"full"`` (all weights), ``"head"`` (a linear head on fixed features) or ``"lora"``.
        values: On test data, one value a seed: accuracy, mean average precision (several labels a sample) or R².
        setting: The learning rate, or for a head the penalty, that did best on validation data.
        validation: What each setting that was tried gave on validation data, with the first seed; NaN where training
            diverged.
        seconds: Time of all trainings.
        curves: For each learning rate that was tried, what validation data gave after each epoch, with the first seed;
            empty for a head.
    """

    mode: str
    values: tuple[float, ...]
    setting: float
    validation: Mapping[float, float]
    seconds: float
    curves: Mapping[float, tuple[float, ...]] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds, NaN for a single one."""
        if len(self.values) < 2:
            return math.nan
        return math.sqrt(sum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    def to_dict(self) -> dict[str, Any]:
        """The outcome as plain JSON values."""
        tried = {str(setting): _finite(value) for setting, value in self.validation.items()}
        curves = {str(setting): [_finite(value) for value in curve] for setting, curve in self.curves.items()}
        return {**asdict(self), "values": list(self.values), "validation": tried, "curves": curves}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Outcome:
        """Read what :meth:`to_dict` gave.

        Raises:
            ValueError: If it is something else.
        """
        try:
            tried = {_real(float(s)): _number(v) for s, v in record["validation"].items()}
            curves = {_real(float(s)): tuple(map(_number, curve)) for s, curve in record.get("curves", {}).items()}
            values = tuple(map(_real, record["values"]))
            numbers = _real(record["setting"]), tried, _real(record["seconds"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"Expected an outcome, but got {str(record)[:200]}.") from error
        if not values:
            raise ValueError(f"Expected an outcome with values, but got {str(record)[:200]}.")
        return cls(str(record.get("mode")), values, *numbers, curves)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value


def _number(value: Any) -> float:
    return math.nan if value is None else _real(value)


def _real(value: Any) -> float:
    """A number that can be squared."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        raise ValueError(f"no number: {value!r:.80}")
    return float(value)


def find_outcome(
    backbone: Any,
    target: TransferDataModule,
    *,
    mode: str = "full",
    epochs: int = 8,
    learning_rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    seeds: int = 3,
    trainer: Mapping[str, Any] | None = None,
) -> Outcome:
    """Fine-tune a backbone: the learning rate by validation with one seed, then test accuracy with several.

    AdamW with a cosine schedule trains all weights at one learning rate. ``mode="head"`` extracts the features once and
    fits a logistic or ridge regression of standardised features, its penalty chosen on validation data; this has no
    randomness, so it gives a single value.

    Args:
        backbone: What :func:`~lightning_transfer.backbones.load_backbone` takes; a module is copied, not changed.
        target: With validation and test data.
        mode: ``"full"``, ``"head"``, or ``"lora"`` (low-rank adapters in the linear layers of a transformer).
        epochs: Of each training.
        learning_rates: Those that are tried.
        seeds: Trainings at the rate that did best.
        trainer: Arguments of Lightning's Trainer, but for those of when it validates.

    Returns:
        The outcome.

    Raises:
        ValueError: If an argument is wrong, the target lacks a split, or every training diverges.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.selection import find_outcome
        >>> pixels = ModuleBackbone(nn.Flatten(), input_shape=(1, 8, 8), head=None)
        >>> find_outcome(pixels, Digits(max_samples=200), mode="head").mean > 0.8
        True
    """
    check_one_of(mode, MODES, "mode")
    check_positive_int(epochs, "epochs")
    check_positive_int(seeds, "seeds")
    rates = list(dict.fromkeys(float(rate) for rate in learning_rates))
    if not rates or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"Expected argument `learning_rates` to hold positive numbers, but got {learning_rates!r}.")
    for split in ("val", "test"):
        check_measurable(target, split)
    start = time.perf_counter()
    curves: dict[float, list[float]] = {}
    if mode == "head":
        values, setting, tried = _fit_heads(fresh_backbone(backbone, target), target, trainer)
    else:
        train = partial(_train, backbone, target, mode, epochs, trainer=trainer or {})
        curves = {rate: [] for rate in rates}
        first = {rate: train(rate, seed=0, splits=("val", "test"), curve=curves[rate]) for rate in rates}
        tried = {rate: found["val"] for rate, found in first.items()}
        setting = _best_of(tried)
        others = [train(setting, seed=seed, splits=("test",))["test"] for seed in range(1, seeds)]
        values = [first[setting]["test"], *others]
        if not all(map(math.isfinite, values)):
            raise ValueError(f"Training diverges at the learning rate {setting:g} with some of {seeds} seeds.")
    seconds = time.perf_counter() - start
    return Outcome(mode, tuple(values), setting, tried, seconds, {rate: tuple(c) for rate, c in curves.items()})


def check_measurable(target: TransferDataModule, split: str) -> None:
    """Check that a split is there and that predictions of it can be measured.

    Args:
        target: The data, set up.
        split: Name of the split.

    Raises:
        ValueError: If there is no such split, or no sample of it has any of several labels.
    """
    truth = target.split_dataset(split).truth
    if target.task == "multilabel" and not bool(truth.any()):
        raise ValueError(f"Expected samples with a label in split {split!r} of `{target.name}`, but got none.")


def measure(task: str, outputs: Tensor, truth: Tensor) -> float:
    """Accuracy, mean average precision over labels, or R² averaged over targets, whatever their unit.

    Higher is better. A label that no sample has takes no part in the mean (NaN where there is no other). The R² of a
    target that does not vary is 1 where it is met exactly, else 0.

    Args:
        task: Kind of task.
        outputs: Probabilities ``(n, k)``, or predicted targets ``(n, m)``.
        truth: Labels ``(n,)`` or ``(n, k)``, or targets.
    """
    from torchmetrics.functional.classification import multilabel_average_precision

    if not bool(outputs.isfinite().all()):
        return math.nan
    if task == "classification":
        return float((outputs.argmax(dim=1) == truth).double().mean())
    if task == "multilabel":
        present = truth.bool().any(dim=0)
        if not bool(present.any()):
            return math.nan
        outputs, truth = outputs[:, present].float(), truth[:, present].long()
        return float(multilabel_average_precision(outputs, truth, num_labels=truth.shape[1]))
    targets = truth.reshape(len(truth), -1).double()  # torchmetrics takes sums of squares below 1e-4 for zero
    errors = (outputs.reshape(targets.shape).double() - targets).square().sum(0)
    spread = (targets - targets.mean(0)).square().sum(0)
    met = (errors == 0).double()  # a target that does not vary
    return float(torch.where(spread > 0, 1 - errors / spread, met).mean())


def fresh_backbone(candidate: Any, data: TransferDataModule) -> Backbone:
    """A backbone to train: a module is copied.

    Args:
        candidate: What :func:`~lightning_transfer.backbones.load_backbone` takes.
        data: What it is for; tells the shape of inputs where a module does not.
    """
    fresh = copy.deepcopy(candidate) if isinstance(candidate, nn.Module) else candidate
    return load_backbone(fresh, shape=partial(read_input_shape, data))


class RecordCurve(Callback):
    """Notes what validation gives after each epoch.

    Args:
        values: The list that it is added to.
        task: Kind of task.
        truth: Labels or targets of the validation data, in their order.
    """

    def __init__(self, values: list[float], task: str, truth: Tensor) -> None:
        self.values, self.task, self.truth = values, task, truth
        self._outputs: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        """The values so far, for a checkpoint."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from a checkpoint."""
        self.values[:] = state_dict["values"]

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any,
                                batch_idx: int, dataloader_idx: int = 0) -> None:  # fmt: skip
        """Keep the predictions for a batch."""
        self._outputs.append(outputs.cpu())

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure them."""
        self.values.append(measure(self.task, torch.cat(self._outputs), self.truth))
        self._outputs = []


def _best_of(tried: Mapping[float, float]) -> float:
    finite = {setting: value for setting, value in tried.items() if math.isfinite(value)}
    if not finite:
        raise ValueError(f"Training diverges at every learning rate of {list(tried)}.")
    return max(finite, key=lambda setting: finite[setting])


def _train(
    candidate: Any,
    target: TransferDataModule,
    mode: str,
    epochs: int,
    rate: float,
    *,
    seed: int,
    splits: Sequence[str],
    trainer: Mapping[str, Any],
    curve: list[float] | None = None,
) -> dict[str, float]:
    """One training: what it gives on each split, and on validation data after each epoch where a list is given."""
    shuffled = copy.copy(target)  # the data are read; the seed only orders them
    shuffled.seed = seed
    options = {name: value for name, value in trainer.items() if name != "_target_"}
    with preserve_rng(), quiet_lightning():
        torch.manual_seed(seed)
        module = FineTuningModule.for_target(
            fresh_backbone(candidate, target), shuffled, mode=mode, backbone_factor=1.0,
            optimizer=partial(torch.optim.AdamW, lr=rate, weight_decay=1e-2),
        )  # fmt: skip
        arguments: dict[str, Any] = {
            "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "num_sanity_val_steps": 0, "limit_val_batches": 0, **options,
            "max_epochs": epochs,
        }  # fmt: skip
        validation = None
        if curve is not None:
            validation = shuffled.split_dataloader("val")
            record = RecordCurve(curve, target.task, target.split_dataset("val").truth)
            given = arguments.get("callbacks") or ()
            given = [given] if isinstance(given, Callback) else given
            arguments |= {**ONCE_AN_EPOCH, "callbacks": [*given, record]}
        runner = Trainer(**arguments)
        runner.fit(module, train_dataloaders=shuffled.train_dataloader(), val_dataloaders=validation)
        found = {}
        for split in splits:
            outputs = runner.predict(module, dataloaders=shuffled.split_dataloader(split))
            predicted = torch.cat(cast("list[Tensor]", outputs)).cpu()
            found[split] = measure(target.task, predicted, target.split_dataset(split).truth)
    return found


def _fit_heads(
    backbone: Backbone, target: TransferDataModule, trainer: Mapping[str, Any] | None
) -> tuple[list[float], float, dict[float, float]]:
    kind = "targets" if target.task == "regression" else "labels"
    splits = {}
    for split in ("train", "val", "test"):
        kept = extract(backbone, target, split=split, keep=("features", kind), trainer=trainer, progress=False).kept
        splits[split] = kept["features"].double().numpy(), kept[kind]
    mean, std = splits["train"][0].mean(axis=0), splits["train"][0].std(axis=0)
    scaled = {split: ((x - mean) / (std + 1e-6), truth) for split, (x, truth) in splits.items()}
    predict = {penalty: _fit_head(target.task, *scaled["train"], penalty) for penalty in _PENALTIES}
    tried = {
        penalty: measure(target.task, predictor(scaled["val"][0]), scaled["val"][1])
        for penalty, predictor in predict.items()
    }
    setting = _best_of(tried)
    return [measure(target.task, predict[setting](scaled["test"][0]), scaled["test"][1])], setting, tried


def _fit_head(task: str, features: NDArray[Any], truth: Tensor, penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if task == "regression":
        ridge = Ridge(alpha=penalty).fit(features, truth.reshape(len(truth), -1).numpy())
        return lambda x: torch.as_tensor(ridge.predict(x)).reshape(len(x), -1)

    def logistic(labels: NDArray[Any]) -> Any:
        return LogisticRegression(C=1 / penalty, max_iter=500).fit(features, labels)

    if task == "classification":
        model = logistic(truth.numpy())
        count = int(truth.max()) + 1
        return lambda x: torch.zeros(len(x), count).index_copy_(
            1, torch.as_tensor(model.classes_), torch.as_tensor(model.predict_proba(x), dtype=torch.float32)
        )
    columns = [column.numpy() for column in truth.T]
    models = [logistic(column) if len(set(column.tolist())) > 1 else float(column[0]) for column in columns]
    return lambda x: torch.stack(
        [
            torch.full((len(x),), model)
            if isinstance(model, float)
            else torch.as_tensor(model.predict_proba(x)[:, 1], dtype=torch.float32)
            for model in models
        ],
        dim=1,
    )
