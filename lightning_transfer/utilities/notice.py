"""Warnings at the line of the user's program that they are about."""

from __future__ import annotations

import sys
import warnings

_INNER = frozenset(
    {
        "contextlib", "functools", "lightning", "lightning_fabric", "lightning_transfer", "lightning_utilities",
        "pytorch_lightning", "torch", "torchmetrics",
    }
)  # fmt: skip


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the last line that is neither of this package nor of a library that it is called through.

    Args:
        message: What is to be said.
        category: Class of the warning.

    Example:
        >>> import warnings
        >>> from lightning_transfer.utilities.notice import warn_user
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_user("a class has no samples")
        >>> str(caught[0].message)
        'a class has no samples'
    """
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        level += 1
        if frame.f_back is None:  # nothing but libraries, as in a process of theirs
            break
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=level)
