"""Pipes, sockets, devices and folders where a file is expected: no reader waits for them or reads them for ever."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import warnings
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fuzz.readers import READERS

from lightning_transfer.cache.files import FileHashes, hash_file
from lightning_transfer.callbacks.checkpoint import WholeCheckpoints
from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.screening.merging import add_to_folder
from lightning_transfer.selection import StudyTable

SLOW = ("program", "script")  # to write, which these readers need not
LEFT_OUT = ("modules of a model", "tokenizer of a model")  # as slow, and read by what reads the config of a model


def put(kind: str, path: Path) -> None:
    """Put something that is no file into the place of one."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        path.symlink_to(path.with_name("nothing"))
    else:
        here = os.open(path.parent, os.O_RDONLY)  # names of sockets are short
        try:
            with closing(socket.socket(socket.AF_UNIX)) as end:
                end.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


KINDS = ("pipe", "folder", "device", "link to nothing", "socket")


@contextmanager
def at_most(seconds: int):
    """End what waits for ever."""

    def stop(*_):
        raise TimeoutError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", [name for name in READERS if name not in LEFT_OUT])
def test_what_is_no_file_is_refused(name, tmp_path):
    reader = READERS[name]
    path = tmp_path / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name not in SLOW:
            reader.write(path)
        for kind in KINDS:
            put(kind, path)
            with at_most(5), pytest.raises((ValueError, FileNotFoundError)) as raised:
                reader.read(path)
            told = str(raised.value)
            assert path.name in told or path.parent.name in told, f"{kind}: {told}"


@pytest.mark.parametrize("kind", KINDS)
def test_results_beside_what_is_no_file(kind, tmp_path):
    """Neither a lock nor a leaderboard of that kind is waited for, and the rows get a place."""
    board = Leaderboard([Row("a", {"logme": 1.0})], settings={"x": 1})
    put(kind, tmp_path / "leaderboard.json")
    with at_most(5), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = add_to_folder(board, tmp_path, figure=False)
        assert Leaderboard.load(paths["json"])["a"].score("logme") == 1.0
        put(kind, tmp_path / ".lock")
        with contextlib.suppress(OSError):
            add_to_folder(board, tmp_path, figure=False)
    assert Path("/dev/zero").is_char_device()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_hashes_that_is_no_file(kind, tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    put(kind, tmp_path / "files.sqlite")
    with at_most(20):
        assert FileHashes(tmp_path / "files.sqlite").of([tmp_path / "a"]) == [hash_file(tmp_path / "a")]


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_and_studies_that_are_no_files(kind, tmp_path):
    for name, read in (("last.ckpt", WholeCheckpoints().load_checkpoint), ("study.jsonl", StudyTable.load)):
        put(kind, tmp_path / name)
        with at_most(5), pytest.raises((ValueError, FileNotFoundError), match=name):
            read(tmp_path / name)
