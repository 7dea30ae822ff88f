"""Damage to files, drawn from a seed: what disks, networks and people with bad intentions do."""

from __future__ import annotations

import random
from collections.abc import Callable

_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
_WORDS = (
    b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"null", b"true", b'"', b"'", b"[", b"{", b"}", b"\\ud800", b"\0",
    b"\xff\xfe", b"\r", b"\n", b"=1+1", b",", b"../../x", b"[" * 3000, b"\x1b[31m", b"${oc.env:HOME}", b"_target_",
)  # fmt: skip


def _flip(content: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 1, 4, 32))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


def _fill(content: bytearray, draw: random.Random) -> bytearray:
    start, length = draw.randrange(len(content)), draw.choice((1, 4, 64, 1024))
    stop = min(start + length, len(content))
    content[start:stop] = bytes([draw.choice((0, 255, draw.randrange(256)))]) * (stop - start)
    return content


def _claim(content: bytearray, draw: random.Random) -> bytearray:
    width, order = draw.choice((2, 4, 8)), draw.choice(("little", "big"))
    start = draw.randrange(min(len(content), draw.choice((64, 1024, 2**30))))
    number = (draw.choice(_SIZES) % 2 ** (8 * width)).to_bytes(width, order)
    content[start : start + width] = number[: len(content) - start]
    return content


def _cut(content: bytearray, draw: random.Random) -> bytearray:
    return content[: draw.randrange(len(content))]


def _lose(content: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice((1, 16, 500))]
    return content


def _repeat(content: bytearray, draw: random.Random) -> bytearray:
    start, place = draw.randrange(len(content)), draw.randrange(len(content))
    content[place:place] = content[start : start + draw.choice((1, 16, 500, 20_000))]
    return content


def _word(content: bytearray, draw: random.Random) -> bytearray:
    start, word = draw.randrange(len(content)), draw.choice(_WORDS)
    content[start : start + draw.choice((0, 1, len(word)))] = word
    return content


MUTATIONS: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _flip, _flip, _flip, _fill, _claim, _claim, _cut, _lose, _repeat, _word, _word,
)  # fmt: skip


def mutate(content: bytes, seed: str) -> bytes:
    """A damaged copy, the same for the same seed.

    Args:
        content: A whole file.
        seed: Any text.
    """
    draw = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        if damaged:
            damaged = draw.choice(MUTATIONS)(damaged, draw)
    return bytes(damaged)
