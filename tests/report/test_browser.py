"""The HTML report as a reader has it: in a browser, at the width of a telephone and of a screen."""

from __future__ import annotations

import math
import random

import pytest

from lightning_transfer.report.html import across_section, bound_section, leaderboard_html
from lightning_transfer.report.html import page as html_page
from lightning_transfer.screening import Leaderboard, Row, across_targets
from tests.report import _browser

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(_browser.PROGRAM is None, reason="needs Chromium (the Debian package chromium)"),
]
COLUMNS = ("logme", "h_score", "leep", "nce", "knn_accuracy", "ridge_probe", "transrate", "task_relatedness")


def a_board(count: int = 8, columns=COLUMNS) -> Leaderboard:
    draw = random.Random(0)
    rows = [
        Row(
            f"net{i}{'_random' if i % 4 == 3 else ''}",
            {column: draw.random() for column in columns},
            {"logme": 0.02},
            parameters=int(10 ** (6 + 2 * draw.random())),
            flops=10**9,
            feature_dim=512,
            seconds=10 * draw.random(),
            control=i % 4 == 3,
        )
        for i in range(count)
    ]
    rows.append(Row("</script><script>alert(1)</script>", status="ValueError: <img src=x onerror=alert(1)>"))
    return Leaderboard(rows, info={"target": "toy <&> co", "overrides": ["target=toy"]}, settings={"a": "</script>"})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    browser = _browser.Page(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "with space.html"
    a_board().to_html(path)
    return path


def names(page):
    return page.value(
        "[...document.querySelectorAll('tbody tr[data-name]:not([hidden])')].map(row => row.dataset.name)"
    )


def head(page, title):
    return page.value(f"[...document.querySelectorAll('.board th')].findIndex(th => th.dataset.t === {title!r})")


@pytest.mark.parametrize(("width", "cards"), [(400, True), (1280, False)])
@pytest.mark.parametrize("dark", [False, True])
def test_no_complaints_and_no_score_outside_the_window(page, report, width, cards, dark):
    page.complaints.clear()
    page.open(report, width, dark=dark)
    assert page.complaints == []
    assert page.value("document.querySelector('.board').classList.contains('cards')") is cards
    assert page.value("document.documentElement.scrollWidth") <= width
    right = page.value(
        "Math.max(...[...document.querySelectorAll('.board td')].map(c => c.getBoundingClientRect().right))"
    )
    assert right <= width
    cells = "[...document.querySelectorAll('.board td')]"
    assert page.value(f"{cells}.filter(c => c.scrollWidth > c.clientWidth + 1).length") == 0
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", [400, 1280])
def test_tables_beside_the_board_stay_inside_the_window(page, tmp_path, width):
    keys = ("bound", "reweighted_reference_loss", "label_mismatch", "distribution_mismatch", "target_loss", "guessing")
    numbers = dict.fromkeys(keys, 0.5)
    rows = [Row(f"net{i}", {"logme": float(i)}) for i in range(3)]
    boards = [Leaderboard(rows, info={"target": target}) for target in "abcdef"]
    parts = [bound_section([("efficientnet_lite0", numbers)]), across_section(across_targets(boards))]
    (tmp_path / "page.html").write_text(html_page("tables", parts))
    page.open(tmp_path / "page.html", width)
    cells = "[...document.querySelectorAll('.narrow td')]"
    assert page.value(f"{cells}.length") == 8 + 3 * 8
    assert page.value(f"Math.max(...{cells}.map(c => c.getBoundingClientRect().right))") <= width
    shown = page.value(f"getComputedStyle({cells}[1], '::before').content")
    assert shown == ('"Bound"' if width == 400 else "none")


def test_click_sorts_and_a_second_click_turns_the_order(page, report):
    page.open(report)
    board = a_board()
    place = head(page, "H-score")
    page.click(".board .sort", place)
    down = sorted((row for row in board.rows if row.scores), key=lambda row: -row.score("h_score"))
    failed = board.rows[-1].backbone
    assert names(page) == [*(row.backbone for row in down), failed]
    page.click(".board .sort", place)
    assert names(page) == [*(row.backbone for row in reversed(down)), failed]  # without a score stays last
    page.click(".board .sort", head(page, "Task relatedness"))
    assert names(page)[0] == min(down, key=lambda row: row.score("task_relatedness")).backbone
    page.click(".board .sort", 1)
    assert names(page)[1:] == sorted(row.backbone for row in down)


def test_the_keyboard_sorts_and_explains(page, report):
    page.open(report)
    page.value("document.querySelector('input[type=search]').focus()")
    seen = []
    for _ in range(12):
        page.key("Tab")
        seen.append(
            page.value("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
        if seen[-1] == "What is LogME?":
            break
    assert seen[-1] == "What is LogME?"
    assert "linear model" in page.value("document.querySelector('#tip:popover-open').textContent")
    page.key("Escape")
    assert page.value("document.querySelector('#tip:popover-open')") is None
    page.key("Tab")
    page.key("Enter")
    assert page.value("document.querySelector('th[aria-sort=descending]').dataset.t") == "H-score"


def test_hover_and_tap_explain(page, report):
    page.open(report, 400)
    page.click(".board .why", head(page, "LEEP"))
    assert "source classes" in page.value("document.querySelector('#tip:popover-open').textContent")
    box = page.value("(b => [b.left, b.right])(document.querySelector('#tip').getBoundingClientRect())")
    assert 0 <= box[0] < box[1] <= 400


def test_filter_and_boxes_hide_rows(page, report):
    page.open(report)
    page.click("input[type=search]")
    for letter in "net1":
        page.key(letter)
    assert names(page) == ["net1"]
    assert page.value("document.querySelector('.said').textContent") == "1 of 9 rows."
    page.open(report)
    page.click("input[value=control]")
    assert not [name for name in names(page) if name.endswith("_random")]
    assert page.value("document.querySelectorAll('.chart circle').length") == 6


def test_chart_follows_the_choice_and_draws_equal_scores_flat(page, tmp_path):
    rows = [Row(name, {"logme": 5 + i * 1e-15}, parameters=10 + i) for i, name in enumerate("abc")]
    path = tmp_path / "equal.html"
    Leaderboard(rows).to_html(path)
    page.complaints.clear()
    page.open(path)
    heights = page.value("[...document.querySelectorAll('.chart circle')].map(c => Number(c.getAttribute('cy')))")
    assert max(heights) - min(heights) < 1
    assert page.value("[...document.querySelectorAll('.chart text')].some(t => t.textContent.includes('e-'))") is False
    assert page.value("document.querySelectorAll('.best').length") == 0
    assert page.value("[...document.querySelectorAll('td.rank')].map(c => c.textContent)") == ["1", "1", "1"]
    assert page.complaints == []


def test_five_hundred_rows_with_every_score(page, tmp_path):
    from lightning_transfer.metrics import SCORES

    document = leaderboard_html(a_board(500, tuple(SCORES)))
    assert len(document.encode()) < 3 * 2**20
    path = tmp_path / "large.html"
    path.write_text(document)
    page.complaints.clear()
    for width in (400, 1280):
        page.open(path, width)
        assert page.value("document.documentElement.scrollWidth") <= width
    page.click(".board .sort", head(page, "NCE"))
    values = page.value("[...document.querySelectorAll('tbody tr[data-name]')].map(r => Number(r.cells[5].dataset.v))")
    known = [value for value in values if value is not None and not math.isnan(value)]
    assert len(known) == 500
    assert page.complaints == []
