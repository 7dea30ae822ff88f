"""Exceptions that the command line tells apart."""

from __future__ import annotations


class JobFailedError(RuntimeError):
    """A job ran and has no result."""
