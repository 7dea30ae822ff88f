"""Optional dependencies: one road to import them, one sentence when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module or say how to install it.

    Args:
        module: Dotted name of the module, for example ``"timm"``.
        extra: The extra of this package that installs it.

    Returns:
        The imported module.

    Raises:
        ModuleNotFoundError: If the module, or one that it needs, is not installed.

    Example:
        >>> from lightning_transfer.utilities.imports import require
        >>> require("json", extra="lite").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`{module}` is needed here but is not installed: pip install lightning-transfer[{extra}]",
            name=error.name,
        ) from error
