"""Faster forward passes of the same network, for as long as a pass takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPTIMIZATIONS = ("channels_last", "compile")


def check_optimizations(names: Collection[str]) -> tuple[str, ...]:
    """Check names of optimizations.

    Args:
        names: Some of :data:`OPTIMIZATIONS`, or one of them.

    Returns:
        Them in a fixed order, each once.

    Raises:
        ValueError: If a name is unknown.

    Example:
        >>> from lightning_transfer.utilities.optimization import check_optimizations
        >>> check_optimizations(["compile", "channels_last"])
        ('channels_last', 'compile')
    """
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in OPTIMIZATIONS]
    if unknown:
        raise ValueError(f"Expected argument `optimize` to hold some of {OPTIMIZATIONS}, but got {unknown}.")
    return tuple(name for name in OPTIMIZATIONS if name in names)


@contextmanager
def optimized(backbone: Any, names: Collection[str]) -> Iterator[None]:
    """Let a backbone run faster meanwhile.

    Args:
        backbone: For ``channels_last`` its weights are put into another memory layout, which the caller undoes.
        names: Some of :data:`OPTIMIZATIONS`.
    """
    names = check_optimizations(names)
    if "channels_last" in names:
        backbone.to(memory_format=torch.channels_last)
    if "compile" not in names:
        yield
        return
    backbone.encode = torch.compile(backbone.encode)
    try:
        yield
    finally:
        del backbone.encode
