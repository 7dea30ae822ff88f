"""Leaderboards as JSON: checked field by field when read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_transfer.screening.row import Row, expect
from lightning_transfer.utilities.digest import combine_digests
from lightning_transfer.utilities.files import parse_json

FORMAT = 2
_FIRST_FORMAT = "lightning_transfer.leaderboard/1"
_KINDS = {"notes": list, "overrides": list, "num_samples": int, "num_classes": int}  # of entries of ``info``


def encode(
    rows: Iterable[Row],
    *,
    rank_by: str,
    ranks_by_default: bool,
    lower_is_better: Iterable[str],
    info: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> bytes:
    """Everything on a leaderboard as JSON; a number that is not finite becomes ``null``."""
    data = {
        "format": FORMAT,
        "rank_by": rank_by,
        **({"ranks_by_default": True} if ranks_by_default else {}),
        "lower_is_better": sorted(lower_is_better),
        "info": info,
        "settings": settings,
        "rows": [row.to_dict() for row in rows],
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
        data = parse_json(content, finite=True)
    except ValueError as error:
        raise ValueError(f"Expected a leaderboard as JSON, but got: {error}.") from error
    version = data.get("format") if isinstance(data, dict) else type(data).__name__
    if version not in (FORMAT, _FIRST_FORMAT):
        raise ValueError(f"Expected a leaderboard of format {FORMAT} or below, but got {version!r}.")
    lower_is_better = expect(data, "lower_is_better", list)
    if not all(isinstance(name, str) for name in lower_is_better):
        raise ValueError(f"Expected `lower_is_better` to hold names, but got {lower_is_better!r}.")
    info = {
        name: value for name, value in expect(data, "info", dict).items() if value is not None or name not in _KINDS
    }
    for name in _KINDS.keys() & info:
        expect(info, name, _KINDS[name])
    return {
        "rows": [Row.from_dict(row) for row in expect(data, "rows", list)],
        "rank_by": expect(data, "rank_by", str),
        "ranks_by_default": "ranks_by_default" in data and expect(data, "ranks_by_default", bool),
        "lower_is_better": lower_is_better,
        "info": info,
        "settings": expect(data, "settings", dict) if version == FORMAT else _upgrade(expect(data, "settings", dict)),
    }


def _upgrade(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the first format, which kept the digests of labels and inputs one by one."""
    settings = dict(settings)
    for side in ("target", "reference"):
        data = settings.get(side)
        if isinstance(data, dict) and "answers" in data:
            parts = [str(data["answers"]), *map(str, data.get("inputs") or ())]
            settings[side] = {"name": data.get("name"), "fingerprint": combine_digests(parts)}
    return settings
