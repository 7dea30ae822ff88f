"""Leaderboards of one folder: several screens, also of several processes at once, lose none of each other's rows."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.zoo import Combiner, combine_zoo_scores
from lightning_transfer.utilities.files import lock_folder
from lightning_transfer.utilities.notice import warn_user
from lightning_transfer.utilities.text import plain

_NUMBERED = re.compile(r"(.*) \(\d+\)", re.DOTALL)
_ABOUT_ONE_RUN = ("interrupted", "overrides", "versions")  # entries of ``info``
_ABOUT_GOING_ON = ("resume=", "hydra.", "hydra/")  # beginnings of overrides in which a run that goes on differs


def add_to_folder(
    board: Leaderboard,
    folder: Path,
    *,
    figure: bool = True,
    replace_changed: bool = False,
    combiners: Mapping[str, Combiner] | None = None,
) -> dict[str, Path]:
    """Save a leaderboard where others may be, or may be written meanwhile.

    Rows of the same screen (equal settings) come into one leaderboard. A leaderboard of another screen, and a file that
    cannot be read, stay as they are: this one is written beside them, as ``leaderboard-<digits>``, with a warning.

    Args:
        board: With the settings of its screen.
        folder: Made if it is not there.
        figure: Whether to draw the figure (and the HTML report around it) too.
        replace_changed: Whether a row takes the place of one with the same name and other weights. Otherwise both stay,
            the new one with a number.
        combiners: As in :func:`~lightning_transfer.screening.zoo.combine_zoo_scores`.

    Returns:
        The paths by kind.

    Raises:
        OSError: If the folder cannot be written.
    """
    with lock_folder(folder):
        name, earlier = _find(folder, board.settings)
        if earlier is not None:
            board = _join(earlier, board, replace_changed, combiners)
        return board.save(folder, figure=figure, name=name)


def merge_boards(*boards: Leaderboard) -> Leaderboard:
    """Put the rows of leaderboards of the same screen into one: of other machines, or of backbones that came later.

    Args:
        *boards: Leaderboards with equal settings (data, samples, scores). A backbone that two have under the same
            weights stays once; other weights under a taken name get a number.

    Returns:
        The leaderboard, ranked by the column that was named for the last one, if one was; scores that are relative to a
        zoo are scaled anew.

    Raises:
        ValueError: If there is none, or settings differ; the message names them.

    Example:
        >>> from lightning_transfer.screening import Leaderboard, Row, merge_boards
        >>> merged = merge_boards(Leaderboard([Row("a", {"logme": 0.4})]), Leaderboard([Row("b", {"logme": 0.5})]))
        >>> [row.backbone for row in merged.ranked()]
        ['b', 'a']
    """
    if not boards:
        raise ValueError("Expected argument `boards` to hold a leaderboard, but got none.")
    if strange := [board for board in boards if not isinstance(board, Leaderboard)]:
        raise ValueError(
            f"Expected argument `boards` to hold leaderboards, but got {strange[0]!r:.100}: type "
            "merge_boards(one, other), with Leaderboard.load(PATH) for a file and * before a list."
        )
    merged = boards[0]
    for board in boards[1:]:
        mine, other = merged.settings, board.settings
        if differing := [name for name in {**mine, **other} if mine.get(name) != other.get(name)]:
            elsewhere = "; `across_targets` sets targets beside each other" if "target" in differing else ""
            raise ValueError(
                f"Expected argument `boards` to be of the same screen, but got different {differing}{elsewhere}."
            )
        merged = _join(merged, board)
    return merged


def load_from_folder(folder: Path, settings: Mapping[str, Any]) -> Leaderboard:
    """Read the leaderboard of a screen from a folder that may hold others.

    Args:
        folder: Where screens wrote.
        settings: Those of the screen.

    Returns:
        The leaderboard with these settings; if there is none, the one called ``leaderboard.json``.

    Raises:
        ValueError: If that is damaged.
        FileNotFoundError: If it is not there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaderboard = _find(folder, settings)[1]
    return Leaderboard.load(folder) if leaderboard is None else leaderboard


def _find(folder: Path, settings: Mapping[str, Any]) -> tuple[str, Leaderboard | None]:
    """The name under which a screen writes, and what it has written so far."""
    plain_settings = json.loads(json.dumps(settings))
    for name in _names(plain_settings):
        path = folder / f"{name}.json"
        if not path.exists():
            return name, None
        try:
            leaderboard = Leaderboard.load(path)
        except (ValueError, OSError) as error:
            reason = f"is left as it is ({plain(error)})"
        else:
            if leaderboard.settings == plain_settings:
                return name, leaderboard
            reason = "is of another screen and stays"
        warn_user(f"`{path}` {reason}; this leaderboard gets another name in the same folder.")
    raise AssertionError("names do not end")


def _names(settings: Any) -> Iterator[str]:
    yield "leaderboard"
    digits = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    yield f"leaderboard-{digits}"
    yield from (f"leaderboard-{digits}-{count}" for count in itertools.count(2))


def _join(
    earlier: Leaderboard,
    later: Leaderboard,
    replace_changed: bool = False,
    combiners: Mapping[str, Combiner] | None = None,
) -> Leaderboard:
    info = {**earlier.info, **later.info}
    for entry in _ABOUT_ONE_RUN:
        if _asked(earlier.info.get(entry)) != _asked(later.info.get(entry)):
            info.pop(entry, None)
    joined = Leaderboard(
        combine_zoo_scores(_merge(earlier.rows, later.rows, replace_changed), combiners),
        lower_is_better={*earlier.lower_is_better, *later.lower_is_better},
        info=info,
        settings=later.settings,
    )
    if later.rank_by in joined.columns and not later.ranks_by_default:
        joined.rank_by = later.rank_by
    return joined


def _merge(earlier: Iterable[Row], later: Iterable[Row], replace_changed: bool) -> list[Row]:
    rows = {row.backbone: row for row in earlier}
    versions: dict[str, list[str]] = {}
    for name in rows:
        _note_version(versions, name)
    for row in later:
        name = row.backbone if replace_changed else _name_in(rows, row, versions.get(row.backbone, ()))
        finished = name in rows and not rows[name].failed
        same = finished and rows[name].fingerprint == row.fingerprint
        if not (finished and row.failed and (same or not row.scores)):  # what was finished stays
            if name not in rows:
                _note_version(versions, name)
            rows[name] = replace(row, backbone=name)
    return list(rows.values())


def _note_version(versions: dict[str, list[str]], name: str) -> None:
    versions.setdefault(name, []).append(name)
    if (numbered := _NUMBERED.fullmatch(name)) is not None:
        versions.setdefault(numbered[1], []).append(name)


def _name_in(rows: Mapping[str, Row], row: Row, versions: Iterable[str]) -> str:
    """The name of a row among others: its own, with a number if another backbone has it.

    Args:
        rows: The others by name.
        row: The row.
        versions: Those of their names that are the row's, with or without a number.
    """
    for name in versions:
        if row.fingerprint and rows[name].fingerprint == row.fingerprint:
            return name
    is_taken = row.backbone in rows and rows[row.backbone].fingerprint and not rows[row.backbone].failed
    if not is_taken or not row.fingerprint:
        return row.backbone
    return next(name for count in itertools.count(2) if (name := f"{row.backbone} ({count})") not in rows)


def _asked(value: Any) -> Any:
    """An entry of ``info``; of overrides those that are about the result."""
    if not isinstance(value, list):
        return value
    return [entry for entry in value if not str(entry).startswith(_ABOUT_GOING_ON)]
