"""The figure of the bound, and the words beside it."""

import pytest
import torch

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


def test_the_line_of_guessing_is_that_of_the_class_shares():
    z, y, x, t = make(0)
    result = task_relatedness(z, y, torch.cat([x, x[t == 0], x[t == 0]]), torch.cat([t, t[t == 0], t[t == 0]]))
    lines = {line.get_label(): line.get_ydata()[0] for line in result.plot().axes[0].lines}
    assert lines["guessing"] == result.certificate.guessing < 1.09
