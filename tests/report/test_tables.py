"""The leaderboard as Markdown and LaTeX."""

from __future__ import annotations

import pytest

from lightning_transfer.screening import Leaderboard, Row
from tests.report._boards import make_board

ODD = Row("a|b*_<i>", {"logme": 0.5}, {"logme": 0.1}, control=True)


def test_markdown_escapes_and_marks():
    board = Leaderboard([ODD, Row("c", {"logme": 0.45}, {"logme": 0.1}), Row("d", status="ValueError: `x`")])
    lines = board.to_markdown().splitlines()
    assert lines[0] == "| # | Backbone | LogME | Status |"
    assert lines[1] == "|--:|:---|--:|:---|"
    assert lines[2] == r"| 1 | a\|b\*\_&lt;i&gt; (control) | **0.500 ±0.100** |  |"
    assert lines[3] == "| ≈2 | c | 0.450 ±0.100 |  |"
    assert lines[4] == r"|  | d | - | ValueError: \`x\` |"


def test_latex_escapes_and_marks():
    text = Leaderboard([ODD, Row("50% {c}\\", {"logme": 0.25}, {"logme": 0.01})]).to_latex()
    assert text.startswith("\\begin{tabular}{rlr}\n\\toprule\n\\# & Backbone & LogME \\\\\n\\midrule")
    assert r"1 & a|b*\_<i> (control) & \textbf{0.500 $\pm$0.100} \\" in text
    assert r"50\% \{c\}\textbackslash{}" in text
    assert text.endswith("\\bottomrule\n\\end{tabular}")


def test_all_columns_are_there():
    board = make_board()
    head = board.to_markdown().splitlines()[0]
    for title in ("LogME", "TransRate", "Task relatedness", "Params", "FLOPs", "Samples/s", "Time", "Status"):
        assert title in head
    assert Leaderboard().to_markdown().count("\n") == 1


def test_model_cards_say_how_sure_the_choice_is():
    card = make_board(versions={"torch": "9.9"}).to_model_card()
    assert "`backbone_3` ranks 1 of 4 backbones by LogME on toy &amp; co (12345 samples, 7 classes)" in card
    assert "Not told apart from it by this sample (95 %): backbone\\_2" in card
    assert "- Task relatedness: 7.300 (lower is better)" in card
    assert "torch 9.9" in card
    controls = Leaderboard([ODD, Row("c", {"logme": 0.45}), Row("d", status="ValueError: `x`")])
    assert "`c` ranks 2 of 2 backbones (1 with random weights) by LogME" in controls.to_model_card("c")
    assert "ranks 2 of 4" in make_board().to_model_card("backbone_2")
    for name, message in (
        ("nope", "`backbone` to be one of"),
        ("<script>alert(1)</script>", "to have a score that ranks"),
    ):
        with pytest.raises(ValueError, match=message):
            make_board().to_model_card(name)
