"""Order and errors of what is handed on behind a GPU, with streams that stand in for one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.extraction import _FeaturePass, extract
from lightning_transfer.metrics.registry import build_metrics
from lightning_transfer.utilities import overlap
from lightning_transfer.utilities.overlap import LateLooks, OneBehind, look


class _Stream:
    def __init__(self, device=None):
        self.calls = []

    def __getattr__(self, name):
        return lambda *_: self.calls.append(name)


@pytest.fixture
def streams(monkeypatch):
    """Streams and events that are there at once; tensors let themselves be noted for one."""
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "Event", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: stream.calls.append("noted"))


def test_values_of_another_device_are_handed_on_as_they_are(streams):
    taken = []
    behind = OneBehind(torch.device("meta"), lambda number, values: taken.append(values["groups"].tolist()))
    behind.put(0, {"groups": torch.tensor([3, 1])})
    behind.finish()
    assert taken == [[3, 1]]
    assert "noted" not in behind._stream.calls


def test_each_batch_is_handed_on_once_in_order_and_as_it_was(streams):
    taken = []
    behind = OneBehind(torch.device("cpu"), lambda number, values: taken.append((number, values["x"].tolist())))
    buffer = torch.zeros(1)
    for number in range(3):
        buffer.fill_(number)  # a loader that uses its memory again
        behind.put(number, {"x": buffer})
        assert [name for name, _ in taken] == list(range(number))
    behind.finish()
    behind.finish()
    assert taken == [(0, [0.0]), (1, [1.0]), (2, [2.0])]
    assert behind._stream.calls.count("noted") == 3


def test_a_batch_that_was_refused_is_not_handed_on_again(streams):
    def refuse(number, values):
        raise ValueError(f"batch {number}")

    behind = OneBehind(torch.device("cpu"), refuse)
    behind.put(0, {"x": torch.ones(1)})
    with pytest.raises(ValueError, match="batch 0"):
        behind.put(1, {"x": torch.ones(1)})
    behind.finish()


class _Arrives(LateLooks):
    """Numbers that are on their way until somebody waits."""

    def note(self, judge, numbers):
        event = _Stream()
        self._open.append((self._number, judge, numbers, event))
        event.__dict__["query"] = lambda: False


def test_numbers_are_judged_when_they_are_there_and_for_their_batch(monkeypatch):
    def judge(numbers):
        if numbers[0] > 1:
            raise ValueError(f"got {numbers[0]}")

    with pytest.raises(ValueError, match="got 2"):
        look(torch.tensor([2.0]), judge)
    late = _Arrives()
    monkeypatch.setattr(overlap, "look", lambda numbers, judge: overlap._LATE.get().note(judge, numbers))
    for number, value in enumerate([0.0, 3.0, 4.0]):
        with late.during(number):
            overlap.look(torch.tensor([value]), judge)
        assert late.judge() is None
    assert overlap._LATE.get() is None
    number, error = late.judge(wait=True)
    assert (number, str(error)) == (1, "got 3.0")


def test_a_pass_that_is_one_behind_finds_the_same_and_names_the_batch(streams, monkeypatch):
    original = _FeaturePass.begin

    def begin(self):
        original(self)
        self._behind = OneBehind(self.device, self._take)

    backbone = ModuleBackbone(nn.Linear(4, 3), input_shape=(4,), head=None, name="net")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 4, generator=generator)
    batches = list(zip(features.split(4), torch.arange(12).remainder(3).split(4), strict=True))
    names = ["h_score_shrunk", "knn_accuracy"]

    def run(batches):
        return extract(backbone, batches, build_metrics(names), keep=("labels",))

    before = run(batches)
    monkeypatch.setattr(_FeaturePass, "begin", begin)
    after = run(batches)
    assert after.num_samples == 12
    assert torch.equal(after.kept["labels"], before.kept["labels"])
    assert after.metrics.compute() == before.metrics.compute()
    batches[1] = (batches[1][0], torch.tensor([0, 1, -2, 0]))
    with pytest.raises(ValueError, match=r"net, batch 1: .*class ids from 0"):
        run(batches)
