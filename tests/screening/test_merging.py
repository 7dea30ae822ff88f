"""Folders that several screens write into, one after the other or at once."""

from __future__ import annotations

import json
import multiprocessing

import pandas as pd
import pytest
from _screens import Linear

from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.screening import leaderboard as leaderboard_module
from lightning_transfer.screening.merging import add_to_folder, load_from_folder, merge_boards

SETTINGS = {"target": {"name": "digits"}, "metrics": {"logme": {}}}


def board(*rows: Row, info=None, **settings) -> Leaderboard:
    return Leaderboard(rows, info=info or {"target": "digits"}, settings={**SETTINGS, **settings})


def row(name: str, score: float = 0.5, fingerprint: str = "f", **values) -> Row:
    return Row(name, {"logme": score}, parameters=3, fingerprint=fingerprint, **values)


def names(folder) -> list[str]:
    return [found.backbone for found in Leaderboard.load(folder).rows]


def test_rows_of_the_same_screen_come_together(tmp_path):
    add_to_folder(board(row("a")), tmp_path)
    paths = add_to_folder(board(row("b", 0.7)), tmp_path)
    kinds = ("csv", "html", "json", "png")
    assert sorted(path.name for path in paths.values()) == [f"leaderboard.{kind}" for kind in kinds]
    assert names(tmp_path) == ["a", "b"]
    assert pd.read_csv(tmp_path / "leaderboard.csv").backbone.tolist() == ["b", "a"]
    add_to_folder(board(row("a", 0.9)), tmp_path)
    assert names(tmp_path) == ["a", "b"]
    assert Leaderboard.load(tmp_path)["a"].score("logme") == 0.9


def _add(folder, number: int) -> None:
    for _ in range(2):  # as a screen does, after each backbone and at the end
        add_to_folder(board(row(f"net {number}", fingerprint=str(number))), folder, figure=False)


def _all_rows_of(work, folder) -> None:
    """24 processes at once leave 24 rows."""
    processes = [multiprocessing.get_context("fork").Process(target=work, args=(folder, n)) for n in range(24)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 24
    assert sorted(names(folder)) == sorted(f"net {n}" for n in range(24))


def test_many_processes_at_once_keep_all_rows(tmp_path):
    _all_rows_of(_add, tmp_path)
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 24


def test_other_weights_under_one_name(tmp_path):
    add_to_folder(board(row("net", 0.1, "one")), tmp_path)
    add_to_folder(board(row("net", 0.2, "two")), tmp_path)
    add_to_folder(board(row("net", 0.3, "two")), tmp_path)
    assert {r.backbone: r.score("logme") for r in Leaderboard.load(tmp_path).rows} == {"net": 0.1, "net (2)": 0.3}
    add_to_folder(board(row("net", 0.4, "three")), tmp_path, replace_changed=True)
    assert Leaderboard.load(tmp_path)["net"].score("logme") == 0.4


@pytest.mark.parametrize("later", [Row("a", status="interrupted"), Row("a", status="OSError: gone", fingerprint="f")])
def test_a_row_without_scores_takes_no_finished_ones_place(tmp_path, later):
    add_to_folder(board(row("a")), tmp_path)
    add_to_folder(board(later, row("b")), tmp_path)
    assert [(r.backbone, r.status) for r in Leaderboard.load(tmp_path).rows] == [("a", "ok"), ("b", "ok")]
    add_to_folder(board(Row("c", status="OSError: gone")), tmp_path)
    add_to_folder(board(row("c")), tmp_path)
    assert Leaderboard.load(tmp_path)["c"].status == "ok"


def test_a_score_relative_to_the_table_is_relative_to_the_whole(tmp_path):
    parts = [{"energy": 1.0, "fit": 2.0}, {"energy": 3.0, "fit": 1.0}]
    for name, part in zip("ab", parts, strict=True):
        add_to_folder(board(Row(name, {"etran": 0.0}, parts={"etran": part})), tmp_path, figure=False)
    assert [r.score("etran") for r in Leaderboard.load(tmp_path).rows] == pytest.approx([0.85, 0.15])


def test_another_screen_gets_another_name_and_both_are_found(tmp_path):
    other = {"metrics": {"leep": {}}}
    add_to_folder(board(row("a")), tmp_path)
    before = (tmp_path / "leaderboard.json").read_bytes()
    for name in "bc":
        with pytest.warns(UserWarning, match="is of another screen and stays"):
            paths = add_to_folder(board(row(name), **other), tmp_path)
    assert (tmp_path / "leaderboard.json").read_bytes() == before
    assert paths["json"].name.startswith("leaderboard-")
    assert [r.backbone for r in load_from_folder(tmp_path, {**SETTINGS, **other}).rows] == ["b", "c"]
    assert [r.backbone for r in load_from_folder(tmp_path, SETTINGS).rows] == ["a"]
    assert load_from_folder(tmp_path, {"metrics": {}}).settings == SETTINGS  # the caller says what differs


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b'{"format": 2}', b"[" * 50_000])
def test_a_damaged_file_is_named_and_never_overwritten(tmp_path, content):
    (tmp_path / "leaderboard.json").write_bytes(content)
    with pytest.warns(UserWarning, match=r"leaderboard\.json` is left as it is"):
        paths = add_to_folder(board(row("a")), tmp_path)
    assert (tmp_path / "leaderboard.json").read_bytes() == content
    assert [r.backbone for r in Leaderboard.load(paths["json"]).rows] == ["a"]
    with pytest.raises(ValueError, match=r"leaderboard\.json"):
        Leaderboard.load(tmp_path)


def test_what_differs_between_the_runs_is_not_told_of_all(tmp_path):
    add_to_folder(board(row("a"), info={"num_samples": 9, "overrides": ["x=1"], "interrupted": True}), tmp_path)
    add_to_folder(board(row("b"), info={"num_samples": 9, "overrides": ["x=2"]}), tmp_path)
    assert Leaderboard.load(tmp_path).info == {"num_samples": 9}


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    add_to_folder(board(row("a")), tmp_path)

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(leaderboard_module, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            add_to_folder(board(row("b")), tmp_path)
    assert names(tmp_path) == ["a"]
    add_to_folder(board(row("b")), tmp_path)
    assert names(tmp_path) == ["a", "b"]
    json.loads((tmp_path / "leaderboard.json").read_text())


def test_a_score_that_fails_later_leaves_what_was_finished(tmp_path):
    add_to_folder(board(Row("a", {"logme": 1.0}, fingerprint="f")), tmp_path, figure=False)
    add_to_folder(
        board(Row("a", {"logme": float("nan")}, status="logme: ValueError", fingerprint="f")), tmp_path, figure=False
    )
    assert [(found.status, found.score("logme")) for found in Leaderboard.load(tmp_path).rows] == [("ok", 1.0)]


def test_rows_are_written_where_the_table_is_not(tmp_path):
    (tmp_path / "leaderboard.csv").mkdir()
    with pytest.raises(OSError, match="csv"):
        add_to_folder(board(row("a")), tmp_path, figure=False)
    assert names(tmp_path) == ["a"]


def _screen(folder, number: int) -> None:
    import torch

    from lightning_transfer import screen
    from lightning_transfer.data import Digits

    torch.manual_seed(number)
    screen({f"net {number}": Linear(4 + number)}, Digits(max_samples=60), ["h_score"], output_dir=folder)


@pytest.mark.long
def test_many_screens_at_once_keep_all_rows(tmp_path):
    _all_rows_of(_screen, tmp_path)
    assert not any(row.failed for row in Leaderboard.load(tmp_path).rows)
    assert sorted(path.name for path in tmp_path.glob("leaderboard*")) == [
        f"leaderboard.{kind}" for kind in ("csv", "html", "json", "png")
    ]


def test_boards_of_one_screen_are_merged():
    merged = merge_boards(board(row("a")), board(row("b", 0.7), row("a", 0.9, fingerprint="g")))
    assert [found.backbone for found in merged.ranked()] == ["a (2)", "b", "a"]
    assert merged.info == {"target": "digits"}
    with pytest.raises(ValueError, match=r"of the same screen, but got different \['max_samples'\]"):
        merge_boards(board(row("a")), board(row("b"), max_samples=3))
    with pytest.raises(ValueError, match="to hold a leaderboard"):
        merge_boards()
    with pytest.raises(ValueError, match="to hold leaderboards, but got 'a'"):
        merge_boards(board(row("a")), "a")
    with pytest.raises(ValueError, match=r"type merge_boards\(one, other\)"):
        merge_boards([board(row("a"))])
    other = Leaderboard([row("b")], info={"target": "letters"})
    with pytest.raises(ValueError, match=r"different \['target'.*\]; `across_targets` sets targets beside each other"):
        merge_boards(board(row("a")), other)


def test_a_run_that_goes_on_keeps_what_it_was_asked(tmp_path):
    """Else the rows of a sweep that goes on are told apart by all that was typed."""
    asked = ["backbone=a", "metrics=[logme]"]
    add_to_folder(board(row("a"), info={"overrides": asked}), tmp_path, figure=False)
    going_on = board(row("a"), info={"overrides": [*asked, "resume=auto", "hydra.sweep.dir=x"]})
    add_to_folder(going_on, tmp_path, figure=False, replace_changed=True)
    assert Leaderboard.load(tmp_path).info["overrides"][:2] == asked
    add_to_folder(board(row("b"), info={"overrides": ["backbone=b"]}), tmp_path, figure=False)
    assert "overrides" not in Leaderboard.load(tmp_path).info
