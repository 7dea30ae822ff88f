"""The table in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lightning_transfer.report.console import as_text, bounds_table
from lightning_transfer.screening import Leaderboard, Row
from tests.report._boards import COLUMNS, make_board


def printed(board, width, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    console.print(board)
    return console.file.getvalue()


def test_wide_table_holds_everything_in_one_block():
    text = as_text(make_board(COLUMNS[:3]), width=140)
    head = next(line for line in text.splitlines() if "Backbone" in line)
    for heading in ("#", "LogME", "H-score", "LEEP", "Params (rank)", "FLOPs", "Samples/s", "Time"):
        assert heading in head
    best = next(line for line in text.splitlines() if "backbone_3" in line)
    for cell in ("1", "0.300 ±0.300", "████████", "12.0M (1)", "400M", "25", "1 min 10 s"):
        assert cell in best
    assert "Ranked by LogME (higher is better) on toy & co: 12 345 train samples, 7 classes." in text
    assert "(most parameters): backbone_3, ranked 1 here" in text
    assert "backbone_3 ≈ backbone_2; backbone_2 ≈ backbone_1" in text
    assert "ValueError: <img src=x onerror=alert(1)>" in text


def test_table_without_standard_errors_says_how_to_get_them():
    rows = [Row("a", {"logme": 1.0}), Row("b", {"logme": 1.01}), Row("c", status="ValueError: no")]
    assert "`error_bars=true` says" in as_text(Leaderboard(rows), width=140)
    assert "error_bars" not in as_text(Leaderboard(rows[1:]), width=140)
    assert "error_bars" not in as_text(make_board(), width=140)


def test_what_nobody_knows_and_what_tells_nothing_apart_is_left_out():
    board = Leaderboard([Row(name, {"logme": score}, parameters=7000) for name, score in (("a", 1.0), ("b", 2.0))])
    for text in (as_text(board, width=140), board.to_html()):
        assert "7.00k" in text
        assert "7.00k (1)" not in text
    head = as_text(board, width=140).splitlines()[0]
    assert "Params" in head
    assert not any(heading in head for heading in ("rank", "FLOPs", "Samples/s", "Time"))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_every_column_is_there_at_any_width(width):
    text = as_text(make_board(), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    flat = " ".join(text.split())
    for heading in (
        "LogME",
        "H-score",
        "LEEP",
        "NCE",
        "kNN accuracy",
        "Ridge probe",
        "TransRate",
        "Task relatedness",
        "Time",
    ):
        assert heading in flat
    assert "Task relatedness: lower is better." in flat
    for row in ("backbone_0", "backbone_1", "backbone_2", "backbone_3"):
        assert row in flat


def test_colours_only_on_a_terminal():
    assert "\x1b[" in printed(make_board(), 120, force_terminal=True, color_system="truecolor")
    assert "\x1b[" not in printed(make_board(), 120)


def test_names_are_no_markup():
    board = Leaderboard([Row("[red]net[/red]", {"logme": 1.0}), Row("[/oops]", status="KeyError: [bold]")])
    text = printed(board, 100)
    assert "[red]net[/red]" in text
    assert "[bold]" in text


def test_ascii_terminals_get_ascii_bars():
    class Latin(io.StringIO):
        encoding = "ascii"

    console = Console(file=Latin(), width=120)
    console.print(make_board())
    assert "█" not in console.file.getvalue()
    assert "########" in console.file.getvalue()


def test_best_per_column_follows_the_direction():
    text = printed(make_board(), 200, force_terminal=True, color_system="standard")
    worst = next(line for line in text.splitlines() if "backbone_0" in line)
    assert worst.count("\x1b[1;32m") == 1  # the smallest bound


def test_empty_and_failed_boards():
    assert as_text(Leaderboard()) == "An empty leaderboard."
    text = as_text(Leaderboard([Row("a", status="ValueError: bad")]))
    assert "a: ValueError: bad" in text
    assert str(make_board()) == as_text(make_board())


def test_notes_and_remarks():
    rows = [Row(name, {"logme": score}, remarks=("few samples",)) for name, score in (("a", 1.0), ("b", 2.0))]
    text = as_text(Leaderboard(rows, info={"notes": ["interrupted after 2 of 3"]}))
    assert "All backbones: few samples" in text
    assert "interrupted after 2 of 3" in text


def test_static_baseline_that_disagrees():
    rows = [Row("a", {"logme": 1.0}, parameters=5), Row("b", {"logme": 2.0}, parameters=4)]
    assert "(most parameters): a, ranked 2 here" in as_text(Leaderboard(rows))


def bound_of(reference, bound, copies, guessing=2.3):
    figures = {"reweighted_reference_loss": 1.0, "label_mismatch": 0.0, "distribution_mismatch": bound - 1.0}
    names = {"reference": reference, "target": "t", "backbone": "b", "target_loss": 1.0, "target_accuracy": 0.5}
    return {**names, **figures, "bound": bound, "guessing": guessing, "baseline": {"bound": bound, "copies": copies}}


def test_bounds_that_are_vacuous_or_not_decided_are_marked():
    results = [bound_of("near", 1.5, [2.0, 2.1]), bound_of("far", 2.4, [2.3, 2.5]), bound_of("old", 1.9, [1.8, 2.1])]
    del results[2]["guessing"]  # as earlier versions wrote it
    console = Console(file=io.StringIO(), width=200)
    console.print(bounds_table(results))
    text = console.file.getvalue()
    near, old, far = (
        next(line for line in text.splitlines() if f" {name} " in line) for name in ("near", "old", "far")
    )
    assert text.index(near) < text.index(old) < text.index(far)
    assert "2.4000 vacuous" in far
    assert far.rstrip().endswith("? vacuous")
    assert old.rstrip().endswith(" ?")
    assert "vacuous" not in near
    assert "their their" not in text
