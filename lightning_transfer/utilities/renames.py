"""Old names of arguments, which go on working for a while."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def renamed(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function take arguments by their old names too, with a :class:`FutureWarning`.

    Args:
        names: New name by old name; both at once are a TypeError.

    Example:
        >>> from lightning_transfer.utilities.renames import renamed
        >>> @renamed(colour="color")
        ... def paint(color):
        ...     return color
        >>> paint(color="red")
        'red'
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            for old in names.keys() & kwargs.keys():
                message = f"Argument `{old}` of `{function.__qualname__}` is called `{names[old]}` now."
                warnings.warn(message, FutureWarning, stacklevel=2)
                if names[old] in kwargs:
                    raise TypeError(f"`{function.__qualname__}` got both `{names[old]}` and its old name `{old}`.")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return run

    return decorate
