"""Thousands of damaged files: each is read to values that its bytes explain, or refused in a ValueError that names it.

Of a data set that ``datasets`` saved the folder is named. ``LIGHTNING_TRANSFER_FUZZ=N`` reads N files instead of 5200,
the same ones for the same N. No file may take 20 s or bring the process more than 1 GiB above what reading the good
files took.
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fuzz.mutations import mutate
from fuzz.readers import READERS, make, same

TOTAL = int(os.environ.get("LIGHTNING_TRANSFER_FUZZ", "5200"))
SHARES = sum(reader.share for reader in READERS.values())
MEMORY = 2**30  # bytes
SECONDS = 20


@contextmanager
def limited_memory():
    """Fail allocations beyond the limit, counted from what the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.fuzz
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(kind, tmp_path):
    reader = READERS[kind]
    content = make(reader, tmp_path)
    path = tmp_path / reader.name
    before = reader.read(path)
    assert before
    accepted = refused = 0
    count = max(10, round(TOTAL * reader.share / SHARES))
    with warnings.catch_warnings(), limited_memory():
        warnings.simplefilter("ignore")
        for number in range(count):
            seed = f"{kind}/{number}"
            damaged = mutate(content, seed)
            path.write_bytes(damaged)
            start = time.monotonic()
            try:
                after = reader.read(path)
            except ValueError as error:
                refused += 1
                if path.name not in str(error) and "saved" not in str(error):
                    pytest.fail(f"{seed}: the message does not name the file: {error}")
            except Exception as error:
                pytest.fail(f"{seed}: {type(error).__name__}: {error}")
            else:
                accepted += 1
                explained = same(before, after) or reader.explained(content, damaged, before, after)
                assert explained, f"{seed}: values changed for no reason"
            assert time.monotonic() - start < SECONDS, f"{seed} took too long"
    print(f"{kind}: {accepted} accepted, {refused} refused")
    assert refused, "the damage hit nothing"


@pytest.mark.parametrize("kind", ["idx", "csv", "leaderboard"])
def test_a_change_without_a_reason_is_found(kind, tmp_path):
    """The judge of the values is no rubber stamp."""
    reader = READERS[kind]
    content = make(reader, tmp_path)
    before = reader.read(tmp_path / reader.name)
    name = next(iter(before))
    value = before[name]
    after = {**before, name: value + 1 if isinstance(value, np.ndarray) else [*value[:-1], "other"]}
    damaged = bytearray(content)
    damaged[-3] ^= 1 if kind != "leaderboard" else 0
    assert not same(before, after)
    assert not reader.explained(content, bytes(damaged), before, after)
