"""Ctrl-C inside a Trainer, and where Python would drop it."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN = 0.05  # seconds, after which whatever dropped an interrupt has ended


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C arrive as a KeyboardInterrupt.

    A Trainer that sees one exits the process and ignores further ones. One that falls into a finaliser or the callback
    of a weak reference is dropped by Python with a message: it is sent again.
    """
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook

    def send_again(dropped: UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
            return
        again = threading.Timer(_AGAIN, _interrupt)
        again.daemon = True
        again.start()

    sys.unraisablehook = send_again
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _interrupt() -> None:
    """Do what Ctrl-C does, a sleep included where signals can be sent to a thread."""
    if hasattr(signal, "pthread_kill") and (ident := threading.main_thread().ident) is not None:
        signal.pthread_kill(ident, signal.SIGINT)
    else:
        _thread.interrupt_main()
