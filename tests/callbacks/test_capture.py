"""Reading features off a running module."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_transfer.callbacks.capture import Capture, average_positions, find_layer, is_compiled

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def _hooks(net):
    return sum(len(child._forward_hooks) + len(child._forward_pre_hooks) for child in net.modules())


@pytest.mark.parametrize(("layer", "width"), [(None, 6), ("2", 6), ("1", 6), ("0", 6)])
def test_features_are_those_before_anything_works_in_place(layer, width):
    net, capture = _net(), None
    capture = Capture(net, layer)
    capture.active = True
    net(X)
    features, source_outputs = capture.take()
    expected = _net()[0](X) if layer == "0" else _net()[:2](X)
    torch.testing.assert_close(features, expected)
    assert features.shape == (5, width)
    assert not features.requires_grad
    assert source_outputs is None
    assert capture.take() == (None, None)


def test_hooks_are_there_only_while_active():
    net = _net()
    capture = Capture(net)
    assert _hooks(net) == 0
    for _ in range(2):
        capture.active = True
        assert _hooks(net) == 1
        net(X)
        capture.active = False
        assert _hooks(net) == 0
        assert capture.take() == (None, None)
    torch.jit.script(net)
    pickle.dumps(copy.deepcopy(net))


@pytest.mark.parametrize("how", ["wrapped", "in_place", "method", "part"])
def test_compiled_modules_keep_their_hooks(how):
    net = _net()
    assert not is_compiled(net)
    if how == "in_place":
        net.compile(backend="eager")
    elif how == "method":
        net.forward = torch.compile(net.forward, backend="eager")
    elif how == "part":
        net[0] = torch.compile(net[0], backend="eager")
    root = torch.compile(net, backend="eager") if how == "wrapped" else net
    assert is_compiled(root)
    capture = Capture(root)
    assert _hooks(net) == 1
    root(X)
    assert capture.take() == (None, None)
    capture.active = True
    root(X)
    torch.testing.assert_close(capture.take()[0], _net()[:2](X))
    capture.active = False
    assert _hooks(net) == 1
    capture.remove()
    assert _hooks(net) == 0


def test_layers_by_name():
    net = _net()
    assert find_layer(net) == (net[2], True)
    assert find_layer(torch.compile(net), "1") == (net[1], False)
    with pytest.raises(ValueError, match=r"such as .*'7'"):
        find_layer(net, "7")
    with pytest.raises(ValueError, match=r"no `torch\.nn\.Linear`"):
        find_layer(nn.ReLU())


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((4, 3), (4,), (4, 3)),
        ((4, 7, 3), (4,), (4, 3)),
        ((4, 7, 3), (4, 7), (4, 7, 3)),
        ((4, 3, 5, 6), (4,), (4, 3)),
        ((4, 3, 5, 6), (4, 5, 6), (4, 3, 5, 6)),
        ((4, 3, 5, 6), None, (4, 3)),
    ],
)
def test_positions_are_averaged_unless_they_have_labels(shape, labels, expected):
    features = torch.randn(shape, dtype=torch.bfloat16)
    pooled = average_positions(features, None if labels is None else torch.zeros(labels))
    assert pooled.shape == expected
    assert pooled.dtype == torch.float32


def test_weights_are_those_that_the_features_depend_on():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    below = [*net[0].parameters(), *net[1].parameters(), *net[1].buffers()]
    assert {id(part) for part in Capture(net).weights()} == {id(part) for part in below}
    assert len(Capture(net, "1").weights()) == len(below) + 2  # a head is not known there
    tied = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5, bias=False))
    tied[1].weight = tied[0].weight
    assert [id(part) for part in Capture(tied).weights()] == [id(tied[0].weight)]
