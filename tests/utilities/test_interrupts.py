"""Ctrl-C inside a Trainer, and where Python would drop it."""

from __future__ import annotations

import signal
import sys
import threading
import time
import weakref

import pytest

from lightning_transfer.utilities.interrupts import interruptible


def leave_by_interrupt():
    """As a Trainer does: further interrupts are ignored, and the process exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise SystemExit(1)  # noqa: B904


def test_an_exit_that_an_interrupt_caused_is_one():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        leave_by_interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_other_ends_go_through():
    before = signal.getsignal(signal.SIGINT)

    def leave(error):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise error

    for error in (SystemExit(3), ValueError("x")):
        with pytest.raises(type(error)), interruptible():
            leave(error)
        assert signal.getsignal(signal.SIGINT) is before
    with interruptible():
        pass


def test_other_threads_leave_the_handler_alone():
    ended = []

    def work():
        with interruptible():
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


class Thing:
    pass


def drop(error):
    """Raise where Python ignores what is raised."""

    def fail(_):
        raise error

    thing = Thing()
    reference = weakref.ref(thing, fail)
    del thing
    assert reference() is None


def test_an_interrupt_that_python_drops_arrives_all_the_same(interrupts_arrive):
    before = sys.unraisablehook

    def work():
        with interruptible():
            drop(KeyboardInterrupt())
            time.sleep(30)
            pytest.fail("the sleep went on to its end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert sys.unraisablehook is before


def test_other_errors_that_python_drops_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_type))
    with interruptible():
        drop(ValueError("x"))
    assert told == [ValueError]
