"""Random copies of a network."""

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone, reinitialise
from tests.backbones._networks import Net


def test_the_control_is_a_random_copy():
    module = Net()
    with torch.no_grad():
        module.body[1].running_mean.fill_(3.0)
    weight = module.body[0].weight.clone()
    rng = torch.get_rng_state()
    control = ModuleBackbone(module, (3, 16, 16), pretrained=False, seed=1)
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(module.body[0].weight, weight)
    assert not torch.equal(control.module.body[0].weight, weight)
    assert not control.module.body[1].running_mean.any()
    again = ModuleBackbone(module, (3, 16, 16), pretrained=False, seed=1)
    assert torch.equal(control.module.body[0].weight, again.module.body[0].weight)
    assert control.name == "net_random"


def test_parameters_without_a_reset_are_drawn_too():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.full((50, 40), 7.0))
            self.weight = nn.Parameter(torch.full((3,), 7.0))
            self.shift = nn.Parameter(torch.full((3,), 7.0))

    custom = reinitialise(Custom(), seed=0)
    assert float(custom.table.detach().std()) == pytest.approx(40**-0.5, rel=0.1)
    assert torch.equal(custom.weight, torch.ones(3))
    assert torch.equal(custom.shift, torch.zeros(3))
