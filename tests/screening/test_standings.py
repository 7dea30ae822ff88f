"""Ranks, ties and decisions of a leaderboard."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy.stats import norm

from lightning_transfer.screening import Leaderboard, Row, across_targets, merge_boards

NAN = math.nan


def test_ranks_by_logme_and_puts_missing_values_last(board):
    assert board.rank_by == "logme"
    assert board.best == "large"
    assert board.best_score == 0.45
    assert [row.backbone for row in board.ranked()] == ["large", "small", "partial", "broken"]
    assert board.ranks() == {"small": 2, "large": 1, "partial": 3, "broken": None}
    assert [row.backbone for row in board.ranked("h_score")] == ["small", "large", "partial", "broken"]


def test_direction_of_the_bound(board):
    board.rank_by = "task_relatedness"
    assert board.best == "large"
    assert board.ranks() == {"large": 1, "small": 2, "partial": None, "broken": None}
    board.rank_by = "h_score"
    assert board.best == "small"


def test_other_columns_can_be_better_when_lower():
    rows = [Row("a", {"loss": 2.0}), Row("b", {"loss": 1.0})]
    assert Leaderboard(rows).best == "a"
    assert Leaderboard(rows, lower_is_better=["loss"]).best == "b"


def test_leep_ranks_where_every_backbone_has_it():
    rows = [Row(name, {"h_score": 1.0, "logme": 0.1, "leep": -1.0}) for name in "ab"]
    assert Leaderboard([*rows, Row("c", status="ValueError: no")]).rank_by == "leep"
    headless = Row("d", {"h_score": 2.0, "logme": 0.3})
    assert Leaderboard([*rows, headless]).rank_by == "logme"
    assert Leaderboard([replace(row, scores={"h_score": 1.0}) for row in rows]).rank_by == "h_score"
    assert Leaderboard(rows).ranks_by_default
    assert not Leaderboard(rows, rank_by="logme").ranks_by_default
    assert Leaderboard().rank_by == "logme"
    layers = [replace(row, layer=row.backbone) for row in rows]
    assert Leaderboard(layers).rank_by == "logme"  # all of them have the same outputs
    assert Leaderboard(rows, settings={"layers": "all"}).rank_by == "logme"


def test_a_named_column_is_told_from_the_default_on_disk_and_when_tables_are_joined(tmp_path):
    rows = [Row(name, {"logme": 0.1, "leep": -1.0}) for name in "ab"]
    headless = Leaderboard([Row("c", {"logme": 0.3})])
    for named in ("leep", None):
        board = Leaderboard(rows, rank_by=named)
        board.save(tmp_path / str(named))
        loaded = Leaderboard.load(tmp_path / str(named))
        assert (loaded.rank_by, loaded.ranks_by_default) == ("leep", named is None)
        assert merge_boards(headless, loaded).rank_by == ("logme" if named is None else "leep")
    board.rank_by = "logme"
    assert not board.ranks_by_default
    assert board.compare(headless_of(rows)).column == "logme"


def headless_of(rows):
    return Leaderboard([replace(row, scores={"logme": row.score("logme") + 1}) for row in rows])


def test_leaderboards_are_compared_by_a_column_that_all_have():
    rows = [Row(name, {"logme": 0.1, "leep": -1.0}) for name in "ab"]
    assert Leaderboard(rows).compare(headless_of(rows)).column == "logme"
    assert across_targets({"x": Leaderboard(rows), "y": headless_of(rows)}).column == "logme"


def test_rank_by_falls_back_to_the_first_score_and_refuses_unknown_ones(board):
    assert Leaderboard([Row("a", {"nce": -1.0, "h_score": 2.0})]).rank_by == "nce"
    with pytest.raises(ValueError, match=r"Expected argument `rank_by` to be one of \('h_score', .*'nope'"):
        board.rank_by = "nope"
    assert board.rank_by == "logme"


def test_equal_scores_share_a_rank():
    board = Leaderboard([Row("a", {"logme": 1.0}), Row("b", {"logme": 1.0}), Row("c", {"logme": 0.0})])
    assert board.ranks() == {"a": 1, "b": 1, "c": 3}


def test_static_baseline_ranks_by_size(board):
    assert board.size_ranks() == {"small": 3, "large": 1, "partial": 2, "broken": None}


def test_names_are_unique():
    with pytest.raises(ValueError, match="name each backbone once, but got 'a' twice"):
        Leaderboard([Row("a"), Row("a")])
    with pytest.raises(ValueError, match="to hold rows of the class Row, but got 'a'"):
        Leaderboard(["a"])


def test_nothing_to_rank():
    with pytest.raises(ValueError, match="has no rows"):
        _ = Leaderboard().best
    with pytest.raises(ValueError, match="a: ValueError: bad"):
        _ = Leaderboard([Row("a", status="ValueError: bad")]).best_score


def test_a_board_of_failures_names_the_first_reason_only():
    failed = Leaderboard([Row("a", status="ValueError: no images"), Row("b", status="ValueError: none here")])
    with pytest.raises(ValueError, match=r"\(a: ValueError: no images; 1 more in the table\)"):
        _ = failed.best


def test_prob_better_is_the_normal_approximation(board):
    expected = norm.cdf(0.05 / math.hypot(0.05, 0.12))
    assert board.prob_better("large", "small") == pytest.approx(expected, rel=1e-12)
    assert board.prob_better("small", "large") == pytest.approx(1 - expected, rel=1e-12)
    assert math.isnan(board.prob_better("large", "partial"))
    assert math.isnan(board.prob_better("large", "small", "h_score"))
    with pytest.raises(KeyError, match="nope"):
        board.prob_better("nope", "small")


def test_prob_better_follows_the_direction_and_exact_scores():
    rows = [
        Row("a", {"task_relatedness": 1.0}, {"task_relatedness": 0.1}),
        Row("b", {"task_relatedness": 1.2}, {"task_relatedness": 0.0}),
    ]
    assert Leaderboard(rows).prob_better("a", "b") == pytest.approx(norm.cdf(2.0))
    exact = Leaderboard(
        [Row(name, {"logme": value}, {"logme": 0.0}) for name, value in zip("abc", (1, 2, 2), strict=True)]
    )
    assert [exact.prob_better(*pair) for pair in ("ab", "ba", "bc")] == [0.0, 1.0, 0.5]


def test_undecided_neighbours(board):
    assert board.undecided() == [("large", "small")]
    assert board.undecided(level=0.6) == []
    assert board.undecided(column="h_score") == []
    for level in (0.4, 1.1):
        with pytest.raises(ValueError, match="Expected argument `level`"):
            board.undecided(level=level)
