from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from lightning_transfer.cache import store
from lightning_transfer.cache.store import Entry, FeatureCache, default_folder

KEY = "ab" * 32
VALUES = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


def put(cache, key=KEY, values=VALUES, logits=None, ranks=1, about=None):
    """An entry of values that arrived in batches of 4, on each of some processes."""
    writers = [cache.writer(key)]
    writers += [store.EntryWriter(writers[0].folder, key, cache.dtype, writers[0].sign) for _ in range(ranks - 1)]
    for rank, writer in enumerate(writers):
        writer.start(rank, writers[0].folder)
        own = values[rank::ranks]
        for start in range(0, len(own), 4):
            writer.add(own[start : start + 4], None if logits is None else logits[start : start + 4])
        writer.finish()
    return cache.finish(
        writers[0], about or {}, {"features": values[:2]}, num_samples=len(values), seconds=1.5, notes={"n": 1}
    )


def only(cache, key=KEY, names=("features",)):
    (entry,) = cache.find(key, names)
    return entry


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_come_back_as_they_were(cache, monkeypatch, ranks):
    monkeypatch.setattr(store, "_SHARD", 64)
    assert put(cache, ranks=ranks)
    entry = only(cache)
    assert len(list(entry.folder.glob("rank*"))) >= 3
    assert torch.equal(entry.rows("features", torch.arange(10)), VALUES)
    places = torch.tensor([9, 0, 4, 4])
    assert torch.equal(entry.rows("features", places), VALUES[places])
    assert (entry.num_samples, entry.seconds, entry.notes) == (10, 1.5, {"n": 1})
    assert entry.batches == ([4, 4, 2] if ranks == 1 else [])
    assert torch.equal(entry.answers()["features"], VALUES[:2])


def test_rows_are_read_from_mapped_memory(cache):
    put(cache)
    entry = only(cache)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists mapped files, in /proc/self/maps")
    rows = entry.rows("features", torch.tensor([0]))
    assert len(rows) == 1
    assert str(entry.folder / "rank0-0.safetensors") in maps.read_text()


def test_an_entry_with_more_tensors_takes_the_place_of_one_with_fewer(cache):
    put(cache)
    assert not list(cache.find(KEY, ["features", "logits"]))
    put(cache, logits=VALUES)
    assert set(only(cache, names=["logits"]).widths) == {"features", "logits"}
    put(cache)
    assert len(list(cache.find(KEY, ["features"]))) == 2  # the larger one stays


@pytest.mark.parametrize("file", ["entry.json", "rank0-0.safetensors", "answers.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-7],
        lambda content: b"",
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        None,
    ],
    ids=["truncated", "empty", "one bit", "gone"],
)  # fmt: skip
def test_a_damaged_entry_is_found_and_deleted(cache, file, damage):
    put(cache)
    path = only(cache).folder / file
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert list(cache.find(KEY, ["features"])) == []
    assert not path.parent.exists()
    assert put(cache)
    only(cache)


@pytest.mark.parametrize(("gone", "error"), [(True, FileNotFoundError), (False, OSError)])
def test_an_entry_that_another_process_deletes_meanwhile_is_none(cache, monkeypatch, gone, error):
    put(cache)
    entry = only(cache)

    def map_file(path, **_):
        if gone:
            Path(path).unlink()
        raise RuntimeError(f"unable to open file <{path}>")  # of torch

    monkeypatch.setattr("safetensors.torch.load_file", map_file)
    with pytest.raises(error):
        Entry.read(entry.folder, KEY).answers()
    assert list(cache.find(KEY, [])) == []
    assert entry.folder.exists() is not gone


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "rank0-0.safetensors/..", "rank0-0.pt"])
def test_files_outside_the_entry_are_not_opened(cache, name, monkeypatch):
    put(cache)
    path = only(cache).folder / "entry.json"
    manifest = json.loads(path.read_text())
    manifest["ranks"][0][0]["file"] = name
    del manifest["checksum"]
    path.write_text(store._encode(manifest))
    opened = []
    monkeypatch.setattr(store, "hash_file", lambda path: opened.append(path) or "")
    with pytest.raises(ValueError, match="none of its own"):
        Entry.read(path.parent, KEY)
    assert not list(cache.find(KEY, ["features"]))
    assert not opened


def test_an_entry_under_another_key_is_refused(cache):
    put(cache)
    with pytest.raises(ValueError, match="another format or key"):
        Entry.read(only(cache).folder, "cd" * 32)


def test_float16_takes_half_the_space_and_says_its_error(tmp_path):
    values = torch.randn(4000, 32, generator=torch.Generator().manual_seed(1))
    exact, half = FeatureCache(tmp_path / "a"), FeatureCache(tmp_path / "b", dtype="float16")
    for cache in (exact, half):
        put(cache, values=values)
    assert half.entries()[0].size < 0.6 * exact.entries()[0].size
    entry = only(half)
    rounded = entry.rows("features", torch.arange(4000))
    assert rounded.dtype == torch.float32
    assert entry.error == pytest.approx(float((rounded - values).norm() / values.norm()), rel=1e-4)
    assert 1e-5 < entry.error < 1e-3
    assert not list(FeatureCache(half.folder).find(KEY, ["features"]))  # who asks for exact ones does not get them
    put(FeatureCache(half.folder), values=values)
    assert only(half).error == 0.0


def test_what_float16_cannot_hold_stays_exact(tmp_path):
    cache = FeatureCache(tmp_path, dtype="float16")
    put(cache, values=VALUES * 1e6)
    entry = only(cache)
    assert entry.error == 0.0
    assert torch.equal(entry.rows("features", torch.arange(10)), VALUES * 1e6)


def test_what_was_not_used_for_the_longest_time_goes_first(cache):
    for number, key in enumerate(("aa" * 32, "bb" * 32, "cc" * 32)):
        put(cache, key)
        os.utime(only(cache, key).folder / "entry.json", (number, number))
    cache.max_bytes = 3.5 * cache.entries()[0].size
    only(cache, "aa" * 32)  # used now
    put(cache, "dd" * 32)
    left = {entry.path.parent.name[:2] for entry in cache.entries()}
    assert left == {"aa", "cc", "dd"}


def test_parts_that_are_missing_make_no_entry(cache):
    writer = cache.writer(KEY)
    writer.add(VALUES, None)
    writer.finish()
    assert not cache.finish(writer, {}, {}, num_samples=11, seconds=1.0, notes={})
    writer.discard()
    assert cache.entries() == []
    assert not list((cache.folder / "unfinished").glob("*/*"))


def test_a_pass_goes_on_where_writing_fails(cache, monkeypatch):
    writer = cache.writer(KEY)
    monkeypatch.setattr(store, "_SHARD", 1)
    monkeypatch.setattr(store, "_save", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    writer.add(VALUES, None)
    writer.add(VALUES, None)
    writer.finish()
    assert "No space left" in writer.failure
    assert not cache.finish(writer, {}, {}, num_samples=20, seconds=1.0, notes={})


def test_features_of_another_shape_are_not_kept(cache):
    writer = cache.writer(KEY)
    writer.add(VALUES, None)
    writer.add(VALUES[:, :3], None)
    writer.finish()
    assert not cache.finish(writer, {}, {}, num_samples=20, seconds=1.0, notes={})


def test_what_dead_processes_left_is_deleted_after_a_day(cache):
    dead = cache.writer(KEY)
    dead.add(VALUES, None)
    alive = cache.writer("cd" * 32)
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(dead.folder, (long_ago, long_ago))
    put(cache)
    assert not dead.folder.exists()
    assert alive.folder.exists()


def test_clearing_leaves_what_is_of_somebody_else(cache):
    put(cache)
    cache.writer(KEY)
    mine = [cache.folder / name for name in ("features/notes.txt", "features/aa/bb/cc/entry.json", "unfinished/essay")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    size = cache.size()
    assert cache.clear() == size > 0
    assert cache.size() == 0
    assert all(path.read_text() == "mine" for path in mine)
    assert FeatureCache(cache.folder / "nowhere").clear() == 0


def test_whoever_waits_goes_on_when_the_other_ends_or_is_dead(cache):
    start = time.monotonic()
    with cache.turn(KEY), cache.turn("cd" * 32), cache.turn(KEY, patience=0.2):  # its holder gives no sign of life
        assert time.monotonic() - start < 5
    with cache.turn(KEY):
        pass


@pytest.mark.parametrize("word", ["off", "OFF", "0", "false"])
def test_the_environment_switches_the_default_off(monkeypatch, tmp_path, word):
    monkeypatch.setenv("LIGHTNING_TRANSFER_CACHE", word)
    assert FeatureCache.of(True) is None
    assert FeatureCache.of(tmp_path).folder == tmp_path


def test_folders_and_switches(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_TRANSFER_CACHE", str(tmp_path / "named"))
    assert FeatureCache.of(True).folder == tmp_path / "named"
    monkeypatch.delenv("LIGHTNING_TRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "lightning_transfer"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path("~/.cache/lightning_transfer").expanduser()
    assert FeatureCache.of(False) is FeatureCache.of(None) is None
    own = FeatureCache(tmp_path)
    assert FeatureCache.of(own) is own


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    monkeypatch.delenv("LIGHTNING_TRANSFER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert FeatureCache.of(True) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureCache.of(3), "`cache` to be True, False, a folder or a FeatureCache, but got 3"),
        (lambda: FeatureCache.of(""), "`cache` to be True"),
        (lambda: FeatureCache(dtype="float8"), "`dtype` to be one of"),
        (lambda: FeatureCache(max_bytes=0), "`max_bytes` to be a positive number, but got 0"),
        (lambda: FeatureCache(max_bytes="1"), "`max_bytes`"),
        (lambda: FeatureCache(3), "`folder` to be a path"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
