"""Leaderboards as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from lightning_transfer.screening import Leaderboard

NAN = math.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [], "of format"),
        (lambda data: data | {"format": "other/1"}, "but got 'other/1'"),
        (lambda data: data | {"rows": {}}, "Expected `rows` to be a list"),
        (lambda data: data | {"rows": [{"backbone": "a", "hook": "os.system"}]}, "Expected a row to hold"),
        (
            lambda data: data | {"rows": [data["rows"][0] | {"scores": {"logme": "0.5"}}]},
            "Expected `scores` to hold numbers",
        ),
        (
            lambda data: data | {"rows": [data["rows"][0] | {"parameters": "many"}]},
            "Expected `parameters` to be a number",
        ),
        (lambda data: data | {"rows": [data["rows"][0] | {"remarks": [3]}]}, "Expected `remarks` to hold strings"),
        (lambda data: data | {"lower_is_better": [1]}, "Expected `lower_is_better` to hold names"),
        (lambda data: data | {"rank_by": "nope"}, "Expected argument `rank_by`"),
        (lambda data: data | {"info": None}, "Expected `info` to be a dict"),
        (lambda data: data | {"settings": []}, "Expected `settings` to be a dict"),
        (
            lambda data: data | {"rows": [data["rows"][0] | {"fingerprint": 3}]},
            "Expected `fingerprint` to be a str",
        ),
    ],
)
def test_load_checks_every_field(board, tmp_path, change, message):
    path = board.save(tmp_path, figure=False)["json"]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        Leaderboard.load(path)


def test_load_of_what_is_no_json(tmp_path):
    (tmp_path / "leaderboard.json").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match="as JSON"):
        Leaderboard.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        Leaderboard.load(tmp_path / "nothing.json")


def test_rows_are_values(board):
    assert replace(board["small"], seconds=2.0).seconds == 2.0
    assert board["small"].score("nope") != board["small"].score("nope")
    assert repr(board) == "Leaderboard(4 backbones, rank_by='logme')"
    assert len(board) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["rows"][0]["scores"].update(logme=int("9" * 400)),
        lambda data: data["rows"][0]["scores"].update(logme=math.inf),
        lambda data: data["rows"][0].update(parameters=1.5),
        lambda data: data["rows"][0].update(parameters=-1),
        lambda data: data["rows"][0].update(flops=1e30),
        lambda data: data["info"].update(notes=3),
        lambda data: data["info"].update(num_samples="many"),
        lambda data: data["info"].update(other=math.nan),
    ],
)
def test_what_could_not_be_shown_or_saved_again_is_refused(board, tmp_path, change):
    """Else a file in a folder would keep the rows of others from being written beside it."""
    data = json.loads(board.save(tmp_path, figure=False)["json"].read_text())
    change(data)
    (tmp_path / "leaderboard.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"leaderboard\.json"):
        Leaderboard.load(tmp_path)


def test_what_is_not_said_of_a_run_is_left_out(board, tmp_path):
    data = json.loads(board.save(tmp_path, figure=False)["json"].read_text())
    data["info"].update(notes=None, overrides=None, num_classes=None)
    (tmp_path / "leaderboard.json").write_text(json.dumps(data))
    assert "toy" in str(Leaderboard.load(tmp_path))
