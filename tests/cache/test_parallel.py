"""Several processes at one cache: side by side, killed, and as ranks of one pass."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings

import pytest
import torch
from _cached import Net, backbone, data, seen

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.cache import CachedPasses, FeatureCache, store

KEYS = ["aa" * 32, "bb" * 32, "cc" * 32]
FORK = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else None)
pytestmark = pytest.mark.skipif(FORK.get_start_method() != "fork", reason="Windows has no fork, which these need")


def values_of(key: str) -> torch.Tensor:
    return torch.full((50, 3), float(KEYS.index(key)))


def in_processes(count: int, work, *arguments) -> list[int]:
    processes = [FORK.Process(target=work, args=(number, *arguments)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def write_and_read(number: int, folder) -> None:
    cache = FeatureCache(folder, max_bytes=3500)  # room for two entries: they delete each other's
    for turn in range(6):
        key = KEYS[(number + turn) % len(KEYS)]
        writer = cache.writer(key)
        writer.add(values_of(key), None)
        writer.finish()
        assert cache.finish(writer, {}, {"features": torch.ones(2, 3)}, num_samples=50, seconds=1.0, notes={})
        for entry in cache.find(key, ["features"]):
            assert torch.equal(entry.rows("features", torch.arange(50)), values_of(key))
    os._exit(0)


def test_eight_processes_write_read_and_delete_at_once(tmp_path):
    assert in_processes(8, write_and_read, tmp_path) == [0] * 8
    cache = FeatureCache(tmp_path)
    entries = cache.entries()
    assert 1 <= len(entries) <= 2
    for cached in entries:
        key = cached.path.parent.name
        (entry,) = cache.find(key, ["features"])
        assert torch.equal(entry.rows("features", torch.arange(50)), values_of(key))
    assert not list(cache.folder.glob("unfinished/*/*"))


def pass_over(number: int, folder, counts) -> None:
    net = backbone()
    result = CachedPasses(FeatureCache(folder))(net, data(), keep=["features"])
    counts.put((seen(net), result.kept["features"].sum().item()))
    counts.close()
    counts.join_thread()
    os._exit(0)


def test_of_processes_with_the_same_pass_one_runs_it_and_the_others_wait(tmp_path):
    counts = FORK.Queue()
    assert in_processes(4, pass_over, tmp_path, counts) == [0] * 4
    found = [counts.get(timeout=10) for _ in range(4)]
    assert sorted(count for count, _ in found) == [0, 0, 0, 30]
    assert len({total for _, total in found}) == 1


def stop_midway(_: int, folder, reached) -> None:
    cache = FeatureCache(folder)
    with cache.turn(KEYS[0]):
        store._SHARD = 1
        writer = cache.writer(KEYS[0])
        writer.add(values_of(KEYS[0]), None)
        reached.set()
        time.sleep(60)


def test_a_killed_process_leaves_no_entry_and_nobody_waits_for_it(tmp_path):
    reached = FORK.Event()
    process = FORK.Process(target=stop_midway, args=(0, tmp_path, reached))
    process.start()
    assert reached.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    cache = FeatureCache(tmp_path)
    assert list(cache.folder.rglob("rank0-0.safetensors"))
    assert cache.entries() == []
    start = time.monotonic()
    with cache.turn(KEYS[0]):
        assert time.monotonic() - start < 30  # seconds without a sign of life would be 60


@pytest.mark.ddp
def test_ranks_write_their_own_shards_and_any_number_of_processes_reads_them(tmp_path):
    cache = FeatureCache(tmp_path)
    two = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_spawn"}
    options = {"keep": ["features", "labels"]}
    net = ModuleBackbone(Net(), (12,), name="net", preprocessing=None)
    plain = CachedPasses(None)(net, data(31), **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(not cached|cache of features is not|Features are not).*")
        first = CachedPasses(cache)(net, data(31), trainer=two, **options)
        seen(net)
        assert {path.name[:5] for path in tmp_path.rglob("*.safetensors")} == {"rank0", "rank1", "answe"}
        again = CachedPasses(cache)(net, data(31), trainer=two, **options)
        alone = CachedPasses(cache)(net, data(31), trainer={"accelerator": "cpu"}, **options)
    assert [first.cached, again.cached, alone.cached] == [False, True, True]
    assert seen(net) == 0
    for result in (first, again, alone):
        assert result.num_samples == 31
        assert torch.equal(result.kept["labels"], plain.kept["labels"])
        torch.testing.assert_close(result.kept["features"], plain.kept["features"])
    assert torch.equal(first.kept["features"], alone.kept["features"])
