"""A study: fine-tune every backbone on every target, score them too, and see which scores foretold it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lightning_transfer.backbones import load_backbone
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.data.loading import load_data
from lightning_transfer.finetuning import adaptable_layers
from lightning_transfer.metrics.registry import read_metrics
from lightning_transfer.passes import read_input_shape
from lightning_transfer.report.text import human_seconds
from lightning_transfer.screening.candidates import name_candidates
from lightning_transfer.screening.resume import as_settings
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.screen import screen
from lightning_transfer.selection.outcome import MODES, Outcome, find_outcome
from lightning_transfer.selection.study_table import StudyRow, StudyTable, add_rows
from lightning_transfer.utilities.checks import check_one_of, check_path, check_positive_int
from lightning_transfer.utilities.digest import SHORT, digest
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.files import try_to_write
from lightning_transfer.utilities.interrupts import interruptible
from lightning_transfer.utilities.text import plain

_FACTS = ("architecture", "source", "source_accuracy")


def study(
    zoo: Any,
    targets: Any,
    metrics: Any = "all",
    *,
    about: Mapping[str, Mapping[str, Any]] | None = None,
    references: Mapping[str, Any] | None = None,
    modes: Sequence[str] = ("full", "head"),
    epochs: int = 8,
    learning_rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    seeds: int = 3,
    max_samples: int | None = None,
    relatedness: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    part: str | None = None,
    progress: bool = True,
) -> StudyTable:
    """Fine-tune each backbone of a zoo on each target, and score it there as :func:`~lightning_transfer.screen` does.

    A pair of backbone and target is a row. Rows are written as they are finished; the same call goes on where an
    earlier one, also one of another part, stopped. A pair that fails is a row with its reason, tried again next time.

    Args:
        zoo: Backbones, as for :func:`~lightning_transfer.screen`.
        targets: Names or datamodules of this package; several of them, or a dict by name. They need validation data
            (where the learning rate is chosen) and test data (where the truth is measured).
        metrics: Scores, as for :func:`~lightning_transfer.screen`.
        about: By backbone ``architecture``, ``source`` (what it was trained on) and ``source_accuracy``, where known:
            statistics within an architecture or a source need them.
        references: By source a reference with its data, for the task-relatedness bound of backbones trained on it.
        modes: What is fine-tuned: see :func:`~lightning_transfer.selection.find_outcome`. ``"lora"`` is left out for
            networks without linear layers to adapt.
        epochs: Of each training.
        learning_rates: The best of them is chosen on validation data with one seed.
        seeds: Trainings at that rate.
        max_samples: Scores look at so many training samples at most; the trainings see all.
        relatedness: Arguments of :func:`lightning_transfer.functional.task_relatedness`.
        trainer: Arguments of Lightning's Trainer, for all passes and trainings.
        output_dir: Where the rows are kept as text (``study.jsonl``) and found again.
        part: ``"2/4"`` runs the second of four parts of the pairs.
        progress: Whether a line on standard error tells each row that is done, and the time left.

    Returns:
        The rows of this and earlier runs in the folder. After an interrupt (Ctrl-C) those that are finished.

    Raises:
        ValueError: If an argument is wrong, or the folder holds rows of a study with other settings.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.selection import study
        >>> zoo = {f"pool{k}": ModuleBackbone(nn.Sequential(nn.AvgPool2d(k), nn.Flatten()), (1, 8, 8), head=None)
        ...        for k in (1, 2, 4)}
        >>> table = study(zoo, [Digits(max_samples=200)], ["logme"], modes=["head"], progress=False)
        >>> len(table), bool(table.judge("head").loc["logme", "spearman"] > 0)
        (3, True)
    """
    for mode in modes:
        check_one_of(mode, MODES, "modes")
    for name, value in (("epochs", epochs), ("seeds", seeds)):
        check_positive_int(value, name)
    candidates, data = name_candidates(zoo), _name_targets(targets)
    facts = {name: dict((about or {}).get(name, {})) for name in candidates}
    if unknown := sorted({key for entry in facts.values() for key in entry} - set(_FACTS)):
        raise ValueError(f"Expected argument `about` to hold {_FACTS}, but got {unknown}.")
    first, of = _read_part(part)
    scores = read_metrics(metrics)
    asked = [sorted(modes), epochs, [float(r) for r in learning_rates], seeds, max_samples, list(scores)]
    options = as_settings(
        metrics={name: value for name, value in scores.items() if value and isinstance(value, Mapping)},
        relatedness=relatedness or {},
    )
    asked += [options] if any(options.values()) else []
    settings = digest([], repr(tuple(asked)))[:SHORT]
    folder = None if output_dir is None else check_path(output_dir, "output_dir")
    table = StudyTable() if folder is None else StudyTable.load(folder, missing_ok=True)
    if others := sorted({row.settings for row in table.rows} - {settings}):
        raise ValueError(f"Expected `{folder}` to hold rows of this study ({settings}), but got those of {others}.")
    table = _with_facts(table, facts, references or {}, folder)
    done = {(row.backbone, row.target): (row.row.fingerprint, row.fingerprint) for row in table.rows if not row.failed}
    fingerprints: dict[str, str] = {}
    pairs = [(name, target) for target in data for name in candidates][first::of]
    waiting = [
        (name, target)
        for name, target in pairs
        if (name, target) not in done
        or done[name, target]
        != (_fingerprint_of(name, candidates[name], data[target], fingerprints), data[target].fingerprint("train"))
    ]
    unwritten: list[StudyRow] = []  # for lack of room, say; tried again with the next one
    start = time.perf_counter()
    try:
        for number, (name, target) in enumerate(waiting, start=1):
            with interruptible():
                row = _run_pair(
                    name, candidates[name], data[target], target, facts[name], references or {}, metrics,
                    {"max_samples": max_samples, "trainer": trainer, "relatedness": relatedness, "progress": False},
                    {"epochs": epochs, "learning_rates": learning_rates, "seeds": seeds, "trainer": trainer}, modes,
                )  # fmt: skip
            row = replace(row, settings=settings)
            table = table.with_row(row)
            if folder is not None:
                unwritten.append(row)
                if try_to_write("A row", folder, partial(add_rows, folder, unwritten)):
                    unwritten = []
            if progress:
                _tell(row, number, len(waiting), time.perf_counter() - start)
    except KeyboardInterrupt:
        table.info["interrupted"] = True
    return table


def _name_targets(targets: Any) -> dict[str, TransferDataModule]:
    if isinstance(targets, (str, TransferDataModule)):
        targets = [targets]
    if not isinstance(targets, Iterable):
        raise ValueError(f"Expected argument `targets` to hold names or datamodules, but got {targets!r}.")
    named = targets.items() if isinstance(targets, Mapping) and "_target_" not in targets else enumerate(targets)
    found: dict[str, TransferDataModule] = {}
    for key, target in named:
        data = load_data(target, "target")
        if not isinstance(data, TransferDataModule):
            raise ValueError(f"Expected argument `targets` to hold datamodules of this package, but got {data!r:.80}.")
        data.prepare_data()
        data.setup()
        name = key if isinstance(key, str) else str(data.name)
        if name in found:
            raise ValueError(f"Expected argument `targets` to hold one target of a name, but got {name!r} twice.")
        found[name] = data
    if not found:
        raise ValueError("Expected argument `targets` to hold at least one target, but got none.")
    return found


def _with_facts(
    table: StudyTable, facts: Mapping[str, Mapping[str, Any]], references: Mapping[str, Any], folder: Path | None
) -> StudyTable:
    """The rows with what is said of their backbones now; without those whose bound was from another reference."""
    renamed = []
    for row in table.rows:
        now = facts.get(row.backbone) or {}
        if any(getattr(row, name) != value for name, value in now.items()):
            moved = row.source != now.get("source", row.source) and {row.source, now["source"]} & set(references)
            if moved:
                table = StudyTable(other for other in table.rows if other is not row)
            else:
                renamed.append(replace(row, **now))
    for row in renamed:
        table = table.with_row(row)
    if renamed and folder is not None:
        try_to_write("What is said of backbones", folder, partial(add_rows, folder, renamed))
    return table


def _read_part(part: str | None) -> tuple[int, int]:
    if part is None:
        return 0, 1
    number, _, of = str(part).partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"Expected argument `part` to be like '1/4', but got {part!r}.")
    return int(number) - 1, check_positive_int(int(of), "part")


def _run_pair(
    name: str,
    candidate: Any,
    data: TransferDataModule,
    target: str,
    facts: Mapping[str, Any],
    references: Mapping[str, Any],
    metrics: Any,
    passes: Mapping[str, Any],
    recipe: Mapping[str, Any],
    modes: Sequence[str],
) -> StudyRow:
    bounded = data.task == "classification"  # the bound is of one label a sample
    reference = references.get(str(facts.get("source"))) if bounded else None
    board = screen({name: candidate}, data, metrics, reference=reference, **passes)
    if board.info.get("interrupted"):
        raise KeyboardInterrupt
    row: Row = board.rows[0]
    outcomes: dict[str, Outcome] = {}
    try:
        for mode in modes if row.scores else ():
            if mode != "lora" or _can_adapt(candidate, data):
                outcomes[mode] = find_outcome(candidate, data, mode=mode, **recipe)
    except Exception as error:  # any failure of one pair is its row; the others go on
        failure = Failure.of(error)
        row = replace(row, failure=failure, status=str(failure))
    return StudyRow(
        target=target,
        task=data.task,
        row=row,
        outcomes=outcomes,
        fingerprint=data.fingerprint("train"),
        num_samples=len(data.train_dataset),
        num_classes=data.num_classes,
        architecture=facts.get("architecture"),
        source=facts.get("source"),
        source_accuracy=facts.get("source_accuracy"),
    )


def _fingerprint_of(name: str, candidate: Any, data: TransferDataModule, known: dict[str, str]) -> str:
    """That of a candidate, which is built once unless it takes its shape from the data."""
    if name in known:
        return known[name]
    asked: list[tuple[int, ...]] = []

    def shape() -> tuple[int, ...]:
        asked.append(read_input_shape(data))
        return asked[0]

    found = load_backbone(candidate, shape=shape).fingerprint()
    if not asked:
        known[name] = found
    return found


def _can_adapt(candidate: Any, data: TransferDataModule) -> bool:
    return bool(adaptable_layers(load_backbone(candidate, shape=partial(read_input_shape, data))))


def _tell(row: StudyRow, number: int, count: int, seconds: float) -> None:
    found = ", ".join(f"{mode} {outcome.mean:.3f}" for mode, outcome in row.outcomes.items()) or row.row.status
    left = human_seconds(seconds / number * (count - number))
    print(f"{number} of {count}: {plain(row.backbone)} on {plain(row.target)}: {found}; {left} left", file=sys.stderr)
