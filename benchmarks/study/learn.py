"""From the rows of the study: weights of the consensus, pages, and ``docs/which-score.md``; nothing is typed."""

from __future__ import annotations

import argparse
from pathlib import Path

import curve
import pandas as pd

import lightning_transfer
from lightning_transfer.report.text import title
from lightning_transfer.selection import StudyTable

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "which-score.md"
EVIDENCE = Path(lightning_transfer.__file__).parent / "screening" / "evidence.json"
RIVALS = ("logme", "parameters", "knn_accuracy")
OPINION = "consensus_other_targets"
SHOWN = 12
COST = (
    "Each way spends a share of what fine-tuning every backbone would cost (FLOPs, an epoch of training as three "
    "passes). `select` screens, halves by short trainings and fine-tunes one, with the consensus that has not seen the "
    "target. The rivals fine-tune as many as the budget pays for, in their order, and keep the best on validation "
    "data; those that look at features pay for one pass over all (kNN is a ridge probe on tasks that it is not for). "
    "Trainings are replayed from the study; one that a small budget shortens counts as whole, for every way alike.",
)
FEATURES = ("logme", "h_score_shrunk", "knn_accuracy", "ridge_probe", "gbc")


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=HERE / "rows")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--evidence", type=Path, default=EVIDENCE)
    options = parser.parse_args()
    table = StudyTable.load(options.rows)
    table.evidence().save(options.evidence)
    found = curve.curves(table)
    if len(found):
        curve.draw(found, options.page.parent / "images" / "regret_cost.png")
    options.page.write_text(page(table, found), encoding="utf-8")
    for path in table.save(options.rows).values():
        print(path)


def page(table: StudyTable, found: pd.DataFrame) -> str:
    """The whole page."""
    single = StudyTable(row for row in table.rows if row.task == "classification")
    judged = {None: judge(single, None)} | {within: judge(table, within) for within in ("architecture", "source")}
    frames = table.frames()
    backbones = sorted({name for frame in frames.values() for name in frame.index})
    counts = ", ".join(f"{len(frame)} on {name}" for name, frame in frames.items())
    samples = sorted({row.num_samples for row in table.rows if row.outcomes})
    each = (
        f"{samples[0]} training samples each"
        if len(samples) == 1
        else f"{samples[0]} to {samples[-1]} training samples each"
    )
    lines = [
        "# Which score to trust",
        "",
        "<!-- Written by `python benchmarks/study/learn.py` from `benchmarks/study/rows/study.jsonl`; do not edit. -->",
        "",
        f"What follows comes from {sum(bool(row.outcomes) for row in table.rows)} pairs that were fine-tuned: "
        f"{len(backbones)} backbones on {len(frames)} "
        f"of the ten targets that are planned ({counts}), {each}. "
        "The truth is test accuracy (mean average precision for several labels a sample, R² for regression) "
        "after fine-tuning all weights, the learning rate chosen on validation data, mean of the seeds. "
        "`lightning-transfer study` does the same with your zoo and targets; `benchmarks/study/README.md` says how to "
        "repeat this one.",
        "",
        *(f"- {line}" for line in table.headline()),
        *(
            [f"- With {len(frames)} of ten targets done, no score is told from another: a beginning."]
            if len(frames) < 5
            else []
        ),
        "",
        "**Regret** is the accuracy lost by fine-tuning the first by a score instead of the best one. Brackets hold "
        "95 % intervals over the choice of backbones and targets. `Consensus other targets` are the weights of "
        "`consensus` learned without the target; `Consensus other architectures` without the architecture too.",
    ]
    sections = {
        "All backbones, one label a sample": judged[None],
        "All backbones, all targets": judge(table, None),
        "Within one architecture": judged["architecture"],
        "Within one source": judged["source"],
    }
    for heading, scores in sections.items():
        lines += ["", f"## {heading}", ""]
        lines += as_rows(scores) if scores is not None else ["Too few rows so far."]
    lines += ["", "## What is the default", "", *default(judged)]
    if len(found):
        lines += ["", "## What `select` loses at which cost", "", *COST, "", *curve.lines(found), ""]
        lines += ["![Regret against cost](images/regret_cost.png)"]
    lines += ["", "## What is weighed, and what to trust when", "", *weights(table), "", *advice(judged)]
    lines += [
        "",
        "## What nobody knows",
        "",
        "- Whether any of this holds for networks and images of ordinary size: the networks here are small, see 32 to "
        "48 pixels and were trained on thousands of images at most (the Lites on ImageNet).",
        "- Samples are taken as independent here. Near-duplicates, patients or documents on both sides of a split "
        "flatter scores and accuracies alike; [`groups`](screening.md#samples-that-belong-together) keeps them on one "
        "side.",
        "- One recipe of fine-tuning was used; another one may order backbones differently.",
        "- Few targets: an interval over them says little of tasks that are of another kind.",
    ]
    return "\n".join(lines) + "\n"


def judge(table: StudyTable, within: str | None) -> pd.DataFrame | None:
    """The judgement of the scores that at least half of the groups have, None where nothing can be compared."""
    try:
        found = table.judge(within=within)
    except ValueError:
        return None
    return found[found["cells"] * 2 >= found["cells"].max()]


def as_rows(judged: pd.DataFrame) -> list[str]:
    """A table of the best scores, the rivals and chance."""
    names = [*judged.index[:SHOWN], *(name for name in (*RIVALS, OPINION, "chance") if name in judged.index)]
    lines = ["| Score | Regret | Spearman | Weighted Kendall | Rel@1 | Groups |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(names):
        row = judged.loc[name]
        cells = [cell(row, statistic) for statistic in ("top1_regret", "spearman", "weighted_kendall", "rel_at_1")]
        lines.append(f"| {title(name)} | {' | '.join(cells)} | {row['cells']:.0f} |")
    return lines


def cell(row: pd.Series, statistic: str) -> str:
    """A number with its interval."""
    lower = row.get(f"{statistic}_lower")
    interval = f" [{lower:.3f}, {row[f'{statistic}_upper']:.3f}]" if lower == lower and lower is not None else ""
    return f"{row[statistic]:.3f}{interval}"


def default(judged: dict[str | None, pd.DataFrame | None]) -> list[str]:
    """Whether the consensus is better than every single score where it has not seen the target."""
    worse = []
    for within, found in judged.items():
        if found is None or within == "source":
            continue
        place = f"within one {within}" if within else "across all backbones, one label a sample"
        own = found.loc[OPINION, "top1_regret"]
        rivals = found.drop(index=[name for name in found.index if name.startswith("consensus") or name == "chance"])
        better = rivals[rivals["top1_regret"] <= own]
        consensus = cell(found.loc[OPINION], "top1_regret")
        worse += [
            f"- {place}: the consensus loses {consensus}, {title(name)} {cell(found.loc[name], 'top1_regret')}."
            for name in RIVALS
            if name in rivals.index
        ]
        if len(better):
            names = ", ".join(title(str(name)) for name in better.index[:6])
            more = f" and {len(better) - 6} more" if len(better) > 6 else ""
            worse.append(f"- {place}: no worse than the consensus are {names}{more}.")
    return [
        "LogME ranks by default, as before: the consensus becomes the default when it beats every single score on "
        "targets and architectures that it has not seen. Where it stands:",
        "",
        *worse,
    ]


def weights(table: StudyTable) -> list[str]:
    """The weights of the scores that the default screen computes, with and without a head."""
    evidence = table.evidence()
    sets = {
        "with a source head": (
            "logme",
            "h_score_shrunk",
            "knn_accuracy",
            "ridge_probe",
            "gbc",
            "leep",
            "nce",
            "parameters",
        ),
        "without one": ("logme", "h_score_shrunk", "knn_accuracy", "ridge_probe", "gbc", "parameters"),
        "the cheap ones": ("logme", "h_score", "parameters"),
    }
    lines = [f"Weights of the consensus, from {evidence.origin} and the prior of equal weights:", ""]
    for what, names in sets.items():
        found, explained = evidence.weights(names)
        parts = ", ".join(f"{title(name)} {value:.2f}" for name, value in sorted(found.items(), key=lambda p: -p[1]))
        lines.append(f"- {what}: {parts}; they explain {explained:.0%} of the variance of the ranks.")
    return lines


def advice(judged: dict[str | None, pd.DataFrame | None]) -> list[str]:
    """The scores that lost least, among those that each situation allows."""
    heads = {"leep", "nce", "label_mse", "energy", "emms"}
    lines = []
    for what, within, needs_head in (
        ("One architecture, several sources, heads at hand", "architecture", True),
        ("One architecture, several sources, no heads", "architecture", False),
        ("Several architectures, no heads", None, False),
        ("Several architectures, heads at hand", None, True),
    ):
        found = judged[within]
        if found is None:
            continue
        single = [
            name
            for name in found.index
            if not name.startswith("consensus") and name != "chance" and (needs_head or name not in heads)
        ]
        chance = found.loc["chance", "top1_regret"]
        listed = ", ".join(f"{title(name)} ({found.loc[name, 'top1_regret']:.3f})" for name in single[:4])
        lines.append(f"- {what}: least regret {listed}; a random choice {chance:.3f}.")
    return lines


if __name__ == "__main__":
    main()
