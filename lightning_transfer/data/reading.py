"""Reading of files whose content may lie about its size: nothing grows beyond what the file justifies."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from lightning_transfer.utilities.files import check_regular

_FREE = 2**26  # bytes that any file may grow to
_RATIO = 200  # times a file's size that it may grow to; tables and arrays of real data stay far below
_CHUNK = 2**20
_OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def largest_size(path: Path, compressed: int | None = None) -> int:
    """Bytes that the content of a compressed file may have: 64 MiB, or 200 times the file where that is more.

    Args:
        path: The file.
        compressed: Bytes of the part that is read; by default the whole file.
    """
    return max(_FREE, _RATIO * (path.stat().st_size if compressed is None else compressed))


def check_size(size: int, limit: int, what: str) -> None:
    """Refuse a size beyond the limit before anything of it is read.

    Raises:
        ValueError: If the size is larger.
    """
    if size > limit:
        raise ValueError(f"Expected {what} to hold at most {limit} bytes for the size of its file, but got {size}.")


@contextmanager
def open_unzipped(path: Path) -> Iterator[BinaryIO]:
    """Open a file, also one that ends in ``.gz``, ``.bz2``, ``.xz`` or ``.zip`` (of one file); limit what comes out.

    Args:
        path: The file.

    Yields:
        A stream of the content; reading beyond :func:`largest_size` is a ValueError.

    Raises:
        ValueError: If a zip file holds more than one file.
        OSError: If there is no such file.
    """
    end = path.suffix.lower()
    check_regular(path)
    with ExitStack() as stack:
        stream: IO[bytes]
        if end == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = archive.namelist()
            if len(members) != 1:
                raise ValueError(f"Expected {path} to hold one file, but got {len(members)}.")
            stream = stack.enter_context(archive.open(members[0]))
        else:
            opener: Any = _OPENERS.get(end, open)
            stream = stack.enter_context(opener(path, "rb"))
        if end in (*_OPENERS, ".zip"):
            yield io.BufferedReader(_Limited(stream, path), _CHUNK)
        else:
            yield cast("BinaryIO", stream)


def read_at_most(stream: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes, or what there is, in memory that grows with what is read.

    Args:
        stream: Anything with ``read``.
        size: Upper limit, however large.
    """
    parts = []
    while size > 0 and (part := stream.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than its file justifies."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path = stream, path
        self.left = self.limit = largest_size(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        part = self.stream.read(len(room))
        self.left -= len(part)
        if self.left < 0:
            raise ValueError(f"{self.path} unpacks to more than {self.limit} bytes, which its size does not justify")
        room[: len(part)] = part
        return len(part)
