"""The rows of a study, kept as text, and what they say of the scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lightning_transfer.report.text import title
from lightning_transfer.screening.consensus import Evidence, consensus, signed_scores
from lightning_transfer.screening.rank_kernels import Array, Kernel
from lightning_transfer.screening.rank_statistics import MINIMUM_MODELS, kernel_of
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.zoo import combine_zoo_scores
from lightning_transfer.selection.outcome import Outcome
from lightning_transfer.utilities.checks import check_in_interval, check_one_of, check_positive_int
from lightning_transfer.utilities.files import lock_folder, parse_json, read_text, write_atomically

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
FILE = "study.jsonl"
STATIC = ("parameters", "flops", "source_accuracy")
STATISTICS = ("spearman", "weighted_kendall", "top1_regret", "rel_at_1", "rel_at_3")
REFERENCES = ("chance", "other_seeds")  # rows of a judgement that are no scores
_COVERED = 2 / 3  # of the backbones that a score must know to be judged: the first of a few is no choice among all
_GROUPINGS = (None, "architecture", "source")
_TEXTS = ("target", "task", "settings", "fingerprint")


@dataclass(frozen=True)
class StudyRow:
    """One backbone on one target.

    Attributes:
        target: Name of the target.
        task: Its kind.
        row: What the screen found: scores and costs.
        outcomes: What fine-tuning gave, by mode.
        num_samples: Training samples of the target.
        num_classes: Its classes or labels, None for regression.
        architecture: Of the backbone.
        source: What it was trained on.
        source_accuracy: Its accuracy there.
        settings: Digits that name the settings of the study.
        fingerprint: Of the target's training data.
    """

    target: str
    task: str
    row: Row
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    num_samples: int | None = None
    num_classes: int | None = None
    architecture: str | None = None
    source: str | None = None
    source_accuracy: float | None = None
    settings: str = ""
    fingerprint: str = ""

    @property
    def backbone(self) -> str:
        """Name of the backbone."""
        return self.row.backbone

    @property
    def failed(self) -> bool:
        """Whether there is no outcome, or something else went wrong."""
        return not self.outcomes

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        plain = {name: value for name, value in vars(self).items() if name not in ("row", "outcomes")}
        outcomes = {mode: outcome.to_dict() for mode, outcome in self.outcomes.items()}
        return {"format": FORMAT, **plain, "row": self.row.to_dict(), "outcomes": outcomes}

    @classmethod
    def from_dict(cls, record: Any) -> StudyRow:
        """Read what :meth:`to_dict` gave; nothing in it is executed.

        Raises:
            ValueError: If it is something else.
        """
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"Expected a row of a study of format {FORMAT}, but got {str(record)[:200]}.")
        values = {name: value for name, value in record.items() if name not in ("format", "row", "outcomes")}
        if not isinstance(record.get("outcomes"), dict) or not all(isinstance(values.get(n), str) for n in _TEXTS):
            raise ValueError(f"Expected a row of a study, but got {str(record)[:200]}.")
        counts = [values.get(name) for name in ("num_samples", "num_classes")]
        texts, accuracy = [values.get(name) for name in ("architecture", "source")], values.get("source_accuracy")
        if (
            not all(count is None or (type(count) is int and count >= 0) for count in counts)
            or not all(text is None or isinstance(text, str) for text in texts)
            or not (accuracy is None or (type(accuracy) in (int, float) and abs(accuracy) <= 1))
        ):
            raise ValueError(f"Expected a row of a study, but got {str(values)[:200]}.")
        outcomes = {str(mode): Outcome.from_dict(value) for mode, value in record["outcomes"].items()}
        try:
            return cls(row=Row.from_dict(record.get("row")), outcomes=outcomes, **values)
        except TypeError as error:
            raise ValueError(f"Expected a row of a study, but got {error}.") from error


def add_rows(folder: Path, rows: Iterable[StudyRow]) -> None:
    """Add rows to the file of a study, in the place of earlier ones of the same pairs.

    Args:
        folder: Of the study; other processes may add rows meanwhile.
        rows: The rows.

    Raises:
        ValueError: If the file is damaged, or holds rows of a study with other settings; it stays as it is.
        OSError: If it cannot be written.
    """
    rows = tuple(rows)
    with lock_folder(folder):
        table = StudyTable.load(folder, missing_ok=True)
        settings = {row.settings for row in rows}
        if rows and (others := sorted({row.settings for row in table.rows} - settings)):
            raise ValueError(f"Expected `{folder}` to hold rows of this study ({settings}), but got those of {others}.")
        for row in rows:
            table = table.with_row(row)
        write_atomically(folder / FILE, table.to_text())


class StudyTable:
    """The rows of a study.

    Args:
        rows: In any order; each pair of backbone and target once.

    Attributes:
        info: What else is known of the run.

    Raises:
        ValueError: If a pair is there twice.
    """

    def __init__(self, rows: Iterable[StudyRow] = ()) -> None:
        self.rows = tuple(rows)
        self.info: dict[str, Any] = {}
        self._judged: dict[Any, pd.DataFrame] = {}
        self._extended: dict[str, dict[str, pd.DataFrame]] = {}
        pairs = [(row.backbone, row.target) for row in self.rows]
        if len(set(pairs)) < len(pairs):
            twice = next(pair for pair in pairs if pairs.count(pair) > 1)
            raise ValueError(f"Expected argument `rows` to hold each pair once, but got {twice} twice.")

    def __len__(self) -> int:
        return len(self.rows)

    def with_row(self, row: StudyRow) -> StudyTable:
        """The table with another row, which takes the place of one of the same pair."""
        pair = (row.backbone, row.target)
        return StudyTable([*(other for other in self.rows if (other.backbone, other.target) != pair), row])

    def to_text(self) -> str:
        """The rows as JSON, one a line."""
        return "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in self.rows)

    @classmethod
    def load(cls, path: str | Path, *, missing_ok: bool = False) -> StudyTable:
        """Read the rows of a study.

        Args:
            path: Its folder, or a file of rows.
            missing_ok: Whether a study without rows is an empty one.

        Raises:
            ValueError: If the file holds something else; the message names the line.
            FileNotFoundError: If there is no such file.
        """
        file = Path(path) / FILE if Path(path).suffix != ".jsonl" else Path(path)
        if missing_ok and not file.exists():
            return cls()
        lines = read_text(file).splitlines()
        return cls(_read_line(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1))

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets that have a row."""
        return tuple(dict.fromkeys(row.target for row in self.rows))

    @property
    def modes(self) -> tuple[str, ...]:
        """What was fine-tuned."""
        return tuple(dict.fromkeys(mode for row in self.rows for mode in row.outcomes))

    def frame(self, target: str, truth: str = "full") -> pd.DataFrame:
        """Scores, static baselines and the truth of the backbones on one target.

        Args:
            target: Name of the target.
            truth: What was fine-tuned.

        Returns:
            One row a backbone that has an outcome; columns are the scores, ``parameters``, ``flops``,
            ``source_accuracy``, ``truth``, ``truth_spread`` (over seeds), ``truth_se`` (of its mean over them),
            ``architecture`` and ``source``.

        Raises:
            ValueError: If there is no such target or no outcome.
        """
        import pandas as pd

        check_one_of(target, self.targets, "target")
        rows = [row for row in self.rows if row.target == target and truth in row.outcomes]
        if not rows:
            raise ValueError(f"Expected argument `truth` to be one of {self.modes} on {target!r}, but got {truth!r}.")
        scored = combine_zoo_scores([row.row for row in rows])
        columns = dict.fromkeys(column for row in scored for column in row.scores)
        records = [
            {
                **{column: found.score(column) for column in columns},
                "parameters": found.parameters,
                "flops": found.flops,
                "source_accuracy": row.source_accuracy,
                "truth": row.outcomes[truth].mean,
                "truth_spread": row.outcomes[truth].spread,
                "truth_se": row.outcomes[truth].spread / math.sqrt(len(row.outcomes[truth].values)),
                "architecture": row.architecture,
                "source": row.source,
            }
            for row, found in zip(rows, scored, strict=True)
        ]
        frame = pd.DataFrame(records, index=pd.Index([row.backbone for row in rows], name="backbone"))
        numeric = [name for name in frame if name not in ("architecture", "source")]
        return frame.astype(dict.fromkeys(numeric, float)).replace([math.inf, -math.inf], math.nan)

    def frames(self, truth: str = "full") -> dict[str, pd.DataFrame]:
        """The frame of each target that has an outcome."""
        return {
            target: self.frame(target, truth)
            for target in self.targets
            if any(row.target == target and truth in row.outcomes for row in self.rows)
        }

    def evidence(self, truth: str = "full") -> Evidence:
        """What the study says of the weights of :func:`~lightning_transfer.screening.consensus`."""
        frames = self.frames(truth)
        backbones = {name for frame in frames.values() for name in frame.index}
        return Evidence.learn(
            (_scores_of(frame) for frame in frames.values()),
            origin=f"a study of {len(backbones)} backbones on {len(frames)} target{'s' * (len(frames) != 1)}",
        )

    def judge(
        self,
        truth: str = "full",
        within: str | None = None,
        *,
        statistics: Sequence[str] = STATISTICS,
        without_largest: float = 0.0,
        level: float = 0.95,
        draws: int = 1000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """How well each score foretold the truth: means over targets, with intervals over backbones and targets.

        The rows ``consensus`` combine the scores by weights that were learned on the other targets
        (``consensus_other_targets``), and on the other targets and other architectures
        (``consensus_other_architectures``). ``chance`` is a random order, ``other_seeds`` what fine-tuning all again
        with as many other seeds would foretell, were their noise normal: no score can be told from better than that.

        Args:
            truth: What was fine-tuned.
            within: None compares all backbones; ``"architecture"`` or ``"source"`` those that share it, groups of three
                at least.
            statistics: Names as in :func:`~lightning_transfer.screening.ranking.evaluate_ranking`. Negative truths
                (an R² below 0) count as 0 for Rel@k.
            without_largest: Leave out this share of the backbones, those with most parameters.
            level: Coverage of the intervals.
            draws: Bootstrap draws, of targets and of backbones at once.
            seed: Of the draws.

        Returns:
            One row a score, judged where two thirds of a group have it (the others are not chosen by it); columns
            ``<statistic>``, ``<statistic>_lower`` and ``_upper``, ``cells`` (groups of backbones on a target that were
            judged), and ``spearman_lowest``: with the backbone left out whose absence hurts most. Sorted by mean
            regret, or else by the first statistic; ``chance`` and ``other_seeds`` are last.

        Raises:
            ValueError: If an argument is wrong or fewer than three backbones can be compared anywhere.
        """
        import pandas as pd

        check_one_of(within, _GROUPINGS, "within")
        check_in_interval(without_largest, 0.0, 1.0, "without_largest")
        check_in_interval(level, 0.0, 1.0, "level")
        if not statistics:
            raise ValueError("Expected argument `statistics` to name at least one statistic, but got none.")
        check_positive_int(draws, "draws", minimum=100)
        asked = (truth, within, tuple(statistics), without_largest, level, draws, seed)
        if asked in self._judged:
            return self._judged[asked].copy()
        frames = self._with_consensus(truth)
        if without_largest:
            frames = {name: _drop_largest(frame, without_largest) for name, frame in frames.items()}
        cells = [cell for target, frame in frames.items() for cell in _cells(target, frame, within)]
        if not cells:
            group = f" within one {within}" if within else ""
            raise ValueError(
                f"Expected at least {MINIMUM_MODELS} backbones to compare{group} on a target whose outcomes differ, "
                "but got none."
            )
        columns = dict.fromkeys(str(column) for _, _, frame in cells for column in _scores_of(frame))
        weights = _target_draws([target for target, _, _ in cells], draws, seed)
        records = {}
        for name in [name for name in columns if name != "truth"]:
            judged = _judge(name, cells, statistics, weights, level, seed)
            if judged:
                records[name] = judged
        order = ("top1_regret", True) if "top1_regret" in statistics else (statistics[0], False)
        references = {name: _judge_reference(name, cells, statistics, seed) for name in REFERENCES}
        references = {name: reference for name, reference in references.items() if reference}
        records |= references
        table = pd.DataFrame.from_dict(records, orient="index").sort_values(order[0], ascending=order[1], kind="stable")
        table = table.loc[[*table.index.difference(list(references), sort=False), *references]]
        table.index.name = "score"
        self._judged[asked] = table
        return table.copy()

    def _with_consensus(self, truth: str) -> dict[str, pd.DataFrame]:
        """The frames, with the consensus by weights that have not seen the target (or the architecture)."""
        if truth in self._extended:
            return self._extended[truth]
        frames = self.frames(truth)

        @cache
        def learned(target: str, unseen: str | None = None) -> Evidence:
            frame = frames[target]
            return Evidence.learn([_scores_of(frame if unseen is None else frame[frame["architecture"] != unseen])])

        found = {}
        for target, frame in frames.items():
            others = [name for name in frames if name != target]
            extended = frame.copy()
            own = _scores_of(frame).drop(columns="truth")
            evidence = Evidence.pooled(map(learned, others))
            extended["consensus_other_targets"] = -consensus(own, evidence=evidence)["expected_rank"]
            if frame["architecture"].nunique() > 1:
                unseen = frame["truth"] * math.nan
                for architecture in frame["architecture"].dropna().unique():
                    evidence = Evidence.pooled(learned(name, architecture) for name in others)
                    members = frame["architecture"] == architecture
                    unseen[members] = -consensus(own, evidence=evidence)["expected_rank"][members]
                extended["consensus_other_architectures"] = unseen
            found[target] = extended
        self._extended[truth] = found
        return found

    def headline(self, truth: str = "full") -> list[str]:
        """What the study says, in sentences, and what is wrong with it."""
        usable = [row for row in self.rows if truth in row.outcomes]
        if not usable:
            failed = next((row for row in self.rows), None)
            reason = f" ({failed.backbone} on {failed.target}: {failed.row.status})" if failed else ""
            return [f"Nothing was fine-tuned by {truth}: nothing can be said{reason}."]
        frames = self.frames(truth)
        lines = []
        for target, frame in frames.items():
            between = frame["truth"].std()
            noise = math.sqrt(float((frame["truth_spread"] ** 2).mean()))
            if len(frame) < MINIMUM_MODELS:
                lines.append(f"{target}: too few backbones ({len(frame)}) to compare scores on.")
            elif between == 0:
                lines.append(f"{target}: all backbones end alike, so no score can be right or wrong.")
            elif noise > between:
                lines.append(f"{target}: seeds differ ({noise:.3f}) more than backbones do ({between:.3f}).")
        try:
            table = self.judge(truth)
        except ValueError:
            return ["No target has backbones to compare: nothing can be said of the scores.", *lines]
        lost, table = table["top1_regret"].reindex(REFERENCES), table.drop(index=list(REFERENCES), errors="ignore")
        count = int(table["cells"].max())
        first = table[table["cells"] == count].iloc[0]  # means over fewer targets are of other ones
        said = (
            f"Over {count} target{'s' * (count != 1)} {title(str(first.name))} loses least by its first choice: "
            f"{first['top1_regret']:.3f} ({first['top1_regret_lower']:.3f} to {first['top1_regret_upper']:.3f}), "
            f"a random choice {lost['chance']:.3f}"
            + (f", fine-tuning all again with other seeds {lost['other_seeds']:.3f}." if lost.notna().all() else ".")
        )
        if first["top1_regret_upper"] >= lost["chance"]:
            said += " That is not told from chance here."
        return [said, *lines]

    def save(self, folder: str | Path, truth: str = "full") -> dict[str, Path]:
        """Write the rows, the judgement as HTML, Markdown and LaTeX, and the figure into a folder.

        Rows of other pairs that are in the folder stay there: another part of the study may have written them.

        Returns:
            The paths by kind: ``jsonl``, and where there is something to judge ``html``, ``md``, ``tex`` and ``png``.
        """
        from lightning_transfer.report.study import figure_bytes, study_files

        contents: dict[str, bytes] = {}
        tables: dict[str, pd.DataFrame] = {}
        for within in _GROUPINGS:
            with suppress(ValueError):  # nothing to compare
                tables[f"within one {within}" if within else "across all backbones"] = self.judge(truth, within)
        if tables:
            contents["png"] = figure_bytes(self.frames(truth), list(next(iter(tables.values())).index))
            contents |= study_files(self.headline(truth), tables, contents["png"])
        add_rows(Path(folder), self.rows)
        paths = {"jsonl": Path(folder) / FILE}
        for kind, content in contents.items():
            paths[kind] = Path(folder) / f"study.{kind}"
            write_atomically(paths[kind], content)
        return paths

    def __str__(self) -> str:
        from lightning_transfer.report.study import as_text

        lines = self.headline()
        try:
            return "\n".join([as_text(self.judge()), "", *lines])
        except ValueError:
            return "\n".join(lines)

    def __repr__(self) -> str:
        backbones = {row.backbone for row in self.rows}
        return f"StudyTable({len(backbones)} backbones, {len(self.targets)} targets, {len(self)} rows)"


Cell: TypeAlias = "tuple[str, str, pd.DataFrame]"


def _read_line(line: str, where: str) -> StudyRow:
    try:
        return StudyRow.from_dict(parse_json(line.encode(), finite=True))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from error


def _scores_of(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=["truth_spread", "truth_se", "architecture", "source"])


def _drop_largest(frame: pd.DataFrame, share: float) -> pd.DataFrame:
    kept = len(frame) - math.ceil(share * len(frame))
    return frame.loc[frame["parameters"].sort_values(kind="stable").index[: max(kept, 0)]]


def _cells(target: str, frame: pd.DataFrame, within: str | None) -> Iterator[Cell]:
    """The sets of backbones that are compared: (target, group, frame)."""
    groups = [("", frame)] if within is None else [(str(key), part) for key, part in frame.groupby(within)]
    for key, part in groups:
        if len(part) >= MINIMUM_MODELS and np.ptp(part["truth"]) > 0:
            yield target, key, part


def _target_draws(targets: Sequence[str], draws: int, seed: int) -> Array:
    """How often each cell counts in each bootstrap draw of targets, shape ``(draws, cells)``."""
    names = list(dict.fromkeys(targets))
    drawn = np.random.default_rng([seed, 7]).integers(len(names), size=(draws, len(names)))
    counts = np.stack([(drawn == index).sum(axis=1) for index in range(len(names))], axis=1)
    return counts[:, [names.index(target) for target in targets]].astype(float)


def _prepare(statistic: str, truth: Array) -> Array:
    return np.maximum(truth, 0.0) if statistic.startswith("rel_at_") else truth


def _is_choice(statistic: str) -> bool:
    return statistic.startswith(("top1_", "rel_at_", "recall_at_"))


def _kernel(statistic: str, count: int) -> Kernel | None:
    """The statistic, None where it asks for more models than there are."""
    if "_at_" in statistic and int(statistic.rsplit("_", 1)[1]) > count:
        return None
    return kernel_of(statistic)


def _judge(
    name: str, cells: Sequence[Cell], statistics: Sequence[str], weights: Array, level: float, seed: int
) -> dict[str, float]:
    pairs = []
    for number, (_, key, frame) in enumerate(cells):
        if name not in frame:
            continue
        scores = signed_scores(name, frame[name].to_numpy())
        present = np.isfinite(scores)
        truth = frame["truth"].to_numpy()
        if (
            present.sum() >= max(MINIMUM_MODELS, _COVERED * len(scores))
            and np.ptp(scores[present]) > 0
            and np.ptp(truth[present]) > 0
        ):
            last = np.where(present, scores, scores[present].min() - 1.0)  # who has no score is not chosen
            pairs.append((number, key, scores[present], truth[present], last, truth))
    if not pairs:
        return {}
    result: dict[str, float] = {}
    tails = ((1 - level) / 2, (1 + level) / 2)
    for statistic in statistics:
        values, drawn, used = [], [], []
        for number, key, *known, last, whole in pairs:
            # what a choice loses is measured by the best of all, with a score or without
            scores, truth = (last, whole) if _is_choice(statistic) else known
            kernel = _kernel(statistic, len(scores))
            if kernel is None:
                continue
            # the same backbones are drawn for every target
            generator = np.random.default_rng([seed, *key.encode(), len(scores)])
            rows = generator.integers(len(scores), size=(len(weights), len(scores)))
            prepared = _prepare(statistic, truth)
            with np.errstate(invalid="ignore", divide="ignore"):
                values.append(float(kernel(scores[None], prepared[None])[0]))
                drawn.append(kernel(scores[rows], prepared[rows]))
            used.append(number)
        if not values:
            continue
        means = _weighted_means(np.stack(drawn, axis=1), weights[:, used])
        result[statistic] = float(np.nanmean(values))
        result[f"{statistic}_lower"], result[f"{statistic}_upper"] = map(float, np.nanquantile(means, tails))
    lowest = [_lowest_left_out(scores, truth) for _, _, scores, truth, *_ in pairs if len(scores) > MINIMUM_MODELS]
    result["spearman_lowest"] = float(np.nanmean(lowest)) if lowest else math.nan
    result["cells"] = len(pairs)
    return result


def _weighted_means(values: Array, weights: Array) -> Array:
    known = np.isfinite(values)
    totals = (weights * known).sum(axis=1)
    sums = (weights * np.where(known, values, 0.0)).sum(axis=1)
    means: Array = np.where(totals > 0, sums / np.maximum(totals, 1e-12), np.nan)
    return means


def _lowest_left_out(scores: Array, truth: Array) -> float:
    rows = np.array([[j for j in range(len(scores)) if j != i] for i in range(len(scores))])
    values = kernel_of("spearman")(scores[rows], truth[rows])
    return float(np.nanmin(values)) if np.isfinite(values).any() else math.nan


def _judge_reference(name: str, cells: Sequence[Cell], statistics: Sequence[str], seed: int) -> dict[str, float]:
    """Means over 500 random orders, or over the truth with the noise of its seeds; empty where no noise is known."""
    generator = np.random.default_rng([seed, 9])
    orders: list[Array] = []
    for _, _, frame in cells:
        rows = np.tile(np.arange(len(frame), dtype=float), (500, 1))
        if name == "chance":
            orders.append(generator.permuted(rows, axis=1))
        elif frame["truth_se"].notna().any():
            noise = math.sqrt(float((frame["truth_se"] ** 2).mean()))
            orders.append(frame["truth"].to_numpy() + noise * generator.standard_normal(rows.shape))
        else:
            return {}
    result: dict[str, float] = {}
    for statistic in statistics:
        values = []
        for (_, _, frame), drawn in zip(cells, orders, strict=True):
            kernel = _kernel(statistic, len(frame))
            if kernel is not None:
                truth = _prepare(statistic, frame["truth"].to_numpy())
                with np.errstate(invalid="ignore", divide="ignore"):
                    values.append(float(np.nanmean(kernel(drawn, np.broadcast_to(truth, drawn.shape)))))
        result[statistic] = float(np.mean(values)) if values else math.nan
    return {**result, "cells": len(cells)}
