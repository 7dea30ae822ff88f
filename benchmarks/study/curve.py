"""Regret against cost: what each way of choosing a backbone loses, by the share of the cost of fine-tuning all.

Trainings are not repeated: their validation curves are in the rows of the study. Cost is counted in FLOPs; an epoch of
training costs three passes over its samples. A choice is the backbone that does best on validation data among those
that were trained; what it loses is the truth of the study (mean of the seeds) of the best backbone minus its own. A
final training that a small budget shortens counts as if it were whole, for every way alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from lightning_transfer.screening.consensus import Evidence, consensus, signed_scores
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.selection import StudyTable
from lightning_transfer.selection.select import _TRAINING, Budget, Curve, _Halving

ENOUGH = 12  # backbones, on a target that says something
SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
AREA = 0.3  # the area under the curve goes up to here
RATE = 1e-3  # of `select`
FREE = ("parameters", "source_accuracy")  # known without a look at the target
ONLY = {"LogME only": "logme", "kNN only": "knn_accuracy", "size only": "parameters"}
DRAWS = 200
TIES = 20  # orders of backbones that a score does not tell apart
SHOWN = (0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0, "area")
COLUMNS = ["way", "share", "regret", "lead", "lead_lower", "lead_upper"]


@dataclass(frozen=True)
class Task:
    """What the rows say of one target.

    Attributes:
        scores: One row a backbone, without the truth.
        truth: By backbone.
        curves: By backbone, what validation gave after each epoch.
        flops: By backbone, of a picture.
        order: Of the consensus that has not seen the target.
        board: The rows as a screen gives them.
        samples: Training samples.
    """

    scores: pd.DataFrame
    truth: pd.Series
    curves: Mapping[str, Sequence[float]]
    flops: pd.Series
    order: list[str]
    board: Leaderboard
    samples: int

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return max(map(len, self.curves.values()))

    def loss(self, name: str) -> float:
        """What choosing a backbone loses."""
        return float(self.truth.max() - self.truth[name])

    def screen_share(self) -> float:
        """What one pass over all backbones costs, as a share of fine-tuning all."""
        return 1 / (_TRAINING * self.epochs)

    def train_share(self, name: str) -> float:
        """What one whole training costs."""
        return float(self.flops[name] / self.flops.sum())

    def ranked(self, score: str) -> list[list[str]]:
        """Backbones by one score, the best first, those without it last; where some are equal, in several orders.

        Where a task has no kNN a ridge probe takes its place.
        """
        score = score if score in self.scores or score != "knn_accuracy" else "ridge_probe"
        values = pd.Series(signed_scores(score, self.scores[score].to_numpy()), index=self.scores.index).fillna(-np.inf)
        generator = np.random.default_rng(0)
        shuffled = [generator.permutation(values.index) for _ in range(TIES if values.duplicated().any() else 1)]
        return [list(values[names].sort_values(ascending=False, kind="stable").index) for names in shuffled]


class Replay(_Halving):
    """The halving of ``select`` with trainings that are read."""

    def __init__(self, task: Task, share: float) -> None:
        self.task, self.board, self.samples = task, task.board, task.samples
        self.purse, self.full, self.curves = Budget.of(share), task.epochs, {}

    def _train_to(self, name: str, rung: int, epochs: int) -> bool:
        self.curves[name] = Curve(list(self.task.curves[name][:rung]))
        return True


def by_select(task: Task, share: float) -> float:
    """What ``select`` loses."""
    if not Budget.of(share).pays_for_screen(1.0, len(task.truth), task.epochs):
        return float(np.mean([task.loss(order[0]) for order in task.ranked("parameters")]))
    try:
        _, best = Replay(task, share).run(task.order, task.epochs)
    except ValueError:  # the budget does not pay for an epoch
        best = task.order[0]
    return task.loss(best)


def by_order(task: Task, share: float, orders: Sequence[Sequence[str]], looks: bool) -> float:
    """What fine-tuning the first of an order loses, as many as the budget pays for, the best on validation data.

    The mean over the orders, if there are several.
    """
    budget = share - (task.screen_share() if looks else 0.0)
    return chance(task) if budget < 0 else float(np.mean([_train(task, budget, order) for order in orders]))


def _train(task: Task, left: float, order: Sequence[str]) -> float:
    trained: list[str] = []
    for name in order:
        left -= task.train_share(name)
        if left < -1e-9 and trained:
            break
        trained.append(name)
    return task.loss(max(trained, key=lambda name: task.curves[name][-1]))


def by_random(task: Task, share: float) -> float:
    """The mean over random orders."""
    generator = np.random.default_rng(0)
    names = list(task.truth.index)
    return by_order(task, share, [generator.permutation(names) for _ in range(DRAWS)], looks=False)


def chance(task: Task) -> float:
    """What a random pick loses."""
    return float(task.truth.max() - task.truth.mean())


def hybrid(task: Task) -> list[list[str]]:
    """The best by kNN and the best by source accuracy in turn (Renggli et al., CVPR 2022)."""
    both = list(zip(task.ranked("knn_accuracy") * TIES, task.ranked("source_accuracy") * TIES, strict=False))[:TIES]
    return [list(dict.fromkeys(name for pair in zip(*two, strict=True) for name in pair)) for two in both]


def ways() -> dict[str, Callable[[Task, float], float]]:
    """Each way of choosing by its name."""
    only = {
        name: lambda task, share, score=score: by_order(task, share, task.ranked(score), looks=score not in FREE)
        for name, score in ONLY.items()
    }
    mixed = {"kNN and source accuracy": lambda task, share: by_order(task, share, hybrid(task), looks=True)}
    return {"select": by_select, **only, **mixed, "random": by_random}


def read(table: StudyTable) -> dict[str, Task]:
    """The targets whose rows hold validation curves."""
    frames = {name: frame.drop(columns=["truth_spread", "truth_se", "architecture", "source"]) for name, frame in
              table.frames().items()}  # fmt: skip
    tasks = {}
    for target, frame in frames.items():
        rows = {row.backbone: row for row in table.rows if row.target == target and "full" in row.outcomes}
        curves = {name: row.outcomes["full"].curves.get(RATE, ()) for name, row in rows.items()}
        if len(rows) < ENOUGH or not all(curves.values()):
            continue
        evidence = Evidence.learn(other for name, other in frames.items() if name != target)
        scores = frame.drop(columns="truth")
        ranks = consensus(scores, evidence=evidence)["expected_rank"]
        samples = int(next(iter(rows.values())).num_samples or 0)
        board = Leaderboard([row.row for row in rows.values()], info={"num_samples": samples})
        tasks[target] = Task(
            scores, frame["truth"], curves, frame["flops"], list(ranks.sort_values(kind="stable").index), board, samples
        )
    return tasks


def curves(table: StudyTable, level: float = 0.95) -> pd.DataFrame:
    """Mean regret over the targets by way and share, with intervals over targets of the difference to ``select``.

    Args:
        table: The study.
        level: Of the intervals.

    Returns:
        Columns ``way, share, regret, lead, lead_lower, lead_upper``: the lead is what the way loses more than
        ``select``. The rows with share ``area`` hold means over the shares up to 30 %.
    """
    tasks = read(table)
    if not tasks:
        return pd.DataFrame(columns=COLUMNS)
    found = {
        way: np.array([[choose(task, share) for share in SHARES] for task in tasks.values()])
        for way, choose in ways().items()
    }
    grid = np.array(SHARES)
    part = grid <= AREA
    areas = {way: trapezoid(values[:, part], grid[part], axis=1) / np.ptp(grid[part])
             for way, values in found.items()}  # fmt: skip
    generator = np.random.default_rng(0)
    draws = generator.integers(len(tasks), size=(2000, len(tasks)))
    tails = ((1 - level) / 2, (1 + level) / 2)
    records = []
    for way, values in found.items():
        columns = {**dict(zip(SHARES, values.T, strict=True)), "area": areas[way]}
        own = {**dict(zip(SHARES, found["select"].T, strict=True)), "area": areas["select"]}
        for share, losses in columns.items():
            lead = losses - own[share]
            lower, upper = np.quantile(lead[draws].mean(axis=1), tails)
            records.append((way, share, losses.mean(), lead.mean(), lower, upper))
    return pd.DataFrame(records, columns=COLUMNS)


def draw(found: pd.DataFrame, path: Path) -> None:
    """The figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "study"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for way, part in found[found["share"] != "area"].groupby("way", sort=False):
            axes.plot(100 * part["share"].astype(float), part["regret"], marker="o", markersize=3, label=way,
                      linewidth=2.5 if way == "select" else 1.2)  # fmt: skip
        axes.set(xscale="log", xlabel="cost, % of fine-tuning all", ylabel="accuracy lost (regret)")
        axes.xaxis.set_major_formatter("{x:g}")
        figure.legend(frameon=False, loc="outside lower center", ncols=3)  # beside the lines, not over them
        figure.savefig(path, dpi=110)


def as_table(found: pd.DataFrame) -> list[str]:
    """The curves as a Markdown table."""
    wide = found.pivot(index="way", columns="share", values="regret").loc[list(ways())]
    heads = [f"{100 * share:g} %" if share != "area" else "area to 30 %" for share in SHOWN]
    lines = [f"| Way | {' | '.join(heads)} |", "|---" * (len(SHOWN) + 1) + "|"]
    for way, row in wide.iterrows():
        lines.append(f"| {way} | {' | '.join(f'{row[share]:.4f}' for share in SHOWN)} |")
    return lines


def verdict(found: pd.DataFrame) -> str:
    """Who wins."""
    own = found[found["way"] == "select"].set_index("share")["regret"]
    all_of_them = float(found[(found["way"] == "random") & (found["share"] == 1.0)]["regret"].iloc[0])
    rivals = found[found["way"] != "select"]
    worse = rivals[rivals["lead_upper"] < 0]
    areas = rivals[rivals["share"] == "area"]
    best = areas.loc[areas["regret"].idxmin()]
    beaten = ", ".join(
        f"{row.way} at {100 * row.share:g} %" if row.share != "area" else f"{row.way} in area"
        for row in worse.itertuples()
    )
    return " ".join(
        [
            f"Up to 30 % of the cost `select` loses {own['area']:.4f} on average; the best rival, {best['way']}, "
            f"{best['regret']:.4f} (difference {best['lead']:+.4f}, 95 % interval over targets "
            f"{best['lead_lower']:+.4f} to {best['lead_upper']:+.4f}).",
            f"A rival is better by more than its interval here: {beaten}."
            if beaten
            else "Nowhere is a rival better by more than the interval.",
            f"With 10 % of the cost `select` loses {own[0.1]:.4f}; the goal is 0.01"
            + (", which it reaches." if own[0.1] <= 0.01 else ", which it does not reach."),
            f"Whoever fine-tunes all and keeps the best on validation data still loses {all_of_them:.4f}.",
        ]
    )
