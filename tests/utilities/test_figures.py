"""Figures that belong to no window."""

from __future__ import annotations

import pickle
import sys

import pytest

from lightning_transfer.utilities.figures import new_figure, png_bytes


def test_a_notebook_shows_a_figure_without_pyplot():
    figure = new_figure(figsize=(1, 1))
    assert figure._repr_png_() == png_bytes(figure)
    assert png_bytes(figure).startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lightning-transfer\[plot\]"):
        new_figure()
