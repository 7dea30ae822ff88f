"""Memory allocator settings that make forward passes on a CPU several times faster.

glibc hands every block above a threshold (128 KiB to 32 MiB, it adapts) straight back to the kernel when it is freed.
An activation map of a convolutional network is such a block, so each layer of each batch pays for fresh, zeroed pages:
a forward pass at 224 pixels takes several times longer (``benchmarks/extraction.py --allocator system`` shows it). The
price is memory: what a process once used, it keeps.
"""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "LIGHTNING_TRANSFER_ALLOCATOR"
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_LARGEST_MALLOPT = 1 << 30  # mallopt takes a C int; blocks of more than 1 GiB are rare in a forward pass


def tune_allocator() -> bool:
    """Keep freed memory in this process and in the ones that it starts, on Linux with glibc.

    This process is told by ``mallopt``, later ones by the environment variables ``MALLOC_MMAP_THRESHOLD_`` and
    ``MALLOC_TRIM_THRESHOLD_`` (both 4294967296). Nothing happens when one of them is set already, when
    ``LIGHTNING_TRANSFER_ALLOCATOR=system`` is set, or on another platform. The command line calls it before anything
    else; in your own program call it before the first forward pass.

    Returns:
        Whether the settings were applied.

    Example:
        >>> from lightning_transfer.utilities.allocator import tune_allocator
        >>> isinstance(tune_allocator(), bool)
        True
    """
    if not _uses_glibc() or os.environ.get(SWITCH) == "system" or any(name in os.environ for name in _VARIABLES):
        return False
    libc = ctypes.CDLL(None)
    applied = [libc.mallopt(option, _LARGEST_MALLOPT) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    os.environ.update(dict.fromkeys(_VARIABLES, str(1 << 32)))
    return all(applied)


def _uses_glibc() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # another C library does not know the name
        return False
