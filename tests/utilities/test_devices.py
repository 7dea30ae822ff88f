"""Jobs side by side on a machine with several GPUs, by a count that is made up."""

from __future__ import annotations

import multiprocessing
import tempfile

import pytest
import torch

from lightning_transfer.utilities import devices
from lightning_transfer.utilities.devices import own_gpu

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "_held", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def job(number, told, go):
    told.put((number, own_gpu({"devices": 1}, number), own_gpu({"devices": 1}, number + 1)))
    go.wait(60)


def run_jobs(numbers):
    """What jobs that run at the same time, started one after the other, take."""
    told, go, found, processes = FORK.Queue(), FORK.Event(), {}, []
    for number in numbers:
        processes.append(FORK.Process(target=job, args=(number, told, go)))
        processes[-1].start()
        name, first, again = told.get(timeout=60)
        found[name] = first["devices"]
        assert len(numbers) > 2 or first == again  # the next job of a process is where the first was
    go.set()
    for process in processes:
        process.join(60)
    return found


def test_jobs_that_run_at_once_have_a_gpu_each_whatever_their_numbers(two_gpus):
    assert run_jobs([4, 6]) == {4: [0], 6: [1]}
    assert run_jobs([7, 5]) == {7: [0], 5: [1]}  # those that ended have let theirs go
    assert run_jobs([0, 1, 3]) == {0: [0], 1: [1], 3: [1]}  # more jobs than GPUs


def test_jobs_that_see_other_gpus_do_not_wait_for_each_other(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert own_gpu({}, 0) == {"devices": [0]}
    assert sorted(path.name for path in two_gpus.rglob("*.lock")) == ["2.lock"]


@pytest.mark.parametrize(
    "trainer", [{"accelerator": "cpu"}, {"devices": 2}, {"devices": "auto"}, {"devices": [1]}, {"accelerator": "mps"}]
)
def test_what_was_asked_for_stays(two_gpus, trainer):
    assert own_gpu(trainer, 1) == {}


def test_without_a_place_for_files_the_number_says(two_gpus, monkeypatch):
    (two_gpus / f"lightning-transfer-gpus-{getattr(devices.os, 'getuid', int)()}").write_text("")
    assert [own_gpu({}, number)["devices"] for number in (0, 1, 2)] == [[0], [1], [0]]


def test_one_gpu_or_none_leaves_no_choice(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert own_gpu({}, 1) == {}
