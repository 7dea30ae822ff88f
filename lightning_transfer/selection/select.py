"""From many backbones to a fine-tuned one under a budget: a screen, then short trainings of the few that remain."""

from __future__ import annotations

import json
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_transfer.backbones.pickles import check_file
from lightning_transfer.callbacks.checkpoint import keep_checkpoints_whole
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.data.loading import load_data
from lightning_transfer.extraction import quiet_lightning
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.report.text import human_seconds, title
from lightning_transfer.screening.candidates import name_candidates
from lightning_transfer.screening.consensus import consensus
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.screen import screen
from lightning_transfer.selection.outcome import ONCE_AN_EPOCH, RecordCurve, check_measurable, fresh_backbone, measure
from lightning_transfer.utilities.checks import check_path, check_positive_int
from lightning_transfer.utilities.errors import Failure, is_of_disk
from lightning_transfer.utilities.files import read_json, safe_name, try_to_write, write_atomically
from lightning_transfer.utilities.groups import rows_of_groups
from lightning_transfer.utilities.isolation import preserve_rng
from lightning_transfer.utilities.notice import warn_user
from lightning_transfer.utilities.text import plain

FORMAT = 1
FILE = "select.json"
_TRAINING = 3.0  # forward and backward, in forward passes
_GO_ON = (1.0, 0.75, 0.5)  # shares of those that were compared
_BUDGET = re.compile(r"\s*([0-9]+\.?[0-9]*(?:e-?[0-9]+)?|\.[0-9]+)\s*(s|seconds?|min|minutes?|h|hours?|epochs?|%)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MEASURES = {"classification": "accuracy", "multilabel": "mean average precision", "regression": "R²"}


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        amount: Seconds, epochs of training, or a share of what fine-tuning all backbones would cost (in FLOPs).
        unit: Which of these.

    Example:
        >>> from lightning_transfer.selection.select import Budget
        >>> Budget.of("10 min"), Budget.of("20 epochs"), Budget.of(0.1)
        (Budget(amount=600.0, unit='seconds'), Budget(amount=20.0, unit='epochs'), Budget(amount=0.1, unit='share'))
    """

    amount: float
    unit: Literal["seconds", "epochs", "share"]

    @classmethod
    def of(cls, budget: Any) -> Budget:
        """Read what users type.

        Args:
            budget: A share above 0 and at most 1, or text: ``"600 s"``, ``"10 min"``, ``"2 h"``, ``"20 epochs"``,
                ``"10 %"``.

        Raises:
            ValueError: If it is something else.
        """
        words, given = "a share in (0, 1], or text like '10 min', '20 epochs' or '10 %'", budget
        if isinstance(budget, str) and (match := _BUDGET.fullmatch(budget)):
            number, unit = float(match[1]), match[2]
            if unit == "%":
                budget = number / 100
            elif 0 < number < math.inf:
                if unit.startswith("epoch"):
                    return cls(number, "epochs")
                return cls(number * _SECONDS[unit[0]], "seconds")
        if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1:
            raise ValueError(f"Expected argument `budget` to be {words}, but got {given!r}.")
        return cls(float(budget), "share")

    def pays_for_screen(self, seen: float, count: int, epochs: int) -> bool:
        """Whether a screen leaves something; of seconds that is not known before.

        Args:
            seen: Share of the training samples that it looks at.
            count: Number of backbones.
            epochs: Of a whole training.
        """
        if self.unit == "seconds":
            return True
        cost = seen / _TRAINING
        return self.amount > (cost / epochs if self.unit == "share" else cost * count)


@dataclass
class Curve:
    """What a backbone's training has shown so far.

    Attributes:
        values: On validation data after each epoch.
        seconds: Time of its training.
    """

    values: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def latest(self) -> float:
        """The last value, minus infinity without a finite one."""
        return self.after(len(self.values))

    def after(self, epochs: int) -> float:
        """The value after so many epochs, minus infinity where there is no finite one."""
        value = self.values[epochs - 1] if 0 < epochs <= len(self.values) else math.nan
        return value if math.isfinite(value) else -math.inf


@dataclass(frozen=True)
class RunnerUp:
    """The best of the others that were trained, on the same test data.

    Attributes:
        name: The backbone.
        epochs: After which its training was stopped.
        value: As of the :class:`Selection`.
        lower: Lower end of its 95 % interval.
        upper: Upper end.
    """

    name: str
    epochs: int
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Selection:
    """What :func:`select` gives.

    Attributes:
        best: Name of the backbone that was chosen.
        checkpoint: The fine-tuned :class:`~lightning_transfer.finetuning.FineTuningModule`.
        value: Accuracy, mean average precision or R² on test data.
        lower: Lower end of its 95 % interval, over the choice of test data (of their groups, where they have some).
        upper: Upper end.
        measure: What the value is.
        curves: By backbone that was trained, the values on validation data after each epoch.
        price: ``seconds``, ``epochs`` of training and ``share`` of the cost of fine-tuning all, the screen included.
        board: The screen.
        varies: Whether the test data have more than one label or target.
        runner_up: The best of the others that were trained: the last to be left out, and by validation data among
            these. None where no other training gave a finite value.
    """

    best: str
    checkpoint: Path
    value: float
    lower: float
    upper: float
    measure: str
    curves: Mapping[str, tuple[float, ...]]
    price: Mapping[str, float]
    board: Leaderboard
    varies: bool = True
    runner_up: RunnerUp | None = None

    @property
    def decided(self) -> bool:
        """Whether the interval lies wholly above that of the runner-up; what other seeds would change is in neither."""
        return self.runner_up is not None and self.lower > self.runner_up.upper

    def headline(self) -> list[str]:
        """What was chosen, at which price, and what is not decided, in sentences."""
        lines = [
            f"{plain(self.best)} is fine-tuned: {self.measure} {self.value:.3f} on test data "
            f"({self.lower:.3f} to {self.upper:.3f}, 95 %).",
            f"Price: {human_seconds(self.price['seconds'])}, {self.price['epochs']:.0f} epochs, about "
            f"{self.price['share']:.0%} of the cost of fine-tuning all {len(self.board)}.",
        ]
        if not self.varies:
            lines.append("All test data have the same label or target: this value tells nothing of the backbones.")
        failed = [row for row in self.board.rows if _is_out(row)]
        trained = [name for name in self.curves if name not in {row.backbone for row in failed}]
        names = ", ".join(plain(row.backbone) for row in failed)
        last = [f"Failed, and so left out: {names} ({plain(failed[0].status)})."] if failed else []
        if len(self.board) - len(failed) == 1:
            return [*lines, "There was nothing to choose from.", *last]
        screened = self.board.info.get("num_samples") != 0
        if not screened:
            lines.append("The budget pays for no screen: the largest that it can train come first.")
        if len(trained) == 1:
            judge = "that of the screen" if screened else "by size"
            lines.append(f"The budget paid for no other training: the choice is {judge} alone.")
        else:
            others = ", ".join(plain(name) for name in trained if name != self.best)
            lines += [f"Compared in trainings: {others}.", self._say_lead()]
        if len(trained) + len(failed) < len(self.board):
            lines.append(f"The others were left out by their {'scores' if screened else 'sizes'} alone.")
        return [*lines, *last]

    def _say_lead(self) -> str:
        other = self.runner_up
        if other is None:
            return "All other trainings diverged: this says more of the learning rate than of the backbones."
        full = len(self.curves[self.best])
        stopped = f", stopped after {other.epochs} of {full} epochs," if other.epochs < full else ""
        next_to_it = f"{plain(other.name)}{stopped} has {other.value:.3f} ({other.lower:.3f} to {other.upper:.3f})"
        if self.decided:
            return f"{next_to_it}. Each was trained with one seed only: another might order them otherwise."
        if other.lower > self.upper:
            return (
                f"{next_to_it}: better on test data, but the choice was by validation data. "
                "Each was trained with one seed only."
            )
        return f"Within noise: {next_to_it}; the intervals overlap. Each was trained with one seed only."


def _is_out(row: Row) -> bool:
    """Whether a backbone could not be scored or trained; one of many scores may fail."""
    return row.failed and (row.failure is not None or not any(map(math.isfinite, row.scores.values())))


def select(
    backbones: Any,
    target: Any,
    *,
    budget: float | str = 0.1,
    metrics: Any = "default",
    rank_by: str | None = None,
    epochs: int = 8,
    learning_rate: float = 1e-3,
    max_samples: int | None = None,
    trainer: Mapping[str, Any] | None = None,
    output_dir: str | Path = "select",
    seed: int = 0,
    progress: bool | None = None,
) -> Selection:
    """Screen backbones, fine-tune the few that promise most for some epochs, and the best of these to the end.

    Those with the best expected rank (see :func:`~lightning_transfer.screening.consensus`) are trained for a quarter of
    the epochs, the better half of them (on validation data) for half, and the better half of these to the end: as many
    as the budget pays for. A budget for more than all of them leaves out a quarter each time, or none. Trainings go on
    where they were paused, each on the cosine schedule of all epochs. A share or a number of epochs that a screen alone
    would spend buys none: the largest backbones that an epoch can be paid for come first. One whose training fails is
    left out with its reason, and the next one takes its place.

    Args:
        backbones: As for :func:`~lightning_transfer.screen`.
        target: As for :func:`~lightning_transfer.screen`, with validation and test data.
        budget: A share of what fine-tuning all would cost, or ``"10 min"``, ``"20 epochs"``; the screen counts, by its
            time or its FLOPs.
        metrics: Scores of the screen.
        rank_by: A score that orders the backbones in place of the consensus.
        epochs: Of the final training, fewer where the budget does not pay for them.
        learning_rate: Of AdamW, for all weights.
        max_samples: Samples that scores look at.
        trainer: Arguments of Lightning's Trainer, but for callbacks and when it validates.
        output_dir: Where the leaderboard, checkpoints and ``select.json`` are written, and from where the same call
            goes on.
        seed: Of heads and the order of samples.
        progress: Bars of the screen; by default on a terminal.

    Returns:
        The selection.

    Raises:
        ValueError: If an argument is wrong, no backbone has a score, the folder is of another selection, the budget
            does not pay for one epoch after the screen, or every training fails or diverges.
    """
    purse, folder = Budget.of(budget), check_path(output_dir, "output_dir")
    check_positive_int(epochs, "epochs")
    if isinstance(learning_rate, bool) or not 0 < learning_rate < math.inf:
        raise ValueError(f"Expected argument `learning_rate` to be a positive number, but got {learning_rate!r}.")
    if (trainer or {}).get("callbacks"):
        raise ValueError("Expected argument `trainer` without `callbacks`: trainings are paused and taken up again.")
    candidates, data = name_candidates(backbones), load_data(target, "target")
    if not isinstance(data, TransferDataModule):
        raise ValueError(f"Expected argument `target` to become a datamodule of this package, but got {data!r:.80}.")
    data.prepare_data()
    data.setup()
    for split in ("val", "test"):
        check_measurable(data, split)
    start, samples = time.perf_counter(), len(data.train_dataset)
    if purse.pays_for_screen(min(max_samples or samples, samples) / samples, len(candidates), epochs):
        board = screen(
            candidates, data, metrics, rank_by=rank_by, max_samples=max_samples, trainer=trainer, output_dir=folder,
            resume=folder if (folder / "leaderboard.json").is_file() else None, seed=seed, progress=progress,
        )  # fmt: skip
        if board.info.get("interrupted"):
            raise KeyboardInterrupt
        order = _order(board, rank_by)
    else:
        board = _weigh(candidates, data)
        order = [row.backbone for row in sorted(board.rows, key=lambda row: -(row.parameters or 0)) if not row.failed]
        if not order:
            raise ValueError(f"No backbone can be built ({board.rows[0].backbone}: {board.rows[0].status}).")
    settings = {"epochs": epochs, "learning_rate": learning_rate, "seed": seed, "target": data.fingerprint("train")}
    halving = _Halving(candidates, data, board, purse, folder, settings, trainer or {}, time.perf_counter() - start)
    epochs, best = halving.run(order, epochs)
    tested, second = data.split_dataset("test"), halving.second(best)
    truth = tested.truth

    def on_test_data(name: str) -> tuple[float, float, float]:
        outputs = halving.predictions(name, epochs)
        return measure(data.task, outputs, truth), *_interval(data.task, outputs, truth, tested.groups)

    value, lower, upper = on_test_data(best)
    runner_up = second and RunnerUp(second, len(halving.curves[second].values), *on_test_data(second))
    return Selection(
        best=best,
        checkpoint=halving.checkpoint(best),
        value=value,
        lower=lower,
        upper=upper,
        measure=_MEASURES[data.task],
        curves={name: tuple(curve.values) for name, curve in halving.curves.items()},
        price=halving.price(epochs),
        board=board,
        varies=bool((truth != truth[:1]).any()),
        runner_up=runner_up if runner_up and math.isfinite(runner_up.value) else None,
    )


def _weigh(candidates: Mapping[str, Any], data: TransferDataModule) -> Leaderboard:
    """What is known of backbones without a look at the target's samples."""

    def row_of(name: str) -> Row:
        try:
            backbone = fresh_backbone(candidates[name], data)
            cost, fingerprint = backbone.cost(measure=False), backbone.fingerprint()
        except Exception as error:  # any failure of one backbone is its row, as in a screen
            return Row(name, failure=Failure.of(error))
        return Row(name, parameters=cost.parameters, flops=cost.flops, fingerprint=fingerprint)

    return Leaderboard(map(row_of, candidates), info={"num_samples": 0})


def _order(board: Leaderboard, rank_by: str | None) -> list[str]:
    """Names of the backbones that have a score, the most promising first."""

    def is_scored(row: Row) -> bool:
        return any(map(math.isfinite, row.scores.values() if rank_by is None else [row.score(rank_by)]))

    scored = [row.backbone for row in board.ranked(rank_by) if is_scored(row)]
    if not scored:
        first, by = board.rows[0], "" if rank_by is None else f" in {title(rank_by)}"
        raise ValueError(f"No backbone has a score{by} ({first.backbone}: {first.status}).")
    if rank_by is not None:
        return scored
    ranks = consensus(board)["expected_rank"]
    return sorted(scored, key=lambda name: float(ranks[name]))


class _StopAt(Callback):
    """Pauses a training after an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


def _values_in(path: Path) -> list[float]:
    """The values that a checkpoint of a training was written with, which may be later than all other files.

    Raises:
        ValueError: If it is damaged or of something else; the message names the file.
    """
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return [float(value) for value in content["callbacks"][RecordCurve.__qualname__]["values"]]
    except Exception as error:
        raise ValueError(
            f"Expected `{path}` to be a checkpoint of this selection, but got: {Failure.of(error)}."
        ) from error


class _Halving:
    """Successive halving that can go on from its files."""

    def __init__(
        self,
        candidates: Mapping[str, Any],
        data: TransferDataModule,
        board: Leaderboard,
        purse: Budget,
        folder: Path,
        settings: Mapping[str, Any],
        trainer: Mapping[str, Any],
        screened: float,
    ) -> None:
        self.candidates, self.data, self.board, self.purse = candidates, data, board, purse
        self.folder, self.settings, self.trainer = folder, dict(settings), trainer
        self.screen_seconds = screened
        self.samples = len(data.train_dataset)
        self.full = int(settings["epochs"])
        self.curves: dict[str, Curve] = {}
        if (folder / FILE).exists():
            self._load()
        self._save()  # the settings and who the backbones are, before there are checkpoints of them

    def _load(self) -> None:
        content = read_json(self.folder / FILE)
        if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("settings") != self.settings:
            raise ValueError(f"Expected `{self.folder / FILE}` to be of this selection; give another `output_dir`.")
        try:
            self.screen_seconds = max(self.screen_seconds, float(content["screen_seconds"]))
            seconds = {str(name): float(curve["seconds"]) for name, curve in content["curves"].items()}
            known = {str(name): str(fingerprint) for name, fingerprint in content.get("fingerprints", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"Expected `{self.folder / FILE}` to hold curves, but got: {Failure.of(error)}."
            ) from error
        for name in self.candidates:
            if (path := self.checkpoint(name)).exists():
                if known.get(name, now := self.board[name].fingerprint) != now:
                    warn_user(f"The training of {plain(name)} begins anew: it is not the backbone that it was.")
                    path.unlink()
                    continue
                try:
                    self.curves[name] = Curve(_values_in(path), seconds.get(name, 0.0))
                except ValueError as error:
                    warn_user(f"The training of {plain(name)} begins anew: {plain(error)}")

    def _save(self) -> None:
        curves = {
            name: {"values": [v if math.isfinite(v) else None for v in curve.values], "seconds": curve.seconds}
            for name, curve in self.curves.items()
        }
        content = {
            "format": FORMAT, "settings": self.settings, "screen_seconds": self.screen_seconds, "curves": curves,
            "fingerprints": {row.backbone: row.fingerprint for row in self.board.rows if row.fingerprint},
        }  # fmt: skip
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        try_to_write("What was selected so far", self.folder, lambda: write_atomically(self.folder / FILE, text))

    def checkpoint(self, name: str) -> Path:
        """Where the training of a backbone stands."""
        return self.folder / "checkpoints" / safe_name(name) / "last.ckpt"

    # what things cost, in the unit of the purse

    def _epoch_cost(self, name: str) -> float:
        row: Row = self.board[name]
        if self.purse.unit == "epochs":
            return 1.0
        if self.purse.unit == "share":
            return _TRAINING * float(row.flops or 1) * self.samples
        curve = self.curves.get(name)
        if curve is not None and curve.values:
            return curve.seconds / len(curve.values)
        return _TRAINING * self.samples / max(row.images_per_second or 1.0, 1e-9)

    def _screen_cost(self) -> float:
        seen = float(self.board.info.get("num_samples", self.samples))
        if self.purse.unit == "seconds":
            return self.screen_seconds
        if self.purse.unit == "epochs":
            return len(self.board) * seen / self.samples / _TRAINING
        return sum(float(row.flops or 1) * seen for row in self.board.rows)

    def _limit(self) -> float:
        if self.purse.unit != "share":
            return self.purse.amount
        return self.purse.amount * self.full * sum(self._epoch_cost(row.backbone) for row in self.board.rows)

    def _plan(self, order: Sequence[str], epochs: int) -> tuple[list[str], list[int], float] | None:
        """The most backbones that can be compared, after how many epochs, and the share of them that goes on each time.

        Of the shares the largest that is paid for; None if not even one backbone can be trained.
        """
        left = self._limit() - self._screen_cost()
        rungs = sorted({max(1, epochs // 4), max(1, epochs // 2), epochs})
        costs = [self._epoch_cost(name) for name in order]
        for count in range(len(order), 0, -1):
            of_first = [0.0, *accumulate(sorted(costs[:count], reverse=True))]  # the dearest may survive
            for share in _GO_ON:
                cost, before, alive = 0.0, 0, count
                for rung in rungs:
                    cost += of_first[alive] * (rung - before)
                    before, alive = rung, math.ceil(alive * share)
                if cost <= left * (1 + 1e-9):
                    return list(order[:count]), rungs, share
        return None

    def run(self, order: Sequence[str], epochs: int) -> tuple[int, str]:
        """Train and leave out.

        Returns:
            The epochs of the final trainings, and the name of the best.
        """
        if not self._screen_cost():  # by size; what is too dear says nothing against the next
            order = [name for name in order if self._epoch_cost(name) <= self._limit()] or order
        while (found := self._halve(order, epochs)) is None:  # one has failed: the next takes its place
            order = [name for name in order if not _is_out(self.board[name])]
            if not order:
                first = next(row for row in self.board.rows if _is_out(row))
                raise ValueError(f"No backbone could be trained ({first.backbone}: {first.status}).")
        return found

    def _halve(self, order: Sequence[str], epochs: int) -> tuple[int, str] | None:
        """What :meth:`run` gives, None as soon as a training fails."""
        while (plan := self._plan(order, epochs)) is None:
            epochs -= 1
            if epochs < 1:
                raise ValueError(
                    f"Expected argument `budget` to pay for an epoch of {order[0]} after the screen, but "
                    f"{self.purse.amount:g} {self.purse.unit} does not."
                )
        alive, rungs, share = plan
        for rung in rungs:
            for name in alive:
                if not self._train_to(name, rung, epochs):
                    return None
            reached = {name: self.curves[name].after(rung) for name in alive}
            if max(reached.values()) == -math.inf:
                raise ValueError(
                    f"Training diverges at the learning rate {self.settings['learning_rate']:g}: {', '.join(alive)}."
                )
            alive = sorted(alive, key=lambda name: -reached[name])[: math.ceil(len(alive) * share)]
        return epochs, alive[0]

    def _train_to(self, name: str, rung: int, epochs: int) -> bool:
        """Train up to an epoch; False where that fails."""
        curve = self.curves.setdefault(name, Curve())
        if len(curve.values) >= rung:
            return True
        start, failure = time.perf_counter(), None
        try:
            self._fit(name, curve, rung, epochs)
        except Exception as error:  # any failure of one backbone is its row; the others go on
            if is_of_disk(error):  # which fails for all of them
                raise
            failure = Failure.of(error)
        curve.seconds += time.perf_counter() - start
        if failure is not None:
            self.board.rows = tuple(
                replace(row, failure=failure, status=str(failure)) if row.backbone == name else row
                for row in self.board.rows
            )
        self._save()
        return failure is None

    def _fit(self, name: str, curve: Curve, rung: int, epochs: int) -> None:
        module, runner = self._make(
            name, epochs, [_StopAt(rung), RecordCurve(curve.values, self.data.task, self._truth("val"))]
        )
        path = self.checkpoint(name)
        with preserve_rng(), quiet_lightning(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists")
            torch.manual_seed(int(self.settings["seed"]) + len(curve.values))
            runner.fit(
                module,
                train_dataloaders=self.data.train_dataloader(),
                val_dataloaders=self.data.split_dataloader("val"),
                ckpt_path=path if path.is_file() and curve.values else None,
                weights_only=True,
            )

    def _make(self, name: str, epochs: int, callbacks: list[Callback]) -> tuple[FineTuningModule, Trainer]:
        with preserve_rng(), quiet_lightning():
            torch.manual_seed(int(self.settings["seed"]))
            module = FineTuningModule.for_target(
                fresh_backbone(self.candidates[name], self.data), self.data, backbone_factor=1.0,
                optimizer=partial(torch.optim.AdamW, lr=self.settings["learning_rate"], weight_decay=1e-2),
            )  # fmt: skip
            path = self.checkpoint(name)
            keep = ModelCheckpoint(path.parent, "last", save_on_train_epoch_end=True, enable_version_counter=False)
            options = {name: value for name, value in self.trainer.items() if name not in ("_target_", "max_epochs")}
            options |= {**ONCE_AN_EPOCH, "enable_checkpointing": True, "callbacks": [*callbacks, keep]}
            arguments: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
            runner = Trainer(**{**arguments, **options}, max_epochs=epochs)
            keep_checkpoints_whole(runner)
            return module, runner

    def _truth(self, split: str) -> Tensor:
        return self.data.split_dataset(split).truth

    def predictions(self, name: str, epochs: int) -> Tensor:
        """What the fine-tuned backbone says of the test data."""
        kept = RecordCurve([], self.data.task, self._truth("val"))  # which the checkpoint asks for
        module, runner = self._make(name, epochs, [kept])
        with preserve_rng(), quiet_lightning():
            outputs = runner.predict(
                module, self.data.split_dataloader("test"), ckpt_path=self.checkpoint(name), weights_only=True
            )
        return torch.cat(cast("list[Tensor]", outputs)).cpu()

    def second(self, best: str) -> str | None:
        """The last of the others to be left out, and by validation data among these; None if all others diverged."""
        others = [
            name for name, curve in self.curves.items()
            if name != best and curve.latest > -math.inf and not _is_out(self.board[name])
        ]  # fmt: skip
        return max(others, key=lambda name: (len(self.curves[name].values), self.curves[name].latest), default=None)

    def price(self, epochs: int) -> dict[str, float]:
        """What was spent."""
        flops = {row.backbone: float(row.flops or 1) for row in self.board.rows}
        seen = float(self.board.info.get("num_samples", self.samples))
        trained = sum(flops[name] * len(curve.values) for name, curve in self.curves.items())
        spent = _TRAINING * trained * self.samples + sum(flops.values()) * seen
        return {
            "seconds": self.screen_seconds + sum(curve.seconds for curve in self.curves.values()),
            "epochs": float(sum(len(curve.values) for curve in self.curves.values())),
            "share": spent / (_TRAINING * self.full * sum(flops.values()) * self.samples),
        }


def _interval(
    task: str, outputs: Tensor, truth: Tensor, groups: Tensor | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Wilson's interval of an accuracy; of others quantiles of 500 bootstrap draws of the test data, or their groups.

    With groups the accuracy counts as one of so many independent samples as would have its variance over groups, and
    where all are right or wrong as one of the groups.
    """
    from scipy.stats import norm, t

    n = len(truth)
    numbers = None if groups is None else groups.unique(return_inverse=True)[1]
    if task == "classification":
        hits, count = (outputs.argmax(dim=1) == truth).double(), float(n)
        share, z = float(hits.mean()), float(norm.ppf((1 + level) / 2))
        if numbers is not None and (of := int(numbers.max()) + 1) > 1:
            sums = torch.zeros(of, dtype=torch.float64).index_add_(0, numbers, hits - share)
            variance = float(sums.square().sum()) * of / (of - 1) / n**2
            count = min(count, share * (1 - share) / variance) if variance else float(of)
            z = float(t.ppf((1 + level) / 2, of - 1))
        centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
        return max(0.0, centre - half), min(1.0, centre + half)
    generator = torch.Generator().manual_seed(0)
    members = None if numbers is None else rows_of_groups(numbers)
    count_ = n if members is None else len(members)
    values = []
    for _ in range(500):
        rows = torch.randint(count_, (count_,), generator=generator)
        rows = rows if members is None else torch.cat([members[number] for number in rows.tolist()])
        values.append(measure(task, outputs[rows], truth[rows]))
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    finite = torch.tensor(values, dtype=torch.float64)
    finite = finite[finite.isfinite()]
    low, high = finite.quantile(tails).tolist() if len(finite) else (math.nan, math.nan)
    return low, high


def tell(selection: Selection) -> str:
    """The selection as text: its headline and the curves.

    Args:
        selection: What :func:`select` gave.
    """
    width = max(map(len, selection.curves))
    curves = [
        f"{plain(name).ljust(width)}  {' '.join(f'{value:.3f}' for value in values)}"
        for name, values in selection.curves.items()
    ]
    heading = f"{selection.measure.capitalize()} on validation data after each epoch:"
    return "\n".join([*selection.headline(), "", heading, *curves])
