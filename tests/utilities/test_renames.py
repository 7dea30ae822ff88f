"""Old names of arguments."""

from __future__ import annotations

import warnings

import pytest

from lightning_transfer.utilities.renames import renamed


@renamed(colour="color", size="width")
def paint(color, width=1):
    """Paint."""
    return color, width


def test_old_names_warn_where_they_are_written_and_work():
    with pytest.warns(FutureWarning, match="Argument `colour` of `paint` is called `color` now") as caught:
        assert paint(colour="red", width=3) == ("red", 3)
    assert caught[0].filename == __file__
    with pytest.warns(FutureWarning) as caught:
        assert paint(colour="red", size=2) == ("red", 2)
    assert len(caught) == 2


def test_new_names_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paint("red") == paint(color="red") == ("red", 1)
    assert (paint.__name__, paint.__doc__) == ("paint", "Paint.")


def test_both_names_at_once_are_an_error():
    with pytest.raises(TypeError, match="colour"):
        paint(color="red", colour="blue")
