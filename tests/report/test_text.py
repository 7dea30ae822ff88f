"""Numbers and names in words."""

from __future__ import annotations

import math

import pytest

from lightning_transfer.report.console import as_text
from lightning_transfer.report.text import error_text, human_number, human_seconds, score_texts, sentences, short_names
from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.utilities.errors import Failure


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (0, "0"),
        (7, "7"),
        (999.4, "999"),
        (999.9, "1.00k"),
        (1_500_000_000, "1.50G"),
        (3e12, "3.00T"),
    ],
)
def test_human_number(value, text):
    assert human_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.004, "0.00 s"), (59.94, "59.9 s"), (59.99, "1 min 00 s"), (3599.9, "1 h 00 min")],
)
def test_human_seconds(value, text):
    assert human_seconds(value) == text


def test_score_texts_tell_close_scores_apart_within_reason():
    assert score_texts([1.0001, 1.0002]) == ["1.0001", "1.0002"]
    assert score_texts([1.0, 1.0]) == ["1.000", "1.000"]
    assert score_texts([9.0, 8.9999999]) == ["9.000", "9.000"]
    assert score_texts([-3.21e-6, -4.5e-6, math.nan]) == ["-3.21e-06", "-4.50e-06", "-"]
    assert score_texts([-120.0, -0.01]) == ["-120.0", "0.0"]
    assert error_text("-3.21e-06", 4e-8) == " ±4e-08"


def test_long_names_lose_their_middle_and_leave_room_for_the_columns():
    long = "a_hub/" + "x" * 80 + "_in21k_384"
    rows = [
        Row(name, {"logme": score, "leep": score}, parameters=10, seconds=1.0)
        for name, score in ((long, 1.0), ("b", 2.0))
    ]
    lines = as_text(Leaderboard(rows), 120).splitlines()
    assert "LogME" in lines[0]
    assert "LEEP" in lines[0]
    assert "Time" in lines[0]
    assert "a_hub/" in lines[3]
    assert "…" in lines[3]
    assert "_in21k_384" in lines[3]
    twins = ["x" * 90 + middle + "y" * 90 for middle in "ab"]
    assert short_names(twins, 20) == {name: name for name in twins}


def test_what_several_failed_of_is_said_once():
    rows = [Row("a", {"logme": 1.0}), *(Row(name, status="interrupted") for name in "bcd")]
    assert "b, c and d: interrupted" in sentences(Leaderboard(rows))


def test_a_reason_that_many_share_is_said_once():
    reason = "Cannot build `{}`; weights come from the cache"
    rows = [Row(f"timm/{name}", failure=Failure("ValueError", reason.format(f"timm/{name}"))) for name in "abc"]
    rows += [Row("own", failure=Failure("ValueError", "no file"))]
    (said, other) = sentences(Leaderboard(rows, rank_by="logme"))[-2:]
    assert said == "timm/a, timm/b and timm/c: ValueError: Cannot build it; weights come from the cache"
    assert other == "own: ValueError: no file"
