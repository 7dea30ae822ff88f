"""Leaving a group of processes."""

from __future__ import annotations

import atexit

from torch import distributed


def leave_group_at_exit() -> None:
    """Let this process end its group, if it is in one, before the interpreter goes.

    Threads of a group that is still alive then can abort the process after all its work is done. Lightning ends groups
    of GPUs only.
    """
    atexit.unregister(_leave_group)
    atexit.register(_leave_group)


def _leave_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
