"""What every backbone does: repeat itself, count its cost, leave no trace."""

import copy

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.backbones.base import repeats
from tests.backbones._networks import Net, Tokens


def test_attention_counts_as_operations():
    backbone = ModuleBackbone(Tokens(), (5, 8))
    projections = 2 * 5 * 8 * 8 * 4
    attention = 2 * 2 * 5 * 5 * 8
    mlp = 2 * 2 * 5 * 8 * 16
    assert backbone.cost(measure=False).flops == projections + attention + mlp


def test_a_network_that_draws_at_random_in_evaluation_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, training=True)

    with pytest.raises(ValueError, match="noisy gives different values for the same inputs in two passes"):
        ModuleBackbone(Noisy(), (8,))


def test_building_leaves_the_module_as_it_was():
    module = Net().train()
    module.body.eval()
    state = copy.deepcopy(module.state_dict())
    rng = torch.get_rng_state()
    ModuleBackbone(module, (3, 16, 16))
    assert torch.equal(rng, torch.get_rng_state())
    assert module.training
    assert not module.body.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(not child._forward_hooks for child in module.modules())


def test_passes_without_numbers_are_compared_all_the_same():
    assert repeats(torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0]))
    assert not repeats(torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 2.0]))
