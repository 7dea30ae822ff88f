"""Content hashes of files, remembered as long as nothing about a file says that it may have changed."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

_FORMAT = 1  # of the table
_CHUNK = 2**20
_SETTLED = 2 * 10**9  # nanoseconds after which a file system's clock tells a further change from the last one
_PATIENCE = 5.0  # seconds for another process that writes the table


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
    """
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


class FileHashes:
    """Hashes files, each once as long as path, size, times, inode and device stay.

    A file that has just been changed is not remembered: a further change within the same tick of the clock would not
    show. A table that cannot be used (it is locked, or no file) is not asked again; a damaged one is made anew.

    Args:
        table: An SQLite file where hashes are remembered; ``None`` to hash every time. Where it cannot be used, files
            are hashed every time.

    Example:
        >>> import pathlib, tempfile
        >>> from lightning_transfer.cache.files import FileHashes
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a"
        >>> _ = path.write_bytes(b"content")
        >>> FileHashes(path.with_name("hashes.sqlite")).of([path])[0][:8]
        'ed7002b4'
    """

    def __init__(self, table: Path | None = None) -> None:
        self.table = table

    def of(self, paths: Sequence[str | Path]) -> list[str]:
        """Hashes of files, in their order.

        Raises:
            OSError: If one cannot be read, or changes while it is.
        """
        names = [os.path.abspath(path) for path in paths]
        known = self._recall(names)
        missing = [name for name in dict.fromkeys(names) if name not in known]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            found = dict(zip(missing, threads.map(_hash_settled, missing), strict=True))
        self._remember((name, signature, value) for name, (signature, value) in found.items() if signature)
        return [known[name] if name in known else found[name][1] for name in names]

    def _recall(self, names: Sequence[str]) -> dict[str, str]:
        if self.table is None or not self.table.is_file():
            return {}
        known: dict[str, str] = {}
        with self._usable(), closing(_connect(self.table)) as table:
            for name in filter(_is_text, dict.fromkeys(names)):
                row = table.execute("SELECT signature, hash FROM files WHERE path = ?", [name]).fetchone()
                if row is not None and row[0] == _signature(os.stat(name)) and _is_hash(row[1]):
                    known[name] = row[1]
        return known

    def _remember(self, rows: Iterable[tuple[str, str, str]]) -> None:
        if self.table is None or not (rows := [row for row in rows if _is_text(row[0])]):
            return
        with suppress(OSError), self._usable():
            self.table.parent.mkdir(parents=True, exist_ok=True)
            if self.table.is_file() or not os.path.lexists(self.table):
                with closing(_connect(self.table)) as table, table:
                    table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        table = self.table
        try:
            yield
        except sqlite3.OperationalError:  # locked, read only, a full disk
            self.table = None
        except sqlite3.Error:  # damaged
            with suppress(OSError):
                if table is not None and table.is_file() and not table.is_symlink():
                    table.unlink()


def _is_text(name: str) -> bool:
    """Whether a table can hold a name: those of files may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _connect(path: Path) -> sqlite3.Connection:
    table = sqlite3.connect(path, timeout=_PATIENCE)
    if table.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
        with table:
            table.execute("DROP TABLE IF EXISTS files")
            table.execute("CREATE TABLE files (path TEXT PRIMARY KEY, signature TEXT, hash TEXT)")
            table.execute(f"PRAGMA user_version = {_FORMAT}")
    if table.execute("SELECT count(*) FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()[0]:
        table.close()
        raise sqlite3.DatabaseError("it is not of this package: reading it could compute for ever")
    return table


def _hash_settled(name: str) -> tuple[str, str]:
    """The signature of a file (empty where it may not be relied on) and its hash."""
    before = os.stat(name)
    value = hash_file(name)
    signature = _signature(os.stat(name))
    if signature != _signature(before):
        raise OSError(f"`{name}` changed while it was read.")
    is_settled = time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED
    return (signature if is_settled else ""), value


def _signature(status: os.stat_result) -> str:
    return ":".join(
        str(part) for part in (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    )


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
