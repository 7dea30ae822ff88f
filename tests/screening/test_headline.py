from __future__ import annotations

import math

import pytest
import torch

from lightning_transfer.metrics import LogME
from lightning_transfer.report.console import as_text
from lightning_transfer.report.html import leaderboard_html
from lightning_transfer.screening import Leaderboard, Row, screen
from lightning_transfer.screening.headline import headline
from tests._screens import Failing, Linear


def board(errors=0.01, sizes=None, remarks=(), info=None, more=None, **scores) -> Leaderboard:
    rows = [
        Row(
            name,
            {"logme": score} | {column: values[name] for column, values in (more or {}).items()},
            {"logme": errors} if errors is not None else {},
            parameters=(sizes or {}).get(name),
            remarks=tuple(remarks),
            control=name.endswith("_random"),
        )
        for name, score in scores.items()
    ]
    return Leaderboard(rows, info=info or {})


def test_one_that_is_ahead_is_named_alone():
    assert headline(board(a=0.1, b=0.2)) == ["Fine-tune b: LogME rules out all others (95 %)."]


def test_those_that_are_not_ruled_out_are_named():
    first = headline(board(a=0.1, b=0.2, c=0.195, d=0.199))[0]
    assert first == "Fine-tune b; LogME does not rule out d and c (95 %)."
    many = headline(board(errors=1.0, **{f"net{i}": i / 100 for i in range(9)}))
    assert many[0] == "Fine-tune net8; LogME does not rule out net7, net6, net5, net4 and 4 more (95 %)."
    assert "This sample tells the first from none of the others: too few samples, or all are alike." in many


def test_without_errors_nothing_is_ruled_out():
    said = headline(board(errors=None, a=0.1, b=0.2))
    assert said == ["Fine-tune b: first by LogME, but without standard errors (error_bars=true) no other is ruled out."]


def test_a_control_that_wins_is_not_recommended():
    said = headline(board(a=0.1, a_random=0.3, b=0.2))
    assert said[0].startswith("A control with random weights ranks first (a_random): LogME shows no gain")
    assert "No better than their controls with random weights by LogME: a." in said
    assert not [line for line in said if line.startswith("Fine-tune")]
    assert "controls" not in " ".join(headline(board(a=0.3, a_random=0.1)))


def test_among_controls_alone_none_is_recommended():
    said = headline(board(a_random=0.1, b_random=0.3, more={"gbc": {"a_random": -1.0, "b_random": -2.0}}))
    assert said == [
        "All 2 backbones have random weights: LogME compares their structures, not what training gave them, so it does "
        "not say which one to fine-tune."
    ]


def test_scores_that_disagree_say_which_says_what():
    scores = {"gbc": {"a": -1.0, "b": -2.0, "c": -3.0}, "h_score": {"a": 1.0, "b": 2.0, "c": 0.0}}
    (line,) = [line for line in headline(board(a=0.1, b=0.2, c=0.0, more=scores)) if "disagree" in line]
    assert line.startswith("Scores disagree: LogME and H-score say b; GBC says a. Together (")
    assert " they find b (" in line
    rows = [
        Row("a", {"logme": 0.1, "gbc": 1.0, "h_score": 3.0}, {"logme": 0.01, "gbc": 0.1, "h_score": 5.0}),
        Row("b", {"logme": 0.2, "gbc": 0.0, "h_score": 1.0}, {"logme": 0.01, "gbc": 0.1, "h_score": 5.0}),
    ]
    (line,) = [line for line in headline(Leaderboard(rows, rank_by="logme")) if "disagree" in line]
    assert "LogME says b; H-score puts another first without ruling it out; GBC says a." in line
    agreed = {"gbc": {"a": -2.0, "b": -1.0, "c": -3.0}}
    assert "disagree" not in " ".join(headline(board(a=0.1, b=0.2, c=0.0, more=agreed)))


def test_what_has_no_score_is_never_the_most_likely_best():
    rows = [Row("a", {"logme": 1.0, "gbc": 2.0, "own": math.inf}), Row("b", {"logme": 2.0, "gbc": 1.0, "own": 0.0})]
    said = " ".join(headline(Leaderboard([*rows, *(Row(f"failed{i}", status="ValueError: no") for i in range(3))])))
    assert "disagree" in said
    assert "failed" not in said


def test_what_a_race_dropped_is_ruled_out_or_not():
    def say(*rows, **ruled_out):
        gone = [{"backbone": name, "ruled_out": value} for name, value in ruled_out.items()]
        dropped = [Row(name, status="dropped after 32 samples") for name in ruled_out]
        return headline(Leaderboard([*rows, *dropped], rank_by="logme", info={"race": {"dropped": gone}}))

    rows = [Row("a", {"logme": 1.0}, {"logme": 0.01}), Row("b", {"logme": 0.5}, {"logme": 0.01})]
    assert say(rows[0], c=True, d=True) == ["Fine-tune a: LogME rules out all others (95 %)."]
    assert say(rows[0], c=True, d=False) == ["Fine-tune a; LogME does not rule out d (95 %)."]
    assert say(*rows, c=True, d=True) == ["Fine-tune a: LogME rules out all others (95 %)."]
    assert say(*rows, c=False, d=False) == ["Fine-tune a; LogME does not rule out c and d (95 %)."]
    alike = [Row(name, {"logme": 1.0 + i / 1e4}, {"logme": 0.01}) for i, name in enumerate("abe")]
    assert "tells the first from none" in say(*alike, c=False)[-1]
    assert "tells the first from none" not in say(*alike, c=True)[-1]
    for odd in ("text", {"dropped": "text"}, {"dropped": ["text", {"backbone": ["a"]}]}):
        assert headline(Leaderboard(rows, info={"race": odd})) == ["Fine-tune a: LogME rules out all others (95 %)."]


def test_a_disagreement_within_the_error_is_none():
    rows = [Row("a", {"logme": 1.0, "gbc": 0.50}, {"logme": 0.1, "gbc": 0.1}), Row("b", {"logme": 2.0, "gbc": 0.49})]
    rows[1] = Row("b", {"logme": 2.0, "gbc": 0.49}, {"logme": 0.1, "gbc": 0.1})
    assert "disagree" not in " ".join(headline(Leaderboard(rows)))


def test_size_as_a_guess():
    sizes = {"a": 10, "b": 20}
    assert "It is the largest one too: size alone would have been as good a guess." in headline(
        board(a=0.1, b=0.2, sizes=sizes)
    )
    near = headline(board(a=0.2, b=0.199, sizes=sizes))
    assert "The largest one, b, is not ruled out: as good a guess without any score." in near
    assert "largest" not in " ".join(headline(board(a=0.2, b=0.1, sizes=sizes)))
    assert "largest" not in " ".join(headline(board(a=0.2, b=0.1, sizes={"a": 10, "b": 10})))


def test_few_samples_and_near_duplicates():
    said = headline(board(a=0.1, b=0.2, info={"num_samples": 60, "num_classes": 20, "near_duplicates": 0.25}))
    assert "60 samples of 20 classes are few (3.0 a class): take more." in said
    assert any(line.startswith("At least 25% of the samples repeat or overlap another one") for line in said)
    enough = headline(board(a=0.1, b=0.2, info={"num_samples": 600, "num_classes": 20, "near_duplicates": 0.01}))
    assert len(enough) == 1


def test_collapsed_features_are_said():
    metric = LogME()
    line = torch.arange(50.0)[:, None].expand(50, 40).contiguous()
    metric.update(line + 1e-4 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2)
    remarks = metric.health().messages
    said = headline(board(a=0.1, b=0.2, remarks=remarks))
    assert "The features of all backbones have collapsed to one direction: no score of them says much." in said


@pytest.mark.parametrize(
    ("rows", "start"),
    [
        ([], "Nothing was screened."),
        ([Row("a", {"logme": 1.0})], "There is nothing to choose from: only a has a score in LogME."),
        (
            [Row("a", {"logme": 1.0}), Row("b", status="ValueError: no")],
            "There is nothing to choose from: only a has a score in LogME (1 without a score).",
        ),
        (
            [Row("a", status="ValueError: no"), Row("b", {"logme": float("nan")})],
            "No backbone has a score in LogME, so nothing can be said (a: ValueError: no).",
        ),
        ([Row("a", {"logme": 1.0}), Row("b", {"logme": 1.0})], "LogME is the same for all 2 backbones"),
    ],
)
def test_never_a_confident_answer_where_there_is_none(rows, start):
    said = headline(Leaderboard(rows))
    assert said[0].startswith(start)
    assert not [line for line in said if "Fine-tune" in line]


def test_it_stands_in_every_table():
    shown = board(a=0.1, b=0.2)
    assert shown.headline()[0] in as_text(shown, width=200)
    assert shown.headline()[0] in leaderboard_html(shown)


def test_a_screen_finds_duplicates_for_it(tmp_path):
    inputs = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    data = (torch.cat([inputs, inputs]), torch.arange(40) % 2)
    found = screen({"a": Linear(4), "b": Linear(5), "c": Failing(ValueError("no"))}, data, "logme", output_dir=tmp_path)
    assert found.info["near_duplicates"] == 1.0
    again = Leaderboard.load(tmp_path)
    assert again.headline() == found.headline()
    assert any(line.startswith("At least 100% of the samples") for line in again.headline())


def test_scores_that_rounding_alone_tells_apart_say_nothing():
    same = {"h_score": {"a": 19.000000000000004, "b": 19.0, "c": 18.999999999999996}}
    assert "H-score" not in " ".join(headline(board(a=0.1, b=0.2, c=0.0, more=same)))
    said = headline(board(a=19.0, b=19.000000000000004))[0]
    assert said == "LogME is the same for all 2 backbones: it does not say which one to take."


@pytest.mark.parametrize(
    ("samples", "column", "said"), [(100, "logme", True), (200, "logme", False), (100, "leep", False)]
)
def test_logme_of_more_features_than_samples_is_not_trusted(samples, column, said):
    scores = [{"logme": 0.1 * i, "leep": 0.1 * i} for i in range(2)]
    rows = [Row(name, one, feature_dim=128) for name, one in zip("ab", scores, strict=True)]
    board = Leaderboard(rows, rank_by=column, info={"num_samples": samples})
    assert any("100 samples are no more than b has features (128)" in line for line in headline(board)) == said
