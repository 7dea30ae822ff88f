"""Leaderboards as JSON: written as a whole or not at all, and checked field by field when read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from lightning_transfer.screening.row import COSTS, Row

if TYPE_CHECKING:
    from lightning_transfer.screening.leaderboard import Leaderboard

FORMAT = "lightning_transfer.leaderboard/1"


def encode(board: Leaderboard) -> bytes:
    """Everything on a leaderboard as JSON; a number that is not finite becomes ``null``."""
    rows = []
    for row in board.rows:
        record = asdict(row)
        for name in ("scores", "standard_errors"):
            record[name] = {key: _or_none(value) for key, value in record[name].items()}
        rows.append(record | {name: _or_none(record[name]) for name in COSTS})
    data = {
        "format": FORMAT,
        "rank_by": board.rank_by,
        "lower_is_better": sorted(board.lower_is_better),
        "info": board.info,
        "settings": board.settings,
        "rows": rows,
    }
    return json.dumps(data, indent=2, allow_nan=False).encode()


def decode(content: bytes) -> dict[str, Any]:
    """Read what ``encode`` wrote; nothing in it is executed.

    Args:
        content: JSON.

    Returns:
        The arguments of the leaderboard.

    Raises:
        ValueError: If it is no JSON, or anything in it has the wrong name or type.
    """
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(f"Expected a leaderboard as JSON, but got: {error}.") from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != FORMAT:
        raise ValueError(f"Expected a leaderboard of format {FORMAT!r}, but got {found!r}.")
    lower_is_better = _expect(data, "lower_is_better", list)
    if not all(isinstance(name, str) for name in lower_is_better):
        raise ValueError(f"Expected `lower_is_better` to hold names, but got {lower_is_better!r}.")
    return {
        "rows": [_read_row(row) for row in _expect(data, "rows", list)],
        "rank_by": _expect(data, "rank_by", str),
        "lower_is_better": lower_is_better,
        "info": _expect(data, "info", dict),
        "settings": _expect(data, "settings", dict),
    }


def _or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _expect(data: dict, name: str, kind: type) -> Any:
    if not isinstance(data.get(name), kind):
        raise ValueError(f"Expected `{name}` to be a {kind.__name__}, but got {data.get(name)!r}.")
    return data[name]


def _read_row(data: Any) -> Row:
    if not isinstance(data, dict) or set(data) - {item.name for item in fields(Row)}:
        raise ValueError(f"Expected a row to hold {[item.name for item in fields(Row)]}, but got {data!r}.")
    for name in ("backbone", "status", "fingerprint"):
        _expect(data, name, str)
    for name in COSTS:
        if data.get(name) is not None and not _is_number(data[name]):
            raise ValueError(f"Expected `{name}` to be a number, but got {data[name]!r}.")
    numbers = {name: _read_numbers(_expect(data, name, dict), name) for name in ("scores", "standard_errors")}
    parts = {name: _read_numbers(value, "parts") for name, value in _expect(data, "parts", dict).items()}
    remarks = _expect(data, "remarks", list)
    if not all(isinstance(remark, str) for remark in remarks):
        raise ValueError(f"Expected `remarks` to hold strings, but got {remarks!r}.")
    return Row(**{**data, **numbers, "remarks": tuple(remarks), "parts": parts})


def _read_numbers(values: Any, name: str) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ValueError(f"Expected `{name}` to hold numbers, but got {values!r}.")
    for value in values.values():
        if value is not None and not _is_number(value):
            raise ValueError(f"Expected `{name}` to hold numbers, but got {value!r}.")
    return {key: math.nan if value is None else float(value) for key, value in values.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
