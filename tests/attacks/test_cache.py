"""A cache of features that somebody else filled: entries that lie are left out, and no row is lost over one."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from lightning_transfer.cache import FeatureCache
from lightning_transfer.cache import store as cache_store
from lightning_transfer.cache.files import hash_file
from lightning_transfer.jobs import cache as job

KEY = "ab" * 32
VALUES = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


def put(cache: FeatureCache, values: torch.Tensor = VALUES, key: str = KEY) -> bool:
    writer = cache.writer(key)
    writer.start(0, writer.folder)
    writer.add(values, None)
    writer.finish()
    return cache.finish(
        writer, {"backbone": "net"}, {"features": values[:2]}, num_samples=len(values), seconds=1.0, notes={}
    )


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    assert put(cache)
    return cache


def change(cache: FeatureCache, edit) -> None:
    """Let the entry lie, with a checksum that fits."""
    (path,) = cache.folder.glob("features/*/*/*/entry.json")
    manifest = json.loads(path.read_text())
    manifest.pop("checksum")
    edit(manifest, path.parent)
    path.write_text(cache_store._encode(manifest))


def entry_of(name: str, value):
    return lambda manifest, folder: manifest.__setitem__(name, value)


def shard_of(content: bytes | dict):
    def edit(manifest, folder):
        (shard,) = manifest["ranks"][0]
        path = folder / shard["file"]
        save_file(content, path) if isinstance(content, dict) else path.write_bytes(content)
        shard["hash"] = hash_file(path)

    return edit


def fifo(manifest, folder):
    path = folder / manifest["ranks"][0][0]["file"]
    path.unlink()
    os.mkfifo(path)


def link(manifest, folder):
    path = folder / manifest["ranks"][0][0]["file"]
    path.unlink()
    path.symlink_to("/dev/zero")


LIES = {
    "batches without end": entry_of("batches", [[1, 10**12]]),
    "batches of another sum": entry_of("batches", [[5, 1]]),
    "batches of no numbers": entry_of("batches", "abc"),
    "a negative batch": entry_of("batches", [[-5, 2], [10, 2]]),
    "samples without end": entry_of("num_samples", 10**15),
    "samples in words": entry_of("num_samples", "ten"),
    "an error in words": entry_of("error", "none"),
    "an error that is no number": entry_of("error", [1]),
    "seconds in a list": entry_of("seconds", []),
    "notes that are none": entry_of("notes", 3),
    "widths without end": entry_of("widths", {"features": 2**40}),
    "widths in words": entry_of("widths", {"features": "four"}),
    "another tensor": entry_of("widths", {"other": 4}),
    "no shards": entry_of("ranks", []),
    "a shard that is none": entry_of("ranks", [[3]]),
    "more rows than there are": lambda m, _: m["ranks"][0][0].__setitem__("rows", 10**9),
    "fewer rows": lambda m, _: m["ranks"][0][0].__setitem__("rows", 3),
    "a shard above": lambda m, _: m["ranks"][0][0].__setitem__("file", "../../../x.safetensors"),
    "a largest batch of nothing": entry_of("largest_batch", 0),
    "a largest batch without end": entry_of("largest_batch", 2**62),
    "a pickle as shard": shard_of(pickle.dumps({"features": 1})),
    "a header without end": shard_of((2**62).to_bytes(8, "little") + b"{"),
    "a header that lies": shard_of(
        (lambda h: len(h).to_bytes(8, "little") + h)(
            b'{"features":{"dtype":"F32","shape":[99999999999,4],"data_offsets":[0,16]}}'
        )
        + bytes(16)
    ),
    "values of another shape": shard_of({"features": torch.zeros(3, 4)}),
    "values of one dimension": shard_of({"features": torch.zeros(40)}),
    "whole numbers": shard_of({"features": torch.zeros(10, 4, dtype=torch.int64)}),
    "a pipe as shard": fifo,
    "a device as shard": link,
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_entry_that_lies_is_no_entry(cache, lie, capsys):
    change(cache, lie)
    cache.entries()
    job.run([f"folder={cache.folder}"])
    assert list(cache.find(KEY, ["features"])) == []
    assert put(cache)  # and stands in nobody's way
    (entry,) = cache.find(KEY, ["features"])
    assert torch.equal(entry.rows("features", torch.arange(10)), VALUES)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("place", ["features/ab", f"features/ab/{KEY}", "unfinished", f"features/ab/{KEY}/{'0' * 32}"])
def test_links_lead_nowhere(tmp_path, place):
    other = tmp_path / "other"
    (other / ("0" * 32)).mkdir(parents=True)
    for file in (other / "kept", other / ("0" * 32) / "kept"):
        file.write_text("mine")
    cache = FeatureCache(tmp_path / "cache", max_bytes=1)
    link = cache.folder / place
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    list(cache.find(KEY, ["features"]))
    cache.entries()
    cache._evict()
    cache.clear()
    assert (other / "kept").read_text() == "mine"
    assert (other / ("0" * 32) / "kept").read_text() == "mine"


def test_names_of_an_entry_are_shown_plain(cache, capsys):
    change(cache, entry_of("about", {"backbone": "\x1b]0;x\x07[bold]", "data": "a\nb", "split": {"x": 1}}))
    job.run([f"folder={cache.folder}"])
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07"}
    assert len(shown.splitlines()) == 2


def _write(folder, number: int) -> None:
    for turn in range(3):
        put(FeatureCache(folder, max_bytes=2**30), VALUES + number + turn, KEY if number % 2 else f"{number:064x}")


def test_eight_writers_at_once_leave_whole_entries(tmp_path):
    folder = tmp_path / "cache"
    processes = [multiprocessing.get_context("fork").Process(target=_write, args=(folder, n)) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    cache = FeatureCache(folder)
    found = [entry for key in (KEY, *(f"{n:064x}" for n in (0, 2, 4, 6))) for entry in cache.find(key, ["features"])]
    assert len({entry.folder.parent for entry in found}) == 5
    assert len(found) == len(cache.entries()) == len(list(folder.glob("features/*/*/*")))
    assert not list(folder.glob("unfinished/" + "[0-9a-f]" * 32))
