from __future__ import annotations

import io
import math
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from rich.console import Console

from lightning_transfer.report.console import as_text
from lightning_transfer.report.html import leaderboard_html
from lightning_transfer.report.text import error_text, human_number, human_seconds, score_texts, short_names
from lightning_transfer.screening import Leaderboard, Row

COLUMNS = ("logme", "h_score", "leep", "nce", "knn_accuracy", "ridge_probe", "transrate", "task_relatedness")


def make_board(columns=COLUMNS, count=4, **info) -> Leaderboard:
    rows = [
        Row(
            f"backbone_{index}",
            {column: 0.1 * index + position for position, column in enumerate(columns)},
            {"logme": 0.3} if index else {},
            parameters=3_000_000 * (index + 1),
            flops=400_000_000,
            images_per_second=25.0,
            seconds=70.0,
        )
        for index in range(count)
    ]
    rows.append(Row("<script>alert(1)</script>", status="ValueError: <img src=x onerror=alert(1)>"))
    return Leaderboard(
        rows, info={"target": "toy & co", "split": "train", "num_samples": 12_345, "num_classes": 7, **info}
    )


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


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_html_is_self_contained_and_escaped():
    document = leaderboard_html(make_board(), b"\x89PNG")
    parser = Collector()
    parser.feed(document)
    assert not [tag for tag, _ in parser.tags if tag in ("script", "link", "iframe")]
    sources = [value for _, attrs in parser.tags for key, value in attrs.items() if key in ("src", "href")]
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert not [key for _, attrs in parser.tags for key in attrs if key.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document
    assert "toy &amp; co" in document
    assert make_board()._repr_html_().startswith('<div class="headline"><p>')


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_figure_has_a_panel_per_score(count):
    board = make_board(COLUMNS[:count], target="toy")
    figure = board.plot()
    panels = [axes for axes in figure.get_axes() if axes.get_visible()]
    assert len(panels) == count
    assert panels[0].get_title(loc="left") == "LogME on toy"
    assert {text.get_text() for text in panels[0].texts} == {f"backbone_{index}" for index in range(4)}
    assert not plt.get_fignums()


def test_figure_arguments():
    board = make_board()
    figure = board.plot(cost="seconds", columns=["h_score"])
    assert figure.get_axes()[0].get_xlabel() == "seconds"
    with pytest.raises(ValueError, match="Expected argument `cost`"):
        board.plot(cost="price")
    with pytest.raises(ValueError, match="Expected argument `columns`"):
        board.plot(columns=["nope"])
    with pytest.raises(ValueError, match="to hold a backbone with a score"):
        Leaderboard([Row("a", status="bad")]).plot()


def test_error_bars_are_drawn():
    figure = make_board(("logme",)).plot()
    assert len(figure.get_axes()[0].collections) == 3  # one has no standard error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.nan, "-"),
        (0, "0"),
        (7, "7"),
        (999.4, "999"),
        (999.9, "1.00k"),
        (1_500_000_000, "1.50G"),
        (3e12, "3.00T"),
    ],
)
def test_human_number(value, text):
    assert human_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.004, "0.00 s"), (59.94, "59.9 s"), (59.99, "1 min 00 s"), (3599.9, "1 h 00 min")],
)
def test_human_seconds(value, text):
    assert human_seconds(value) == text


def test_score_texts_tell_close_scores_apart_within_reason():
    assert score_texts([1.0001, 1.0002]) == ["1.0001", "1.0002"]
    assert score_texts([1.0, 1.0]) == ["1.000", "1.000"]
    assert score_texts([9.0, 8.9999999]) == ["9.000", "9.000"]
    assert score_texts([-3.21e-6, -4.5e-6, math.nan]) == ["-3.21e-06", "-4.50e-06", "-"]
    assert score_texts([-120.0, -0.01]) == ["-120.0", "0.0"]
    assert error_text("-3.21e-06", 4e-8) == " ±4e-08"


def test_long_names_lose_their_middle_and_leave_room_for_the_columns():
    long = "a_hub/" + "x" * 80 + "_in21k_384"
    rows = [Row(name, {"logme": score, "leep": score}, parameters=10) for name, score in ((long, 1.0), ("b", 2.0))]
    lines = as_text(Leaderboard(rows), 120).splitlines()
    assert "LogME" in lines[0]
    assert "LEEP" in lines[0]
    assert "Time" in lines[0]
    assert "a_hub/" in lines[3]
    assert "…" in lines[3]
    assert "_in21k_384" in lines[3]
    twins = ["x" * 90 + middle + "y" * 90 for middle in "ab"]
    assert short_names(twins, 20) == {name: name for name in twins}


def test_names_in_a_crowded_figure_stay_inside_the_panel_and_apart():
    rows = [
        Row(f"net_{'long' * (i % 3) * 9}{i}", {"logme": math.sin(i)}, parameters=10 ** (5 + i % 4)) for i in range(40)
    ]
    axes = Leaderboard(rows).plot().axes[0]
    figure = axes.figure
    figure.draw_without_rendering()
    panel = axes.get_window_extent()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 40
    assert panel.width > figure.bbox.width / 2
    assert all(panel.y0 - 12 < box.y0 and box.y1 < panel.y1 + 12 for box in boxes)
    assert all(above.y0 - below.y0 > 15 for below, above in pairwise(boxes))
