from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from _training import Points, random_state
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Subset

from lightning_transfer.utilities.isolation import find_random_sources, preserve_modules, preserve_rng, run_eagerly


def _draw() -> None:
    torch.rand(3), np.random.rand(3), random.random()


@pytest.mark.parametrize("raises", [False, True])
def test_global_random_states_come_back(raises):
    before = random_state()
    try:
        with preserve_rng():
            _draw()
            assert random_state() != before
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert random_state() == before


@pytest.mark.parametrize(
    "source",
    [torch.Generator(), np.random.default_rng(0), np.random.RandomState(0), random.Random(0)],
    ids=["torch", "numpy", "numpy_old", "python"],
)
def test_generators_of_the_users_own_come_back(source):
    def draw() -> float:
        if isinstance(source, torch.Generator):
            return float(torch.rand((), generator=source))
        return float(source.random_sample() if isinstance(source, np.random.RandomState) else source.random())

    with preserve_rng(source):
        first = draw()
    assert draw() == first


def test_random_sources_are_found_in_loaders_and_what_they_wrap():
    points, generator, other = Points(10), torch.Generator(), torch.Generator()
    loader = DataLoader(Subset(points, range(5)), sampler=RandomSampler(points, generator=generator), generator=other)
    found = find_random_sources(loader, None, "text", loader)
    assert {id(source) for source in found} == {id(points.rng), id(generator), id(other)}


@pytest.mark.parametrize("raises", [False, True])
def test_modes_and_buffers_come_back(raises):
    net = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.BatchNorm1d(3), nn.Dropout().eval())
    net[1].register_buffer("replaced", torch.zeros(2))
    net[1].register_buffer("absent", None)
    modes = [child.training for child in net.modules()]
    before, kept = {name: value.clone() for name, value in net.state_dict().items()}, net[1].replaced
    try:
        with preserve_modules(net):
            net.train()
            net(torch.randn(8, 3))
            net[1].replaced = torch.ones(2)
            if raises:
                raise ValueError("in the middle")
    except ValueError:
        assert raises
    assert [child.training for child in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[1].replaced is kept


def test_buffers_come_back_under_inference_mode():
    net = nn.BatchNorm1d(3)
    with torch.inference_mode(), preserve_modules(net):
        net(torch.randn(8, 3))
    assert torch.equal(net.running_mean, torch.zeros(3))
    net(torch.randn(8, 3)).sum().backward()


def test_compiled_modules_run_eagerly_inside():
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    compiled = torch.compile(nn.Linear(2, 2), backend=backend)
    with run_eagerly():
        compiled(torch.ones(1, 2))
    assert not calls
    compiled(torch.ones(1, 2))
    assert len(calls) == 1
