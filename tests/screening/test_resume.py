"""Screens that go on from an earlier one."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from _screens import Counted, Failing, Linear

from lightning_transfer.data import Digits
from lightning_transfer.screening import Leaderboard, screen


def test_resume_takes_over_what_is_done_and_screens_the_rest(digits, tmp_path):
    first = {"a": Counted(4), "b": Failing(RuntimeError("gone")), "c": Counted(5)}
    earlier = screen(first, digits, ["etran", "h_score"], output_dir=tmp_path, error_bars=4)
    again = {"a": Counted(4), "b": Linear(7), "c": Counted(5), "d": Linear(8)}
    board = screen(again, digits, ["etran", "h_score"], error_bars=4, resume=tmp_path)
    whole = screen(again, digits, ["etran", "h_score"], error_bars=4)
    assert sum(again["a"].seen) == sum(again["c"].seen) == 160  # by the last screen alone
    assert [row.backbone for row in board.rows] == list("abcd")
    assert board["a"].seconds == earlier["a"].seconds
    for name in "abcd":
        assert board[name].status == "ok"
        assert board[name].scores == pytest.approx(whole[name].scores, rel=1e-12)
        assert board[name].standard_errors == pytest.approx(whole[name].standard_errors, rel=1e-12)
    assert board.info == whole.info
    assert board.settings == whole.settings == Leaderboard.load(tmp_path).settings
    done = screen(again, digits, ["etran", "h_score"], error_bars=4, resume=board)
    assert [row.seconds for row in done.rows] == [row.seconds for row in board.rows]
    assert done.info == board.info
    same = screen(again, digits, ["etran", "h_score"], error_bars=4, resume=board, trainer={"precision": 32})
    assert same.settings == board.settings
    (tmp_path / "leaderboard.json").write_text('{"format"')
    with pytest.raises(
        ValueError, match=r"leaderboard.json. to be a leaderboard, .*; without `resume` all backbones are"
    ):
        screen(again, digits, ["etran", "h_score"], error_bars=4, resume=tmp_path)


def test_an_interrupt_keeps_the_rows_that_were_to_be_taken_over(digits, tmp_path, interrupts_arrive):
    class Interrupting(Linear):
        def encode(self, inputs):
            if len(inputs) > 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().encode(inputs)

    earlier = screen({"b": Linear(4), "c": Linear(5), "gone": Linear(6)}, digits, "h_score", output_dir=tmp_path)
    zoo = {"a": Interrupting(7), "b": Linear(4), "c": Linear(5), "d": Linear(8)}
    board = screen(zoo, digits, "h_score", output_dir=tmp_path, resume=tmp_path)
    assert board.info["interrupted"] is True
    for rows in (board, Leaderboard.load(tmp_path)):
        assert {row.backbone: row.status for row in rows.rows if row.backbone != "gone"} == {
            "a": "interrupted", "b": "ok", "c": "ok", "d": "interrupted",
        }  # fmt: skip
        assert [rows[name] for name in "bc"] == [earlier[name] for name in "bc"]
    assert Leaderboard.load(tmp_path)["gone"] == earlier["gone"]
    zoo["a"] = Linear(7)
    done = screen(zoo, digits, "h_score", resume=tmp_path)
    assert [row.status for row in done.rows] == ["ok"] * 4
    assert done["b"].seconds == earlier["b"].seconds


def test_a_backbone_that_has_changed_is_screened_again(digits):
    earlier = screen({"a": Counted(4), "b": Counted(5)}, digits, "h_score")
    changed = Counted(4)
    with torch.no_grad():
        changed.weight[0, 0] += 1
    board = screen({"a": changed, "b": Counted(5)}, digits, "h_score", resume=earlier)
    assert sum(changed.seen) == 160
    assert board["a"].fingerprint != earlier["a"].fingerprint
    assert board["b"] == earlier["b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"leep": {}}}, r"`metrics\.leep` is None instead of {}"),
        ({"metrics": {"knn_accuracy": {"k": 3}}}, r"`metrics\.knn_accuracy\.k` is None instead of 3"),
        ({"max_samples": 20}, "`max_samples` is None instead of 20"),
        ({"error_bars": 4}, "`jackknife_groups` is 0 instead of 4"),
        ({"seed": 1}, "`seed` is 0 instead of 1"),
        ({"split": "test"}, r"`(target\.fingerprint|split)` is"),
        ({"trainer": {"precision": "bf16-true"}}, "`precision` is '32-true' instead of 'bf16-true'"),
        ({"split": "predict", "target": Digits(max_samples=100)}, r"`target\.fingerprint` is"),
        ({"target": "digits"}, r"`target\.fingerprint` is"),
        ({"target": Digits(max_samples=160, seed=1)}, r"`target\.fingerprint` is"),
        ({"reference": "digits_0_4"}, "`reference` is None instead of"),
    ],
)
def test_resume_refuses_a_leaderboard_of_another_screen(digits, changes, message):
    earlier = screen(Linear(4), digits, {"knn_accuracy": {}})
    backbone = Counted(4)
    arguments = {"target": digits, "metrics": {"knn_accuracy": {}}} | changes
    with pytest.raises(
        ValueError, match="Expected argument `resume` to be a leaderboard of the same screen, .*" + message
    ):
        screen(backbone, resume=earlier, **arguments)
    assert not backbone.seen


def test_resume_from_nowhere(digits, tmp_path):
    with pytest.raises(FileNotFoundError):
        screen(Linear(4), digits, "h_score", resume=tmp_path / "gone")
    with pytest.raises(ValueError, match="`target` is None instead of"):
        screen(Linear(4), digits, "h_score", resume=Leaderboard([]))


def test_settings_that_json_cannot_say_are_written_all_the_same(digits, tmp_path):
    relatedness = {"transforms": "learned_a", "label_map": torch.eye(3)}
    screen(Linear(4), digits, "h_score", relatedness=relatedness, output_dir=tmp_path)
    assert len(Leaderboard.load(tmp_path).settings["relatedness"]["label_map"]) == 16
    screen(Linear(4), digits, "h_score", relatedness=relatedness, resume=tmp_path)
