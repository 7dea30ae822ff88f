"""Leaderboards beside each other."""

from __future__ import annotations

import math

import pytest

from lightning_transfer.screening import Leaderboard, Row, across_targets


def board(scores, target="t", error=None, lower=(), column="logme", **fingerprints):
    rows = [
        Row(name, {column: score}, {} if error is None else {column: error}, fingerprint=fingerprints.get(name, ""))
        for name, score in scores.items()
    ]
    return Leaderboard(rows, lower_is_better=lower, info={"target": target})


def test_ranks_are_among_the_backbones_of_both():
    compared = board({"a": 3.0, "x": 2.0, "b": 1.0}).compare(board({"b": 5.0, "a": 4.0, "y": 9.0}))
    assert [(row.backbone, row.ranks) for row in compared.rows] == [("a", (1, 2)), ("b", (2, 1))]
    assert (compared.only_first, compared.only_second) == (("x",), ("y",))
    assert math.isnan(compared.kendall)
    text = str(compared)
    assert "1 -> 2" in text
    assert "Only on the second: y." in text


def test_differences_against_their_errors_and_other_weights():
    first = board({"a": 1.0, "b": 2.0, "c": 3.0}, error=0.1, a="1", b="2")
    second = board({"a": 1.2, "b": 2.5, "c": 3.0}, error=0.1, a="1", b="3")
    compared = first.compare(second)
    by_name = {row.backbone: row for row in compared.rows}
    assert [by_name[name].changed for name in "abc"] == [False, True, False]
    assert [by_name[name].same_weights for name in "abc"] == [True, False, None]
    assert compared.kendall == 1
    assert "other weights beyond its errors" in str(compared)
    assert list(compared.to_pandas().columns)[:3] == ["backbone", "first", "second"]
    one = board({"a": 1.0}).compare(board({"a": 2.0}))
    assert one.rows[0].changed is None
    assert str(one).endswith(", 1 backbone.")


def test_leaderboards_of_two_targets_are_called_by_them():
    compared = board({"a": 1.0, "b": 2.0}, "digits").compare(board({"a": 2.0}, "a_longer_name"))
    lines = str(compared).splitlines()
    assert lines[0].split() == ["Backbone", "digits", "a_longer_name", "rank"]
    assert lines[0].index("rank") == lines[1].index("1 -> 1")
    assert lines[-1] == "Only on digits: b."


def test_wrong_boards_to_compare():
    with pytest.raises(ValueError, match="some of the same backbones, but got b, not a"):
        board({"a": 1.0}).compare(board({"b": 1.0}))
    with pytest.raises(ValueError, match="`other` to be a leaderboard, but got 3"):
        board({"a": 1.0}).compare(3)
    with pytest.raises(ValueError, match="Expected argument `other` to have a score `logme`"):
        board({"a": 1.0}).compare(board({"a": 1.0}, column="leep"))


def test_best_over_targets_by_mean_rank_and_the_easiest_target():
    boards = [
        board({"a": 0.9, "b": 0.8, "c": 0.1}, "one", column="knn_accuracy"),
        board({"a": 0.2, "b": 0.3, "c": 0.1}, "two", column="knn_accuracy"),
        board({"a": 0.5, "b": 0.4, "c": 0.3, "only here": 0.9}, "three", column="knn_accuracy"),
    ]
    across = across_targets(boards)
    assert across.backbones == ("a", "b", "c")
    assert across.mean_ranks == pytest.approx({"a": 4 / 3, "b": 5 / 3, "c": 3})
    assert across.easiest == "one"
    assert list(across.ease) == ["one", "three", "two"]
    assert across.agreement["one", "three"] == 1
    assert across.agreement["one", "two"] == pytest.approx(1 / 3)
    assert "whose scale" not in str(across)
    assert "Best on average: a, mean rank 1.3 over 3 targets" in str(across)
    assert list(across.to_pandas().columns) == ["backbone", "one", "two", "three", "mean_rank"]


def test_lower_is_better_and_ties():
    bounds = [board({"a": 0.1, "b": 0.2}, str(i), column="task_relatedness") for i in range(2)]
    across = across_targets(bounds)
    assert across.best == "a"
    assert "whose scale may differ between targets" in str(across)
    tied = across_targets([board({"a": 1.0, "b": 2.0}, "x"), board({"a": 2.0, "b": 1.0}, "y")])
    assert "Best on average: a and b" in str(tied)


@pytest.mark.parametrize(
    ("boards", "message"),
    [
        ([board({"a": 1.0})], "two leaderboards or more"),
        (board({"a": 1.0}), "`boards` to be leaderboards by target"),
        (["a", "b"], "`boards` to be leaderboards by target"),
        ([board({"a": 1.0}), board({"a": 1.0})], "of different targets"),
        ([board({"a": 1.0}), board({"b": 1.0}, "u")], "to share a backbone"),
        ([board({"a": 1.0}), board({"a": 1.0}, "u", column="leep")], "`column` to be one of"),
    ],
)
def test_wrong_boards_across(boards, message):
    with pytest.raises(ValueError, match=message):
        across_targets(boards)
