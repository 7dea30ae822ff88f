from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits
from lightning_transfer.extraction import extract
from lightning_transfer.screening import screen
from lightning_transfer.utilities.optimization import check_optimizations, optimized


@pytest.fixture
def convolution():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 6)
    return ModuleBackbone(nn.Sequential(*layers), input_shape=(1, 8, 8), head="3")


@pytest.fixture
def compiled(monkeypatch):
    """Functions that were compiled, and how often each ran."""
    runs = []

    def note(function):
        def run(*args):
            runs.append(function)
            return function(*args)

        return run

    monkeypatch.setattr(torch, "compile", note)
    return runs


def _layout(backbone):
    weight = next(parameter for parameter in backbone.parameters() if parameter.ndim == 4)
    return weight.stride()


@pytest.mark.parametrize("optimize", ["channels_last", "compile", ("compile", "channels_last")])
def test_features_are_those_of_the_plain_network(convolution, compiled, optimize):
    data, before = Digits(max_samples=40, batch_size=20), _layout(convolution)
    plain = extract(convolution, data, keep=("features",)).kept["features"]
    fast = extract(convolution, data, keep=("features",), optimize=optimize).kept["features"]
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    assert len(compiled) == 2 * ("compile" in optimize)
    assert _layout(convolution) == before
    assert "encode" not in vars(convolution)


def test_layout_of_weights_while_it_lasts(convolution):
    weight = next(parameter for parameter in convolution.parameters() if parameter.ndim == 4)
    with optimized(convolution, ["channels_last"]):
        assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_network_that_fails_is_left_as_it_was(convolution, compiled):
    with pytest.raises(ZeroDivisionError), optimized(convolution, ["compile"]):
        raise ZeroDivisionError
    assert "encode" not in vars(convolution)


def test_a_screen_takes_it_and_remembers_it(convolution, compiled):
    data = Digits(max_samples=60)
    board = screen({"net": convolution}, data, "h_score", optimize=["compile"])
    assert board.settings["optimize"] == ["compile"]
    assert "optimize" not in screen({"net": convolution}, data, "h_score").settings
    assert compiled


@pytest.mark.parametrize("run", [screen, extract])
def test_unknown_names_are_refused(convolution, run):
    with pytest.raises(ValueError, match=r"`optimize` to hold some of .*but got \['magic'\]"):
        run(convolution, Digits(max_samples=60), optimize=["magic"])
    assert check_optimizations("compile") == ("compile",)
