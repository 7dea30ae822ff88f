"""What a result was computed with."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_DISTRIBUTIONS = (
    "lightning-transfer", "torch", "lightning", "torchmetrics", "timm", "torchvision", "transformers",
    "open-clip-torch", "sentence-transformers",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that its numbers may depend on, those installed.

    Example:
        >>> from lightning_transfer.utilities.versions import versions
        >>> list(versions())[:3]
        ['python', 'lightning-transfer', 'torch']
    """
    return dict(_find_versions())


@cache
def _find_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
