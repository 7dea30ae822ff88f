"""Which GPU of a machine a job takes, so that jobs that run side by side do not share one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from filelock import BaseFileLock

_ACCELERATORS = ("auto", "gpu", "cuda")
_held: dict[int, BaseFileLock] = {}  # the GPU of this process, until it ends


def own_gpu(trainer: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What to change in the arguments of a Trainer so that it runs on a GPU that no other job of this machine has.

    A process keeps the GPU that it took first. Where all are taken, jobs share them by their numbers.

    Args:
        trainer: The arguments. Only one device, of a kind that may be a GPU, is chosen anew.
        number: Of the job in its sweep.

    Returns:
        ``{"devices": [index]}``, or nothing where there is no choice.

    Example:
        >>> from lightning_transfer.utilities.devices import own_gpu
        >>> own_gpu({"accelerator": "cpu", "devices": 1}, 3)
        {}
    """
    if str(trainer.get("devices", 1)) != "1" or trainer.get("accelerator", "auto") not in _ACCELERATORS:
        return {}
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    if not _held:
        with suppress(OSError, NotImplementedError):  # no place for files, or for locks: by number
            _take(count)
    return {"devices": [next(iter(_held), number % count)]}


def _take(count: int) -> None:
    """Hold the first GPU of which no other process of this user holds the file."""
    from filelock import FileLock, Timeout

    user = getattr(os, "getuid", lambda: 0)()
    folder = Path(tempfile.gettempdir()) / f"lightning-transfer-gpus-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or getattr(found, "st_uid", user) not in (user, 0):
        raise PermissionError(f"`{folder}` belongs to somebody else.")
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    for index in range(count):
        name = visible[index] if len(visible) == count else str(index)
        lock = FileLock(folder / f"{''.join(filter(str.isalnum, name))}.lock", thread_local=False)
        with suppress(Timeout):
            lock.acquire(timeout=0)
            _held[index] = lock
            return
