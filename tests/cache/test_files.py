from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing

import pytest

from lightning_transfer.cache import files
from lightning_transfer.cache.files import FileHashes, hash_file


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """A file whose last change is long ago by the clock, and the files that are read."""
    path = tmp_path / "picture"
    path.write_bytes(b"content")
    later = time.time_ns() + 10**11
    monkeypatch.setattr(time, "time_ns", lambda: later)
    read = []
    monkeypatch.setattr(files, "hash_file", lambda name: read.append(name) or hash_file(name))
    return path, FileHashes(tmp_path / "cache" / "files.sqlite"), read


def test_a_file_is_hashed_once_until_it_changes(settled):
    path, hashes, read = settled
    first = hashes.of([path, path])
    assert hashes.of([path]) == first[:1]
    assert len(read) == 1
    status = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and time of change as before
    assert hashes.of([path]) == [hash_file(path)] != first[:1]
    assert len(read) == 2


@pytest.mark.skipif(os.name != "posix", reason="names of files are text")
def test_a_name_that_is_no_text_is_hashed_every_time(settled):
    path, hashes, read = settled
    odd = os.path.join(os.fsencode(path.parent), b"\xff")
    try:
        with open(odd, "wb") as file:
            file.write(b"content")
    except OSError:
        pytest.skip("the file system wants text")
    both = [path, os.fsdecode(odd)]
    assert len(set(hashes.of(both))) == 1
    hashes.of(both)
    assert len(read) == 3


def test_a_file_that_has_just_changed_is_hashed_again(tmp_path, monkeypatch):
    path = tmp_path / "picture"
    path.write_bytes(b"content")
    hashes = FileHashes(tmp_path / "files.sqlite")
    hashes.of([path])
    assert not (tmp_path / "files.sqlite").exists()


@pytest.mark.parametrize("content", [b"", b"no table at all" * 100])
def test_a_damaged_table_is_no_obstacle(settled, content):
    path, hashes, _ = settled
    hashes.table.parent.mkdir()
    hashes.table.write_bytes(content)
    assert hashes.of([path]) == hashes.of([path]) == [hash_file(path)]


def test_a_damaged_table_is_made_anew(settled):
    path, hashes, read = settled
    hashes.table.parent.mkdir()
    hashes.table.write_bytes(b"no table at all" * 100)
    for _ in range(3):
        assert FileHashes(hashes.table).of([path]) == [hash_file(path)]
    assert len(read) == 1


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/full", path)])
def test_a_table_that_is_no_file_is_no_obstacle(settled, make):
    path, hashes, _ = settled
    hashes.table.parent.mkdir()
    make(hashes.table)
    assert hashes.of([path]) == hashes.of([path]) == [hash_file(path)]


def test_a_locked_table_is_waited_for_once(settled, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.05)
    path, hashes, read = settled
    hashes.of([path])
    with closing(sqlite3.connect(hashes.table, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert hashes.of([path]) == [hash_file(path)]
        assert hashes.table is None
    assert len(read) == 2


def test_what_is_remembered_is_checked_for_its_form(settled):
    path, hashes, _ = settled
    hashes.of([path])
    with sqlite3.connect(hashes.table) as table:
        table.execute("UPDATE files SET hash = 'x'")
    assert hashes.of([path]) == [hash_file(path)]


def test_a_folder_that_cannot_be_made_is_no_obstacle(settled, tmp_path):
    path, _, _ = settled
    assert FileHashes(path / "below" / "files.sqlite").of([path]) == [hash_file(path)]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileHashes().of([tmp_path / "none"])


def test_a_table_that_would_compute_for_ever_is_not_asked(tmp_path):
    import sqlite3

    path = tmp_path / "a"
    path.write_bytes(b"content")
    table = tmp_path / "files.sqlite"
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'x', 'y', max(i) FROM n"
    with sqlite3.connect(table) as planted:
        planted.execute(f"CREATE VIEW files (path, signature, hash) AS {endless}")
        planted.execute("PRAGMA user_version = 1")
    assert FileHashes(table).of([path]) == [hash_file(path)]
