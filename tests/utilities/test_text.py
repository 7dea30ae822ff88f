"""Text from data, made harmless for terminals, tables, pages and figures."""

from __future__ import annotations

import csv
import io
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from lightning_transfer.utilities.text import csv_cell, figure_text, html_text, plain, rich_markup

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # with surrogates and controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet18", "resnet18"),
        ("é 中 🙂 ±≈…", "é 中 🙂 ±≈…"),
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("a\x9b31mb", "ab"),
        ("\x1b]0;title\x07a", "a"),
        ("\x1b]8;;http://x\x1b\\a\x1b]8;;\x1b\\", "a"),
        ("\x1bP1$r\x1b\\a", "a"),
        ("a\x00b\x07c\x7f\x85d", "abc d"),
        ("a\r\nb\tc\u2028d", "a b c d"),
        ("\ud800x", "\ufffdx"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("re\u200bs\u2060n\xade\U000e0041t", "resnet"),  # what nobody sees
        (3, "3"),
    ],
)
def test_plain_shows_one_harmless_line(text, shown):
    assert plain(text) == shown


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ANY_TEXT)
def test_no_control_character_and_no_surrogate_is_left(text):
    shown = plain(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    shown.encode()
    assert plain(shown) == shown


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ANY_TEXT | st.sampled_from(["[bold]x[/bold]", "[link=file:///]x", "[/]", "\\[x]", "[[x]"]))
def test_rich_shows_markup_as_it_is_written(text):
    console = Console(file=io.StringIO(), width=10_000, highlight=False, emoji=False)
    console.print(rich_markup(text), end="")
    assert console.file.getvalue() == plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "\uff1d1",
        "\x00=1",
        "\u2212x",
        "\ufe63x",
        "\u200b=1",
        "\xa0@x",
        "\ufeff=1",
        "a;=1",
        "a,\u2212x",
    ],
)
def test_no_cell_is_a_formula(text):
    assert re.match(r"'|\w[;,]'", csv_cell(text))


def test_numbers_stay_numbers():
    assert [csv_cell(value) for value in (-1.5, None, "-1.5", "+3e5", "a=b")] == [-1.5, None, "-1.5", "+3e5", "a=b"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_python_reads_back_the_cells_that_it_was_given(cells):
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell(cell) for cell in cells] + ["end"])
    assert list(csv.reader(io.StringIO(file.getvalue()))) == [[csv_cell(cell) for cell in cells] + ["end"]]


def test_html_is_text_in_elements_and_attributes():
    assert html_text("<script>\"'&\x1b[0m") == "&lt;script&gt;&quot;&#x27;&amp;"


@pytest.mark.parametrize("text", [r"$\frac{$", "$x$", r"\$x$", "$$", "a$b", r"\alpha"])
def test_a_figure_shows_dollars_and_backslashes(text):
    figure = Figure()
    figure.text(0, 0, figure_text(text))
    figure.savefig(io.BytesIO(), format="png")
    shown = figure.texts[0]
    assert shown._preprocess_math(shown.get_text()) == (text, False)
