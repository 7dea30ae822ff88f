"""Rows as plain values, and back."""

from __future__ import annotations

import json
import math

import pytest

from lightning_transfer.screening import Row
from lightning_transfer.screening.row import BOUND_NUMBERS
from lightning_transfer.utilities.errors import Failure

ROW = Row(
    "a", {"logme": 0.5, "leep": math.nan}, {"logme": 0.1}, parameters=10, flops=20, feature_dim=3, seconds=1.5,
    remarks=("few samples",), parts={"etran": {"energy": 1.0}}, fingerprint="abc", control=True,
)  # fmt: skip


def test_a_row_comes_back_through_json():
    again = Row.from_dict(json.loads(json.dumps(ROW.to_dict(), allow_nan=False)))
    assert math.isnan(again.scores["leep"])
    assert again.to_dict() == ROW.to_dict()
    assert again.status == "ok"
    assert not again.failed


def test_a_failure_keeps_kind_and_message():
    row = Row("a", failure=Failure.of(FileNotFoundError("no such\nfile: x: y")))
    assert row.status == "FileNotFoundError: no such file: x: y"
    again = Row.from_dict(row.to_dict())
    assert again.failure == Failure("FileNotFoundError", "no such file: x: y")
    assert again.failure.bad_input
    assert not Failure.of(MemoryError()).bad_input
    assert str(Failure.of(MemoryError())) == "MemoryError"


@pytest.mark.parametrize(
    ("name", "value"),
    [("population_bound", "0.5"), ("confidence", None), ("baseline", [1.0]), ("baseline", {"bound": 1.0, "copies": []}),
     ("baseline", {"bound": 1.0, "copies": ["2"]}), ("baseline", {"copies": [1.0]}),
     ("baseline", {"bound": 1.0, "copies": [1.0], "feature_map": 3})],
)  # fmt: skip
def test_wrong_parts_of_a_bound(name, value):
    bound = dict.fromkeys(BOUND_NUMBERS, 0.5)
    assert Row.from_dict({**ROW.to_dict(), "bound": bound}).bound["bound"] == 0.5
    with pytest.raises(ValueError, match="Expected `"):
        Row.from_dict({**ROW.to_dict(), "bound": {**bound, name: value}})


def test_rows_of_the_first_version_open():
    record = {name: value for name, value in ROW.to_dict().items() if name not in ("failure", "control", "cached")}
    assert (Row.from_dict(record).control, Row.from_dict(record).cached) == (False, False)
    assert Row.from_dict(record | {"backbone": "a_random"}).control is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", 3), ("scores", [1]), ("scores", {"logme": "0.5"}), ("seconds", "1"), ("remarks", [3]),
        ("parts", {"etran": 3}), ("failure", "ValueError"), ("failure", {"kind": 3, "message": ""}), ("control", 1),
        ("cached", 1), ("parameters", True), ("unknown", 1),
    ],
)  # fmt: skip
def test_other_types_are_refused(name, value):
    with pytest.raises(ValueError, match=r"Expected `?(a row to hold|[a-z_]+)"):
        Row.from_dict(ROW.to_dict() | {name: value})
