"""Files that are whole or not there, and names that stay where they belong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.utilities import files
from lightning_transfer.utilities.files import lock_folder, read_json, safe_name, write_atomically

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    ANY_TEXT
    | st.sampled_from(
        ["..", ".", "", "/", "\\", "C:x", "nul", "a/../..", "x" * 400, "中" * 200, "-rf", "-.x", "com¹", "COM9.txt"]
    )
)
def test_a_safe_name_is_one_component(text):
    name = safe_name(text)
    assert name
    assert Path("folder", name).parent == Path("folder")
    assert not set(name) & set('/\\:*?"<>|\0')
    assert name not in (".", "..")
    assert not name.startswith((".", "-"))
    assert len(name.encode()) <= files.LONGEST_NAME
    assert safe_name(name) == name


def test_ordinary_names_stay_and_changed_ones_keep_apart():
    assert safe_name("vit_base_patch16_224.augreg (2)") == "vit_base_patch16_224.augreg (2)"
    assert len({safe_name(text) for text in ("a/b", "a\\b", "a_b", "a:b", "a\x00_b", "NUL", "_NUL")}) == 7


def test_a_failing_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write_atomically(path, "old")
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
    assert path.read_text() == "old"


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"a": 1}{'])
def test_a_damaged_json_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_one_holder_at_a_time(tmp_path):
    count = []

    def add():
        for _ in range(20):
            with lock_folder(tmp_path / "folder"):
                seen = len(count)
                os.sched_yield()
                count.append(seen)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == list(range(80))


def test_a_lock_that_is_never_released(tmp_path):
    with lock_folder(tmp_path), pytest.raises(TimeoutError, match=r"\.lock"), lock_folder(tmp_path, timeout=0.05):
        pass
