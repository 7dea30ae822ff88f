"""Scores that are scaled over the rows."""

from __future__ import annotations

import numpy as np
import pytest
from _screens import Failing, Linear

from lightning_transfer.metrics import ETran
from lightning_transfer.screening import Leaderboard, screen


def test_zoo_relative_scores_are_combined_over_the_rows(digits, tmp_path):
    zoo = {"a": Linear(4), "b": Linear(8), "c": Linear(12), "bad": Failing(RuntimeError("gone"))}
    board = screen(zoo, digits, ["etran", "h_score"], output_dir=tmp_path, error_bars=True)
    parts = [board[name].parts["etran"] for name in "abc"]
    expected = np.zeros(3)
    for name, weight in (("energy", 0.15), ("fit", 0.85)):
        values = np.array([part[name] for part in parts])
        expected += weight * (values - values.min()) / (values.max() - values.min())
    assert [board[name].score("etran") for name in "abc"] == pytest.approx(list(expected))
    assert "etran" not in board["a"].standard_errors
    assert Leaderboard.load(tmp_path)["b"].parts == board["b"].parts
    alone = screen({"a": Linear(4)}, digits, ["etran"])
    assert alone["a"].score("etran") == pytest.approx(0.15 * parts[0]["energy"] + 0.85 * parts[0]["fit"])


def test_zoo_relative_scores_of_another_name_are_combined_when_rows_come_together(digits, tmp_path):
    zoo = {"a": Linear(4), "b": Linear(8), "c": Linear(12)}
    whole = screen(zoo, digits, {"mine": ETran()})
    for name, backbone in zoo.items():
        screen({name: backbone}, digits, {"mine": ETran()}, output_dir=tmp_path)
    joined = Leaderboard.load(tmp_path)
    assert {name: joined[name].scores for name in zoo} == {name: whole[name].scores for name in zoo}
