"""The job ``list``: backbones that match patterns, one a line."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence

from lightning_transfer.utilities.text import plain

_LIMIT = "max_parameters="


def run(words: Sequence[str]) -> None:
    """Print the backbones that match patterns.

    Args:
        words: Patterns such as ``"timm/vit*"``, and ``max_parameters=1e7`` to leave out larger networks.

    Raises:
        ValueError: If nothing matches or the limit is no number.
    """
    from lightning_transfer.backbones.names import NAMED

    if strange := [word for word in words if "=" in word and not word.startswith(_LIMIT)]:
        raise ValueError(f"Expected patterns such as 'timm/vit*', and {_LIMIT}NUMBER, but got {strange[0]!r}.")
    limits = [word.removeprefix(_LIMIT) for word in words if word.startswith(_LIMIT)]
    try:
        limit = float(limits[-1]) if limits else None
    except ValueError as error:
        raise ValueError(f"Expected `max_parameters` to be a number, but got {limits[-1]!r}.") from error
    patterns = [word for word in words if not word.startswith(_LIMIT)]
    for pattern in patterns or ["*"]:
        if limit is None and (names := fnmatch.filter(NAMED, pattern)):
            print("\n".join(names))  # without torch
            continue
        from lightning_transfer.backbones import list_backbones

        for listed in list_backbones(pattern, limit):
            count = listed.parameters
            size = "x".join(map(str, listed.input_size)) if listed.input_size else ""
            print(f"{plain(listed.name):<56} {'' if count is None else f'{count / 1e6:.1f} M':>10}  {size}".rstrip())
    if not patterns:
        print(
            "These come with the package; more by library, such as lightning-transfer list 'timm/*'.", file=sys.stderr
        )
