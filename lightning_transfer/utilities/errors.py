"""Exceptions: which of them the command line tells apart, and what a row or a file keeps of one."""

from __future__ import annotations

import errno
from dataclasses import dataclass

_BAD_INPUT = ("FileNotFoundError", "ImportError", "ModuleNotFoundError", "TypeError", "ValueError")
_OF_DISK = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EIO") if hasattr(errno, name)}


class JobFailedError(RuntimeError):
    """A job ran and has no result."""


@dataclass(frozen=True)
class Failure:
    """What is kept of an exception where it may not end the whole.

    Attributes:
        kind: Name of its class.
        message: What it says, on one line.

    Example:
        >>> from lightning_transfer.utilities.errors import Failure
        >>> failure = Failure.of(ValueError("no such layer"))
        >>> str(failure), failure.bad_input
        ('ValueError: no such layer', True)
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Keep kind and message of an exception."""
        return cls(type(error).__name__, " ".join(str(error).split()))

    @property
    def bad_input(self) -> bool:
        """Whether such an exception is usually a wrong name, value or file of the user."""
        return self.kind in _BAD_INPUT

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


def is_of_disk(error: BaseException) -> bool:
    """Whether an exception is about a disk that takes no more, whatever was to be written.

    Example:
        >>> import errno
        >>> from lightning_transfer.utilities.errors import is_of_disk
        >>> is_of_disk(OSError(errno.ENOSPC, "No space left on device")), is_of_disk(FileNotFoundError("no such file"))
        (True, False)
    """
    return isinstance(error, OSError) and error.errno in _OF_DISK
