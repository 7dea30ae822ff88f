from __future__ import annotations

import pandas as pd
import pytest

from lightning_transfer.screening import Leaderboard, Row


def test_to_pandas(board):
    table = board.to_pandas()
    assert list(table.columns) == [
        *("rank", "backbone", "h_score", "logme", "logme_se", "task_relatedness"),
        *("parameters", "parameters_rank", "flops", "feature_dim", "images_per_second", "seconds", "status"),
    ]
    assert list(table["backbone"]) == ["large", "small", "partial", "broken"]
    assert list(table["parameters"].dropna()) == [9_000, 1_000, 4_000]
    assert table.loc[3, "status"] == "RuntimeError: no layer <b>pooling</b>"
    assert Leaderboard().to_pandas().empty


def test_save_and_load(board, tmp_path):
    paths = board.save(tmp_path / "new" / "folder")
    assert sorted(paths) == ["csv", "html", "json", "png"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        f"leaderboard.{kind}" for kind in sorted(paths)
    ]
    for loaded in (Leaderboard.load(paths["json"]), Leaderboard.load(tmp_path / "new" / "folder")):
        pd.testing.assert_frame_equal(loaded.to_pandas(), board.to_pandas())
        assert loaded.info == board.info
        assert loaded["large"].remarks == board["large"].remarks
        assert loaded.rank_by == "logme"
    text = pd.read_csv(paths["csv"])
    assert text["logme"].tolist()[:3] == [0.45, 0.40, -0.2]
    assert {"backbone", "parameters", "flops", "seconds", "status"} < set(text.columns)


def test_a_board_of_failures_is_saved_too(tmp_path):
    paths = Leaderboard([Row("a", status="ValueError: bad")]).save(tmp_path)
    assert sorted(paths) == ["csv", "html", "json"]
    assert Leaderboard.load(tmp_path)["a"].status == "ValueError: bad"


def test_a_failing_write_keeps_the_old_file(board, tmp_path, monkeypatch):
    board.save(tmp_path, figure=False)
    before = (tmp_path / "leaderboard.json").read_bytes()

    def fail(*args):
        raise OSError("disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        board.save(tmp_path, figure=False)
    assert (tmp_path / "leaderboard.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard.csv", "leaderboard.json"]


def test_pareto_front():
    rows = [
        Row("small", {"logme": 0.1, "task_relatedness": 2.0}, parameters=1, images_per_second=90.0),
        Row("dear", {"logme": 0.05, "task_relatedness": 1.0}, parameters=3, images_per_second=10.0),
        Row("middle", {"logme": 0.3, "task_relatedness": 3.0}, parameters=2, images_per_second=50.0),
        Row("as_dear", {"logme": 0.2, "task_relatedness": 3.0}, parameters=2, images_per_second=95.0),
        Row("unknown", {"logme": 0.9}),
        Row("failed", parameters=1),
    ]
    board = Leaderboard(rows)
    assert board.pareto() == ["small", "middle"]
    assert board.pareto("images_per_second") == ["as_dear", "middle"]
    assert board.pareto(column="task_relatedness") == ["small", "dear"]
    with pytest.raises(ValueError, match="`cost`"):
        board.pareto("money")
    alike = [Row("cheap", {"logme": 0.3}, parameters=1), Row("dear", {"logme": 0.1 + 0.2}, parameters=2)]
    assert Leaderboard(alike).pareto() == ["cheap"]  # rounding is no gain
    assert any(line.get_linestyle() == "--" for line in board.plot().axes[0].lines)
