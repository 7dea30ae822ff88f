"""What a screen was made of, so that another one can go on where it stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.digest import digest

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from lightning_transfer.backbones import Backbone

_LOOKED_AT = 16  # inputs of a split, evenly spread, whose values tell one set from another
_DIGITS = 16  # of the digest of a setting


def load_earlier(resume: Leaderboard | str | Path | None, settings: Mapping[str, Any]) -> Leaderboard:
    """Find the leaderboard to go on from.

    Args:
        resume: The leaderboard, or where it was saved; an empty one where not given.
        settings: What :func:`describe` says of this screen.

    Returns:
        The leaderboard.

    Raises:
        ValueError: If the earlier screen was of something else; the message says what differs.
        FileNotFoundError: If there is no such leaderboard.
    """
    if resume is None:
        return Leaderboard()
    board = resume if isinstance(resume, Leaderboard) else Leaderboard.load(check_path(resume, "resume"))
    difference = _first_difference(board.settings, dict(settings))
    if difference is not None:
        name, before, now = difference
        raise ValueError(
            "Expected argument `resume` to be a leaderboard of the same screen, "
            f"but its `{name}` is {before!r} instead of {now!r}."
        )
    return board


def fingerprint(backbone: Backbone) -> str:
    """Name the weights, structure and preprocessing of a backbone.

    Args:
        backbone: On any device.

    Returns:
        Hexadecimal digits: the same for the same backbone, others if anything in it changed.
    """
    options = {
        name: value
        for name, value in vars(backbone).items()
        if isinstance(value, str | int | float | tuple) and name not in ("name", "training")
    }
    texts = repr(backbone), repr(sorted(options.items())), repr(backbone.preprocessing)
    return digest([*backbone.parameters(), *backbone.buffers()], *texts)


def describe(**settings: Any) -> dict[str, Any]:
    """Say in plain JSON values what the scores of a screen depend on, beside the backbones.

    Args:
        settings: Values of any type. Tensors become digests; of other objects the kind is told.
    """
    return {name: _plain(value) for name, value in settings.items()}


def describe_data(data: LightningDataModule, name: str, split: str) -> dict[str, Any]:
    """Tell a datamodule from another: by name and, for those of this package, by all answers and some inputs.

    Args:
        data: After its ``setup``.
        name: What tables call it.
        split: The split that is scored.

    Raises:
        ValueError: If a datamodule of this package has no such split.
    """
    if not isinstance(data, TransferDataModule):
        return {"name": name}
    dataset = data.split_dataset(split)
    some = torch.linspace(0, len(dataset) - 1, min(_LOOKED_AT, len(dataset))).long().tolist()
    return {
        "name": name,
        "answers": _plain(dataset.truth),
        "inputs": _plain([dataset[index]["inputs"] for index in some]),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return digest([value])[:_DIGITS]
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
    return next((found for found in differences if found is not None), None)
