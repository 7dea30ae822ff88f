"""Where the functions of released code are found."""

from __future__ import annotations

import importlib
from typing import Any


def published(score: str, name: str | None = None) -> Any:
    """What is called so in the released code of a score, which builds on the scores: looked up when it is asked for.

    Args:
        score: Module in ``lightning_transfer.published``.
        name: Name in it; by default it is called like the score.
    """
    return getattr(importlib.import_module(f"lightning_transfer.published.{score}"), name or score)
