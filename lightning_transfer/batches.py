"""Old home of what :mod:`lightning_transfer.inputs` and :mod:`lightning_transfer.passes` hold."""

from __future__ import annotations

import warnings
from typing import Any

from lightning_transfer import inputs, passes

_HOMES = {"split_batch": inputs, "batch_size": inputs, "ScoringPass": passes, "rebuild_loader": passes}


def __getattr__(name: str) -> Any:
    """Hand out a name from its new home, with a warning."""
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    home = _HOMES[name]
    warnings.warn(f"`{__name__}.{name}` has moved to `{home.__name__}.{name}`.", FutureWarning, stacklevel=2)
    return getattr(home, name)
