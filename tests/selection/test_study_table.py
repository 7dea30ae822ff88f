from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_transfer.screening import Row
from lightning_transfer.screening.rank_statistics import spearman, top1_regret
from lightning_transfer.selection import Outcome, StudyRow, StudyTable
from lightning_transfer.selection.study_table import add_rows


def make_row(backbone="a", target="t", truth=0.5, spread=0.0, status="ok", **scores) -> StudyRow:
    number = 1 + ord(backbone[0]) - ord("a")
    row = Row(backbone, scores, parameters=10 * number, flops=number, status=status)
    values = () if truth is None else (truth - spread, truth + spread)
    outcomes = {"full": Outcome("full", values, 1e-3, {1e-3: 0.5}, 1.0)} if values else {}
    return StudyRow(target, "classification", row, outcomes, 100, 2, "xy"[number % 2], "abc"[number % 3], settings="s")


def make_table(targets=4, backbones=8, seed=0, noise=0.1) -> StudyTable:
    generator = np.random.default_rng(seed)
    rows = []
    for t in range(targets):
        truths = generator.uniform(0.5, 0.9, size=backbones)
        for i, truth in enumerate(truths):
            scores = {
                "logme": float(truth + noise * generator.normal() / 10),
                "gbc": float(generator.normal()),
                "task_relatedness": float(-truth),
            }
            rows.append(make_row("abcdefghijkl"[i], f"target{t}", float(truth), 0.001, **scores))
    return StudyTable(rows)


def test_rows_are_kept_as_text(tmp_path):
    table = make_table()
    for row in table.rows:
        add_rows(tmp_path, [row])
    again = StudyTable.load(tmp_path)
    assert again.to_text() == table.to_text()
    add_rows(tmp_path, [make_row("a", "target0", truth=0.123)])
    changed = StudyTable.load(tmp_path / "study.jsonl")
    assert len(changed) == len(table)
    assert changed.frame("target0").loc["a", "truth"] == pytest.approx(0.123)
    with pytest.raises(FileNotFoundError):
        StudyTable.load(tmp_path / "nowhere")
    assert len(StudyTable.load(tmp_path / "nowhere", missing_ok=True)) == 0


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"format": 2}', '{"format": 1, "outcomes": {}}'])
def test_damaged_rows_are_refused_with_their_line(tmp_path, line):
    good = json.dumps(make_row().to_dict())
    (tmp_path / "study.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        StudyTable.load(tmp_path)


def test_unknown_and_wrong_entries_are_refused():
    record = make_row().to_dict()
    with pytest.raises(ValueError, match="row of a study"):
        StudyRow.from_dict({**record, "extra": 1})
    with pytest.raises(ValueError, match="row of a study"):
        StudyRow.from_dict({**record, "target": 3})
    with pytest.raises(ValueError, match="twice"):
        StudyTable([make_row(), make_row()])


@pytest.mark.parametrize(
    "options", [{"statistics": []}, {"level": 2.0}, {"without_largest": -0.5}, {"without_largest": 1.5}]
)
def test_a_judgement_refuses_wrong_arguments(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
        make_table().judge(**options)


def test_statistics_are_means_over_targets_with_directions():
    table = make_table()
    judged = table.judge(draws=200)
    frames = table.frames()
    expected = np.mean([spearman(frame["gbc"], frame["truth"]) for frame in frames.values()])
    assert judged.loc["gbc", "spearman"] == pytest.approx(expected)
    regret = np.mean([top1_regret(frame["gbc"], frame["truth"]) for frame in frames.values()])
    assert judged.loc["gbc", "top1_regret"] == pytest.approx(regret)
    assert judged.loc["task_relatedness", "spearman"] == pytest.approx(1)  # lower bounds are better
    assert judged.loc["task_relatedness", "top1_regret"] == 0
    assert {"parameters", "flops", "chance", "consensus_other_targets"} <= set(judged.index)
    rows = judged.drop(["chance", "other_seeds"])
    assert (rows["top1_regret"].diff().dropna() >= 0).all()
    assert list(judged.index[-2:]) == ["chance", "other_seeds"]
    for statistic in ("spearman", "top1_regret"):
        assert (rows[f"{statistic}_lower"] <= rows[statistic] + 1e-9).all()
        assert (rows[f"{statistic}_upper"] >= rows[statistic] - 1e-9).all()


def test_chance_is_that_of_random_orders():
    table = make_table(targets=3)
    judged = table.judge(draws=100)
    expected = np.mean([frame["truth"].max() - frame["truth"].mean() for frame in table.frames().values()])
    assert judged.loc["chance", "top1_regret"] == pytest.approx(expected, abs=0.02)
    assert abs(judged.loc["chance", "spearman"]) < 0.1


def test_other_seeds_are_the_truth_with_its_noise():
    def table_of(*around: float) -> StudyTable:
        rows = make_table(targets=3).rows
        values = [tuple(row.outcomes["full"].mean + gap for gap in around) for row in rows]
        outcomes = [replace(row.outcomes["full"], values=found) for row, found in zip(rows, values, strict=True)]
        return StudyTable(replace(row, outcomes={"full": one}) for row, one in zip(rows, outcomes, strict=True))

    table = table_of(-0.06, 0.0, 0.06)
    judged = table.judge(draws=100)
    frame = table.frame("target0")
    assert frame["truth_se"].to_numpy() == pytest.approx(0.06 / math.sqrt(3))
    assert 0 < judged.loc["other_seeds", "top1_regret"] < judged.loc["chance", "top1_regret"]
    assert judged.loc["chance", "spearman"] < judged.loc["other_seeds", "spearman"] < 1
    assert "other seeds" in table.headline()[0]
    alike = table_of(0.0, 0.0).judge(draws=100).loc["other_seeds"]
    assert (alike["top1_regret"], alike["spearman"]) == pytest.approx((0, 1))
    single = table_of(0.0)
    assert "other_seeds" not in single.judge(draws=100).index
    assert "other seeds" not in single.headline()[0]


def test_within_groups_only_those_are_compared():
    table = make_table()
    within = table.judge(within="architecture", draws=100)
    values = [
        spearman(part["gbc"], part["truth"])
        for frame in table.frames().values()
        for _, part in frame.groupby("architecture")
    ]
    assert within.loc["gbc", "cells"] == len(values) == 8
    assert within.loc["gbc", "spearman"] == pytest.approx(np.mean(values))
    with pytest.raises(ValueError, match="within one source"):
        make_table(backbones=5).judge(within="source")
    smaller = table.judge(without_largest=0.5, draws=100)
    frame = table.frame("target0")
    assert smaller.loc["gbc", "cells"] == 4
    assert smaller.loc["parameters", "spearman"] == pytest.approx(
        np.mean([spearman(f["parameters"][:4], f["truth"][:4]) for f in table.frames().values()])
    )
    assert len(frame) == 8


def test_the_consensus_is_learned_on_other_targets_alone():
    table = make_table(targets=6, noise=0.05)
    liar = []
    for i, row in enumerate(table.rows[:8]):
        scores = {**row.row.scores, "logme": -row.row.score("logme"), "gbc": 0.1 * i}
        liar.append(make_row(row.backbone, "liar", row.outcomes["full"].mean, **scores))
    judged = table.judge(draws=100)
    assert judged.loc["consensus_other_targets", "spearman"] > 0.8
    assert judged.loc["consensus_other_architectures", "spearman"] > 0.8
    frame = StudyTable([*table.rows, *liar])._with_consensus("full")["liar"]
    assert spearman(frame["consensus_other_targets"], frame["truth"]) < 0.9  # it did not see that the score lies


def test_evidence_for_the_consensus():
    evidence = make_table(targets=30).evidence()
    assert evidence.origin == "a study of 8 backbones on 30 targets"
    weights, _ = evidence.weights(["logme", "gbc", "parameters"])
    assert weights["logme"] > 3 * max(weights["gbc"], weights["parameters"])


def test_headline_says_what_is_wrong():
    assert make_table().headline()[0].startswith("Over 4 targets Task relatedness loses least")
    assert StudyTable().headline() == ["Nothing was fine-tuned by full: nothing can be said."]
    failed = StudyTable([make_row(truth=None, status="ValueError: no")])
    assert failed.headline() == ["Nothing was fine-tuned by full: nothing can be said (a on t: ValueError: no)."]
    one = StudyTable([make_row("a", truth=0.5, logme=1.0)])
    assert "t: too few backbones (1) to compare scores on." in one.headline()
    assert one.headline()[0].startswith("No target has backbones to compare")
    alike = StudyTable([make_row(name, truth=0.5, logme=float(i)) for i, name in enumerate("abcd")])
    assert "t: all backbones end alike, so no score can be right or wrong." in alike.headline()
    noisy = StudyTable([make_row(n, truth=0.5 + i / 1000, spread=0.1, logme=float(i)) for i, n in enumerate("abcd")])
    assert any("seeds differ (0.141) more than backbones do (0.001)" in line for line in noisy.headline())


def test_a_score_of_fewer_targets_does_not_win_by_the_choice_of_targets():
    rows = []
    for row in make_table().rows:
        truth = {} if row.target == "target0" else {"lfc": row.outcomes["full"].mean}  # right wherever it is there
        rows.append(make_row(row.backbone, row.target, row.outcomes["full"].mean, gbc=row.row.score("gbc"), **truth))
    table = StudyTable(rows)
    assert table.judge()["top1_regret"].idxmin() == "lfc"
    assert table.headline()[0].startswith("Over 4 targets ")
    assert "LFC" not in table.headline()[0]


def test_a_score_of_a_few_backbones_is_not_judged_beside_those_of_all():
    rows = []
    for row in make_table(targets=2, backbones=9).rows:
        for name, known in (("lfc", "abcde"), ("leep", "abcdef")):
            if row.backbone in known:
                row = replace(row, row=replace(row.row, scores={**row.row.scores, name: row.outcomes["full"].mean}))
        rows.append(row)
    judged = StudyTable(rows).judge()
    assert "lfc" not in judged.index  # five of nine
    assert judged.loc["leep", "cells"] == 2  # six of nine
    truths = [[row.outcomes["full"].mean for row in rows if row.target == f"target{t}"] for t in range(2)]
    lost = np.mean([max(truth) - max(truth[:6]) for truth in truths])  # it is right of those that it knows
    assert judged.loc["leep", "top1_regret"] == pytest.approx(lost)
    assert judged.loc["leep", "spearman"] == pytest.approx(1)


def test_a_score_that_is_chance_is_said_to_be():
    table = make_table(targets=2, backbones=4)
    rows = [StudyRow(**{**vars(row), "row": Row(row.backbone, {"gbc": row.row.score("gbc")})}) for row in table.rows]
    assert "not told from chance" in StudyTable(rows).headline()[0]


def test_it_is_saved_as_pages(tmp_path):
    table = make_table(targets=2)
    paths = table.save(tmp_path)
    assert set(paths) == {"jsonl", "png", "html", "md", "tex"}
    html = paths["html"].read_text()
    assert "Which scores foretell fine-tuning?" in html
    assert "<script" not in html
    assert "| Score |" in paths["md"].read_text()
    assert r"\begin{tabular}" in paths["tex"].read_text()
    assert "Within one architecture" in html
    assert StudyTable.load(tmp_path).to_text() == table.to_text()
    assert "LogME" in str(table)
    assert repr(table) == "StudyTable(8 backbones, 2 targets, 16 rows)"
    assert set(StudyTable([make_row(truth=None)]).save(tmp_path / "none")) == {"jsonl"}


def test_frames_hold_costs_and_facts():
    frame = make_table().frame("target1")
    assert {"logme", "parameters", "flops", "source_accuracy", "truth", "architecture"} <= set(frame)
    assert math.isnan(frame["source_accuracy"].iloc[0])
    with pytest.raises(ValueError, match="`target`"):
        make_table().frame("elsewhere")
    with pytest.raises(ValueError, match="`truth`"):
        make_table().frame("target1", "lora")
    with pytest.raises(ValueError, match="`within`"):
        make_table().judge(within="size")


def test_an_infinite_score_is_missing():
    rows = list(make_table().rows)
    rows[0] = make_row("a", "target0", 0.7, 0.001, logme=math.inf, gbc=1.0, task_relatedness=-0.7)
    assert math.isnan(StudyTable(rows).frame("target0").loc["a", "logme"])
    assert "loses least by its first choice" in StudyTable(rows).headline()[0]
