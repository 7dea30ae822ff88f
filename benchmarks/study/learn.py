"""From the rows of the study: weights of the consensus, pages, and ``docs/which-score.md``; nothing is typed."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import curve
import numpy as np
import pandas as pd

import lightning_transfer
from lightning_transfer.metrics.registry import DEFAULT_METRICS, METRICS
from lightning_transfer.report.text import listed, title
from lightning_transfer.screening.consensus import Evidence, consensus, signed_scores
from lightning_transfer.selection import StudyTable
from lightning_transfer.selection.study_table import _COVERED as COVERED
from lightning_transfer.selection.study_table import REFERENCES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "which-score.md"
README = ROOT / "README.md"
MARKS = "<!-- study -->", "<!-- /study -->"
EVIDENCE = Path(lightning_transfer.__file__).parent / "screening" / "evidence.json"
RIVALS = ("logme", "parameters", "knn_accuracy")
OPINION = "consensus_other_targets"
SHOWN = 12
COST = (
    "Each way spends a share of what fine-tuning every backbone would cost (FLOPs, an epoch of training as three "
    "passes). `select` screens, compares in trainings and leaves out, with the consensus that has not seen the "
    "target. Below 3 % a screen is too dear, and it goes by size. The rivals fine-tune as many as the budget "
    "pays for, in their order, and keep the best on validation data; those that look at features pay for "
    "one pass over all (kNN is a ridge probe on tasks that it is not for). Trainings are replayed from the study; one "
    "that a small budget shortens counts as whole, for every way alike.",
)
FIRST_LOOK = (*DEFAULT_METRICS, "parameters")
ENOUGH = curve.ENOUGH


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=HERE / "rows")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--evidence", type=Path, default=EVIDENCE)
    options = parser.parse_args()
    table = StudyTable.load(options.rows)
    table.evidence().save(options.evidence)
    found = curve.curves(single(table))
    if len(found):
        curve.draw(found, options.page.parent / "images" / "regret_cost.png")
    firsts = first_choices(table)
    options.page.write_text(page(table, firsts, found, read_variants(options.rows)), encoding="utf-8")
    if options.page == PAGE:
        README.write_text(with_result(README.read_text(encoding="utf-8"), table, firsts), encoding="utf-8")
    for path in table.save(options.rows).values():
        print(path)


def page(table: StudyTable, firsts: pd.DataFrame, found: pd.DataFrame, variants: pd.DataFrame) -> str:
    """The whole page."""
    judged = {None: judge(single(table), None)} | {
        within: judge(table, within) for within in ("architecture", "source")
    }
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
        f"{len(backbones)} backbones on {len(frames)} targets ({counts}), {each}. "
        "The truth is test accuracy (mean average precision for several labels a sample, R² for regression) "
        "after fine-tuning all weights, the learning rate chosen on validation data, mean of the seeds. "
        "`lightning-transfer study` does the same with your zoo and targets; `benchmarks/study/README.md` says how to "
        "repeat this one.",
        "",
        *(f"- {line}" for line in table.headline()),
        *(["- So few targets tell no score from another: a beginning."] if len(frames) < 5 else []),
        "",
        "**Regret** is the accuracy lost by fine-tuning the first by a score instead of the best one. Brackets hold "
        "95 % intervals over the choice of backbones and targets. `Consensus other targets` are the weights of "
        "`consensus` learned without the target; `Consensus other architectures` without the architecture too. `Other "
        "seeds` is what fine-tuning all of them again with as many other seeds would foretell (normal noise of the "
        "spread that was seen): less regret than that is luck.",
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
    lines += ["", "## What is the default", "", *default(firsts, table)]
    if len(found):
        lines += [
            "",
            "## What `select` loses at which cost",
            "",
            f"{COST[0]} {dearest(table)}",
            "",
            *curve.as_table(found),
            "",
            curve.verdict(found),
            "",
        ]
        everything = curve.curves(table)
        if everything["regret"].tolist() != found["regret"].tolist():
            lines += [f"With mean average precision and R² among the accuracies: {curve.verdict(everything)}", ""]
        lines += ["![Regret against cost](images/regret_cost.png)"]
    if len(variants):
        lines += ["", "## Options of the scores", "", *options_of(variants, table)]
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


def dearest(table: StudyTable) -> str:
    """What the dearest backbone costs."""
    frames = [frame for frame in single(table).frames().values() if len(frame) >= ENOUGH]
    share = max((frame["flops"].max() / frame["flops"].sum() for frame in frames), default=0.0)
    return (
        f"The dearest backbone alone takes up to {share:.0%} of the cost of all: smaller budgets than that stop its "
        "training early, whichever way it is chosen."
    )


def single(table: StudyTable) -> StudyTable:
    """The targets of one label a sample, whose accuracies have one unit."""
    return StudyTable(row for row in table.rows if row.task == "classification")


def judge(table: StudyTable, within: str | None) -> pd.DataFrame | None:
    """The judgement of the scores that at least half of the groups have, None where nothing can be compared."""
    try:
        found = table.judge(within=within)
    except ValueError:
        return None
    return found[found["cells"] * 2 >= found["cells"].max()]


def as_rows(judged: pd.DataFrame) -> list[str]:
    """A table of the best scores, the rivals and chance."""
    names = [*judged.index[:SHOWN], *(name for name in (*RIVALS, OPINION, *REFERENCES) if name in judged.index)]
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


def first_choices(table: StudyTable, having: str | None = None) -> pd.DataFrame:
    """What the first by each way of ranking loses, one row a group of backbones on a target of one label a sample.

    Columns are ``target``, ``within`` (an architecture, or empty for all) and the ways: scores that nearly every group
    has, the consensus of all of them and that of a first look, their weights learned on the other targets, and chance.
    Of the backbones that have a score alone, if one is named, and then without consensus.
    """
    frames = {name: frame for name, frame in single(table).frames().items() if len(frame) >= ENOUGH}
    if having is not None:
        frames = {name: frame[frame[having].notna()] for name, frame in frames.items()}
    names = [name for name in dict.fromkeys(c for frame in frames.values() for c in frame) if is_score(name)]
    records = []
    for target, frame in frames.items():
        evidence = Evidence.learn(scores_of(other) for name, other in frames.items() if name != target)
        groups = [("", frame), *((str(key), part) for key, part in frame.groupby("architecture") if len(part) >= 3)]
        for within, group in groups:
            lost = float(group["truth"].max()) - group["truth"]
            own = scores_of(group).drop(columns="truth")
            record: dict[str, object] = {"target": target, "within": within, "chance": float(lost.mean())}
            for name in names:
                if name in group and group[name].notna().mean() >= COVERED:
                    values = signed_scores(name, group[name].to_numpy())
                    record[name] = float(lost[values == np.nanmax(values)].mean())  # of equal ones any may be first
            first_look = [name for name in FIRST_LOOK if name in own]
            ways = (("consensus", list(own)), ("consensus_first_look", first_look)) if having is None else ()
            for way, columns in ways:
                ranks = consensus(own[columns], evidence=evidence)["expected_rank"]
                record[way] = float(lost[ranks == ranks.min()].mean())
            records.append(record)
    return pd.DataFrame(records)


def is_score(name: str) -> bool:
    """Whether a column of a study's table is a score or the size."""
    return name in METRICS or name in ("parameters", "task_relatedness")


def scores_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores, size and truth."""
    return frame[[name for name in frame if is_score(str(name)) or name == "truth"]]


def means(firsts: pd.DataFrame, within: bool) -> pd.Series:
    """Mean regret of each way: over groups of a target, then over targets; of ways that every target has."""
    part = firsts[firsts["within"].ne("") == within].drop(columns="within")
    by_target = part.groupby("target").mean()
    return by_target.dropna(axis=1).mean().sort_values(kind="stable")


def lead(firsts: pd.DataFrame, way: str, rival: str, within: bool, level: float = 0.95) -> tuple[float, float, float]:
    """How much more a rival loses than a way, with an interval over the choice of targets."""
    part = firsts[firsts["within"].ne("") == within]
    gaps = (part[rival] - part[way]).groupby(part["target"]).mean().to_numpy()
    draws = np.random.default_rng(0).integers(len(gaps), size=(5000, len(gaps)))
    lower, upper = np.quantile(gaps[draws].mean(axis=1), ((1 - level) / 2, (1 + level) / 2))
    return float(gaps.mean()), float(lower), float(upper)


def named(way: str) -> str:
    """A way of ranking in words."""
    return {"consensus": "consensus of all scores", "consensus_first_look": "consensus of a first look",
            "parameters": "size", "chance": "chance"}.get(way) or title(way)  # fmt: skip


def default(firsts: pd.DataFrame, table: StudyTable) -> list[str]:
    """What the first by each way loses where its weights have not seen the target, and what ranks by default."""
    across, inside = means(firsts, False), means(firsts, True)
    shown = [way for way in across.index if way in inside.index]
    targets = firsts["target"].nunique()
    lines = [
        f"Mean regret of the first choice over {targets} targets of one label a sample that {ENOUGH} backbones or more "
        "were fine-tuned on. The consensus of a first look reads what the default screen computes and the number of "
        "parameters; its weights come from the other targets. Where a score does not tell backbones apart the tables "
        "above count the worst of them as its first; from here on the mean over them counts.",
        "",
        "| First by | all backbones | within one architecture |",
        "|---|---|---|",
        *(f"| {named(way)} | {across[way]:.4f} | {inside[way]:.4f} |" for way in shown),
        "",
    ]
    with_heads = first_choices(table, having="leep")
    lines += ["Among the backbones with a source head:", ""]
    lines += [f"- {compared(with_heads, rival, 'leep')}" for rival in RIVALS]
    lines += ["", "Among all:", ""]
    lines += [f"- {compared(firsts, rival, 'consensus_first_look')}" for rival in RIVALS]
    inside_limit, across_limit = inside["logme"], across["logme"]
    better = [way for way in shown if across[way] <= across_limit and inside[way] <= inside_limit and way != "logme"]
    lines += [f"- {compared(firsts, 'logme', way)}" for way in better]
    sure = [named(way) for way in better if all(lead(firsts, way, "logme", within)[1] > 0 for within in (False, True))]
    names = listed([named(way) for way in better])
    place = "both among all backbones and within an architecture"
    found = f"{names} lost less than LogME {place}" if better else f"No score lost less than LogME {place}"
    how = f" (surely {listed(sure)})" if sure else ", none of them by more than the interval in both" if better else ""
    chosen, regrets = chosen_elsewhere(firsts)
    lines += [
        "",
        f"{found[0].upper()}{found[1:]}{how}.",
        "",
        "Where every backbone has its source head, LEEP is the column that ranks a screen: it loses less than LogME, "
        "size and kNN among all backbones and within an architecture (the first three intervals above), and depends "
        f"less than others on the zoo: without the Lites {without_the_lites(table)}. Without heads LogME stays; "
        "among architectures it is not to be trusted with fewer samples than features, where it puts random networks "
        "first. A consensus is to become the default when it beats every single score on targets that it has not "
        "seen, which it does not; `board.headline()` says what it finds, and `select` goes by it. A default is chosen "
        "by looking at targets, too: the score of least regret, in both places together, on the other targets is "
        f"{listed([f'{named(way)} ({count})' for way, count in chosen.items()])}, and loses {regrets[0]:.4f} among "
        f"all backbones and {regrets[1]:.4f} within one architecture on the one left out.",
    ]
    return lines


def without_the_lites(table: StudyTable) -> str:
    """What the first by LEEP and by its rivals loses among the small networks with heads, in words."""
    small = StudyTable([row for row in table.rows if not str(row.architecture).startswith("lite")])
    firsts = first_choices(small, having="leep")
    across, inside = means(firsts, False), means(firsts, True)
    return "the first by " + listed([f"{named(w)} loses {across[w]:.3f} / {inside[w]:.3f}" for w in ("leep", *RIVALS)])


def chosen_elsewhere(firsts: pd.DataFrame) -> tuple[dict[str, int], tuple[float, float]]:
    """The single score of least regret on all targets but one: how often each, and what they lose on the one."""
    places = [
        firsts[firsts["within"].ne("") == within].drop(columns="within").groupby("target").mean().dropna(axis=1)
        for within in (False, True)
    ]
    ways = [way for way in places[0] if way in places[1] and is_score(way)]
    chosen: dict[str, int] = {}
    lost: list[tuple[float, float]] = []
    for target in places[0].index:
        others = sum(place[ways].drop(index=target).mean() for place in places)
        way = str(others.idxmin())
        chosen[way] = chosen.get(way, 0) + 1
        lost.append((float(places[0].loc[target, way]), float(places[1].loc[target, way])))
    means = np.mean(lost, axis=0)
    return chosen, (float(means[0]), float(means[1]))


def compared(firsts: pd.DataFrame, rival: str, way: str) -> str:
    """How much more a rival loses than a way, in both places."""
    gaps = [
        f"{gap:+.4f} [{lower:+.4f}, {upper:+.4f}] {place}"
        for place, within in (("across all backbones", False), ("within one architecture", True))
        for gap, lower, upper in [lead(firsts, way, rival, within)]
    ]
    return f"{named(rival)} loses {' and '.join(gaps)} more than {named(way)} (95 % intervals over targets)."


def read_variants(rows: Path) -> pd.DataFrame:
    """Scores with other options by backbone, target and variant; empty where there are none."""
    path = rows / "variants.jsonl"
    if not path.is_file():
        return pd.DataFrame()
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame([{"backbone": r["backbone"], "target": r["target"], **r["values"]} for r in records]).set_index(
        ["target", "backbone"]
    )


def options_of(variants: pd.DataFrame, table: StudyTable) -> list[str]:
    """A table of what the first by each variant loses."""
    frames = {name: frame for name, frame in table.frames().items() if name in variants.index and len(frame) >= ENOUGH}
    found: dict[str, list[tuple[float, float]]] = {}
    for target, frame in frames.items():
        values = variants.loc[target].reindex(frame.index).dropna(how="all")
        groups = [part.index for _, part in frame.loc[values.index].groupby("architecture") if len(part) >= 3]
        for column in values:
            ranked = values[column].fillna(-np.inf)

            def loss(names: Sequence[str], ranked: pd.Series = ranked, truth: pd.Series = frame["truth"]) -> float:
                return float(truth[names].max() - truth[ranked[names].idxmax()])

            inside = float(np.mean([loss(list(names)) for names in groups]))
            found.setdefault(str(column), []).append((loss(list(values.index)), inside))
    mean = {column: np.mean(pairs, axis=0) for column, pairs in found.items()}
    hows = list(dict.fromkeys(column.split(", ", 1)[1] for column in mean))
    scores = list(dict.fromkeys(column.split(", ", 1)[0] for column in mean))
    lines = [
        f"Mean regret over {len(frames)} targets of the first by each score, computed otherwise, among the "
        f"{variants.index.get_level_values(1).nunique()} backbones that this was run for: among all of them / within "
        "one architecture. Nothing else changes; the defaults of the package are the first column, and nearest "
        "neighbours with k = 1.",
        "",
        f"| Score | {' | '.join(hows)} |",
        "|---" * (len(hows) + 1) + "|",
    ]
    for score in scores:
        cells = [mean.get(f"{score}, {how}") for how in hows]
        shown = ("" if cell is None else f"{cell[0]:.3f} / {cell[1]:.3f}" for cell in cells)
        lines.append(f"| {title(score)} | {' | '.join(shown)} |")
    return lines


def with_result(text: str, table: StudyTable, firsts: pd.DataFrame) -> str:
    """README with what the study found between its marks."""
    across, inside = means(firsts, False), means(firsts, True)
    lost = {
        way: f"{across[way]:.3f} ({inside[way]:.3f})" for way in ("leep", "logme", "consensus_first_look", "chance")
    }
    sentence = (
        f"which score found the best backbone, on small networks that were fine-tuned on {len(table.frames())} "
        f"targets, and what choosing costs. On {firsts['target'].nunique()} of one label a sample the first by LEEP, "
        f"which ranks by default, lost {lost['leep']} accuracy among all backbones (within one architecture), by LogME "
        f"{lost['logme']}, by a consensus of scores {lost['consensus_first_look']}, a random choice {lost['chance']}; "
        "anyone can rerun it."
    )
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    start = before.rfind("\n") + 1
    item = f"{before[start:]}{MARKS[0]}{sentence}{MARKS[1]}"
    return before[:start] + "\n".join(textwrap.wrap(item, 126, subsequent_indent="  ", break_on_hyphens=False)) + after


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
    heads = {name for name, spec in METRICS.items() if any(part.startswith("source_") for part in spec.requires)}
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
            for name, cells in found["cells"].items()
            if not name.startswith("consensus") and name not in REFERENCES and (needs_head or name not in heads)
            and cells >= COVERED * found["cells"].max()
        ]  # fmt: skip
        chance = found.loc["chance", "top1_regret"]
        listed = ", ".join(f"{title(name)} ({found.loc[name, 'top1_regret']:.3f})" for name in single[:4])
        lines.append(f"- {what}: least regret {listed}; a random choice {chance:.3f}.")
    return lines


if __name__ == "__main__":
    main()
