from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits, DrawnTriangles, Samples
from lightning_transfer.finetuning import FineTuningModule, adaptable_layers
from lightning_transfer.selection import Outcome, find_outcome
from lightning_transfer.selection.outcome import measure


def small_net(seed: int = 0) -> ModuleBackbone:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    return ModuleBackbone(net, input_shape=(1, 8, 8), head=None)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(max_samples=150, batch_size=32)


def test_full_fine_tuning_learns_and_leaves_the_backbone_alone(digits):
    backbone = small_net()
    before = copy.deepcopy(backbone.state_dict())
    options = {"epochs": 4, "learning_rates": [1e-5, 1e-2], "seeds": 2, "trainer": {"accelerator": "cpu"}}
    outcome = find_outcome(backbone, digits, **options)
    assert outcome.setting == 1e-2
    assert outcome.validation[1e-2] > outcome.validation[1e-5]
    assert len(outcome.values) == 2
    assert outcome.mean > 0.3
    assert outcome.spread >= 0
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = find_outcome(backbone, digits, **options)
    assert again.values == outcome.values
    assert torch.equal(torch.get_rng_state(), state)


def test_curves_are_of_all_validation_data_after_each_epoch(digits):
    trainer = {"accelerator": "cpu", "callbacks": None, "num_sanity_val_steps": 1, "check_val_every_n_epoch": 2}
    options = {"epochs": 2, "seeds": 1, "learning_rates": [1e-2, 1e-2]}
    outcome = find_outcome(small_net(), digits, trainer=trainer, **options)
    assert [len(curve) for curve in outcome.curves.values()] == [2]
    assert outcome.curves[1e-2][-1] == outcome.validation[1e-2]
    plain = find_outcome(small_net(), digits, trainer={"accelerator": "cpu"}, **options)
    assert (plain.values, plain.curves) == (outcome.values, outcome.curves)


def test_a_module_takes_the_shape_of_the_inputs(digits):
    assert find_outcome(nn.Flatten(), digits, mode="head").mean > 0.5
    module = FineTuningModule.for_target(nn.Flatten(), digits, mode="head")
    assert module.backbone.input_shape == (1, 8, 8)


def test_heads_need_no_seeds(digits):
    outcome = find_outcome(small_net(), digits, mode="head")
    assert len(outcome.values) == 1
    assert math.isnan(outcome.spread)
    assert outcome.mean > 0.5
    assert set(outcome.validation) == {0.01, 1.0, 100.0}


@pytest.mark.parametrize("truth", ["attributes", "corners"])
def test_heads_of_several_labels_and_targets(truth):
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    data = DrawnTriangles(truth, samples=120, image_size=32)
    outcome = find_outcome(ModuleBackbone(net, (3, 32, 32), head=None), data, mode="head")
    assert (0.4 if truth == "attributes" else 0.0) < outcome.mean <= 1


def test_measures():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert measure("classification", probabilities, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    assert measure("multilabel", probabilities, torch.tensor([[1, 0], [0, 1], [1, 0]])) == 1
    assert measure("regression", torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [3.0]])) == 1
    assert math.isnan(measure("classification", torch.full((3, 2), math.nan), torch.tensor([0, 1, 1])))
    unseen = torch.cat([probabilities, probabilities[:, :1]], dim=1)  # a label that no sample has
    assert measure("multilabel", unseen, torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0]])) == 1
    assert math.isnan(measure("multilabel", unseen, torch.zeros(3, 3)))


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e-8, 1e6])
def test_a_share_of_the_variance_has_no_unit(unit):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    outputs = truth + 0.5 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    expected = measure("regression", outputs, truth)
    assert 0.5 < expected < 0.9
    assert measure("regression", outputs * unit, truth * unit) == pytest.approx(expected, rel=1e-9)
    assert measure("regression", truth.mean(0).expand(50, 2) * unit, truth * unit) == pytest.approx(0, abs=1e-9)
    assert measure("regression", torch.zeros(3, 1), torch.zeros(3)) == 1
    assert measure("regression", torch.ones(3, 1), torch.zeros(3)) == 0


def test_outcomes_are_kept_as_text():
    outcome = Outcome("full", (0.5, 0.7), 1e-3, {1e-3: 0.6, 3e-3: math.nan}, 2.0)
    again = Outcome.from_dict(json.loads(json.dumps(outcome.to_dict(), allow_nan=False)))
    assert again.values == outcome.values
    assert again.validation[1e-3] == 0.6
    assert math.isnan(again.validation[3e-3])
    assert (again.mean, again.spread) == (pytest.approx(0.6), pytest.approx(0.1414, abs=1e-4))
    for wrong in ({}, {**outcome.to_dict(), "values": []}, {**outcome.to_dict(), "seconds": "x"}, []):
        with pytest.raises(ValueError, match="Expected an outcome"):
            Outcome.from_dict(wrong)


def test_bad_input(digits):
    with pytest.raises(ValueError, match="`mode`"):
        find_outcome(small_net(), digits, mode="half")
    with pytest.raises(ValueError, match="`learning_rates`"):
        find_outcome(small_net(), digits, learning_rates=[])
    with pytest.raises(ValueError, match="diverges at every"):
        find_outcome(small_net(), digits, epochs=1, learning_rates=[1e20], seeds=1)
    no_test = Samples((torch.zeros(8, 1, 8, 8).byte(), torch.arange(8) % 2))
    with pytest.raises(ValueError, match="split"):
        find_outcome(small_net(), no_test)


def make_transformer() -> ModuleBackbone:
    layer = nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 16), nn.Flatten())
    net = nn.Sequential(layer, nn.Linear(16, 4))
    return ModuleBackbone(net, input_shape=(1, 8, 8), head="1")


def test_lora_trains_adapters_alone():
    pytest.importorskip("peft")
    backbone = make_transformer()
    names = adaptable_layers(backbone)
    assert len(names) == 2
    module = FineTuningModule(backbone, num_outputs=3, mode="lora", lora_rank=2)
    learning = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in learning)
    assert len(learning) == 2 * 2 + 2
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameter_groups(), lr=1.0)
    inputs = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(module(inputs), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(before[name], value)}
    assert changed
    assert all("lora_" in name or name.startswith("head.") for name in changed)


def test_lora_needs_linear_layers():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    backbone = ModuleBackbone(net, input_shape=(1, 8, 8), head=None)
    assert adaptable_layers(backbone) == []
    with pytest.raises(ValueError, match="linear layers for `mode='lora'`"):
        FineTuningModule(backbone, num_outputs=3, mode="lora")
