"""Exceptions: which of them the command line tells apart, and what a row or a file keeps of one."""

from __future__ import annotations

from dataclasses import dataclass

_BAD_INPUT = ("FileNotFoundError", "ImportError", "ModuleNotFoundError", "TypeError", "ValueError")


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
