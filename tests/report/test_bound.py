"""The figure of the bound, and the words beside it."""

import pytest

from tests.relatedness._tasks import make, task_relatedness


def test_table_and_plot():
    names = ("shirt", "shoe", "bag")
    result = task_relatedness(*make(0), reference_class_names=names, num_resamples=3)
    text = str(result)
    assert all(word in text for word in ("label mismatch", "distribution mismatch", "shirt", "guessing", "interval"))
    figure = result.plot()
    bars, heat = figure.axes[:2]
    heights = [patch.get_height() for patch in bars.patches]
    assert sum(heights) == pytest.approx(result.bound, abs=1e-9)
    assert [tick.get_text() for tick in heat.get_xticklabels()] == list(names)
