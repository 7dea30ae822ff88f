from __future__ import annotations

import signal

import pytest

from lightning_transfer.data import Digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(max_samples=160, batch_size=32)


@pytest.fixture
def interrupts_arrive():
    """Processes that a shell starts in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)
