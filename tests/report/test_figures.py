"""The figure of a leaderboard."""

from __future__ import annotations

import math
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest

from lightning_transfer.screening import Leaderboard, Row
from tests.report._boards import COLUMNS, make_board


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
    bars, ends, marks = figure.get_axes()[0].collections
    paths = bars.get_paths()  # one backbone has no standard error
    assert [path.vertices[:, 1].tolist() for path in paths] == [
        pytest.approx([0.1 * i - 0.3, 0.1 * i + 0.3]) for i in (3, 2, 1)
    ]
    assert len(ends.get_offsets()) == 6
    assert marks.get_offsets()[:, 1].tolist() == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert len({tuple(color) for color in marks.get_facecolor()}) == 4
    assert [tuple(color) for color in bars.get_edgecolor()] == [tuple(color) for color in marks.get_facecolor()[:3]]


def test_panels_have_few_artists_however_many_rows_there_are():
    rows = [
        Row(f"net_{i}", {"logme": math.sin(i), "h_score": 1.0}, {"logme": 0.1}, parameters=i + 1) for i in range(70)
    ]
    main, small = Leaderboard(rows).plot().axes
    assert len(main.collections) == 3
    bars = [path.vertices.reshape(-1, 2, 2) for path in main.collections[0].get_paths()]
    assert [len(some) for some in bars] == [7] * 10  # those of a colour are one path
    middles = [middle for some in bars for middle in some[:, :, 1].mean(1)]
    assert sorted(middles) == pytest.approx(sorted(math.sin(i) for i in range(70)))
    assert len(small.collections) == 1
    assert len({len(path.vertices) for path in main.collections[2].get_paths()}) > 1  # marks of several shapes


def test_panels_stay_where_the_names_were_placed(tmp_path):
    figure = make_board().plot()
    before = [axes.get_position().bounds for axes in figure.axes]
    figure.savefig(tmp_path / "figure.png")
    assert [axes.get_position().bounds for axes in figure.axes] == before


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


def test_equal_scores_look_equal():
    rows = [Row(f"net{i}", {"logme": 0.1 * i, "h_score": 19 + 4e-15 * i}, {}, parameters=10**i) for i in (3, 4, 5)]
    figure = Leaderboard(rows).plot()
    (panel,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "H-score"]
    low, high = panel.get_ylim()
    assert high - low > 1
    assert all(len(label.get_text()) < 6 for label in panel.get_yticklabels())
    plt.close(figure)
