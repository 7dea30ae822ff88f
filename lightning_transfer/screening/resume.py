"""What a screen was made of, so that another one can go on where it stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.merging import load_from_folder
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.digest import SHORT, digest


def load_earlier(resume: Leaderboard | str | Path | None, settings: Mapping[str, Any]) -> Leaderboard:
    """Find the leaderboard to go on from.

    Args:
        resume: The leaderboard, or where it was saved; an empty one where not given.
        settings: What :func:`as_settings` says of this screen.

    Returns:
        The leaderboard.

    Raises:
        ValueError: If the earlier screen was of something else; the message says what differs.
        FileNotFoundError: If there is no such leaderboard.
    """
    if resume is None:
        return Leaderboard()
    if isinstance(resume, Leaderboard):
        board = resume
    else:
        path = check_path(resume, "resume")
        try:
            board = load_from_folder(path, settings) if path.is_dir() else Leaderboard.load(path)
        except ValueError as error:  # written to half, on a disk that lost power say
            remedy = "without `resume` all backbones are screened anew, with what the cache of features still has"
            raise ValueError(f"{str(error).rstrip('.')}; {remedy}.") from None
    difference = _first_difference(board.settings, dict(settings))
    if difference is not None:
        name, before, now = difference
        raise ValueError(
            "Expected argument `resume` to be a leaderboard of the same screen, "
            f"but its `{name}` is {before!r} instead of {now!r}."
        )
    return board


def as_settings(**settings: Any) -> dict[str, Any]:
    """Say in plain JSON values what the scores of a screen depend on, beside the backbones.

    Args:
        settings: Values of any type. Tensors become digests; of other objects the kind is told.
    """
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return digest([value])[:SHORT]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    return value if value is None or isinstance(value, str | int | float) else type(value).__qualname__


def _first_difference(before: Any, now: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two settings first differ, and what each has there."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (path, before, now)
    differences = (
        _first_difference(before.get(name), now.get(name), f"{path}.{name}" if path else name)
        for name in dict.fromkeys([*now, *before])
    )
    return next((difference for difference in differences if difference is not None), None)
