"""The bar of a pass."""

from __future__ import annotations

import io

import pytest

from lightning_transfer.utilities.progress import ScoringBar


def test_the_bar_carries_its_title_on_standard_error(monkeypatch, capsys):
    bar = ScoringBar("2 of 3: net\x1b[31m")
    assert bar.predict_description == bar.title == bar.title.replace("\x1b", "")
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    drawn = bar.init_predict_tqdm()
    drawn.total = 4
    drawn.update(1)
    drawn.refresh()
    assert "2 of 3: net" in errors.getvalue()
    assert drawn.leave is False
    drawn.close()
    assert capsys.readouterr().out == ""


def test_a_title_is_text():
    with pytest.raises(TypeError):
        ScoringBar()
