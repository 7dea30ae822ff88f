from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from lightning_transfer.utilities.instantiate import EXTRA_VARIABLE, check_target, find_targets, instantiate


def test_builds_nested_objects_with_plain_containers():
    config = OmegaConf.create(
        {
            "width": 3,
            "net": {
                "_target_": "torch.nn.Sequential",
                "_args_": [
                    {"_target_": "torch.nn.Linear", "in_features": "${width}", "out_features": 2},
                    {"_target_": "torch.nn.ReLU"},
                ],
            },
        }
    )
    net = instantiate(config.net)
    assert net(torch.ones(1, 3)).shape == (1, 2)
    partial = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert partial(net.parameters()).defaults["lr"] == 0.5


def test_keyword_arguments_reach_the_object():
    layer = instantiate({"_target_": "torch.nn.Linear", "in_features": 2}, out_features=5)
    assert layer.out_features == 5


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "pickle.loads",
        "lightning.pytorch.cli.instantiate_class",  # builds anything from a dict
        "lightning_transfer.utilities.imports.require",  # imports anything
        "lightning_transfer.utilities.instantiate.instantiate",
        "torch.nn.modules.module.torch.load",  # something else, reached through an allowed module
        "torch.optim.optimizer.torch.hub.load",
        "torch.nn.functional.importlib.import_module",
        "lightning.pytorch.callbacks.callback.Any",
        "torchmetrics.metric.inspect.getsource",
        "torchmetrics.utilities.checks.check_forward_full_state_property",
        "torch.nn.Module.__init_subclass__",
        "torch.nn.modules",  # no class or function
        "torchx.nn.Linear",
        "torch.nnn.Linear",
        "",
    ],
)
def test_refuses_what_is_not_ours_to_build(target):
    with pytest.raises(ValueError, match=r"is not allowed here|does not exist"):
        check_target(target)


def test_refuses_before_anything_is_built(tmp_path):
    witness = tmp_path / "witness"
    touch = {"_target_": "pathlib.Path.touch", "self": str(witness)}
    config = {
        "_target_": "torch.nn.Sequential",
        "_args_": [{"_target_": "torch.nn.ReLU", "inplace": {"deep": [touch]}}],
    }
    with pytest.raises(ValueError, match=r"pathlib\.Path.touch"):
        instantiate(config)
    assert not witness.exists()


def test_names_what_is_missing():
    with pytest.raises(
        ValueError, match=r"`_target_: torch\.nn.Linnear` does not exist; did you mean torch\.nn\.Linear\?"
    ):
        instantiate({"_target_": "torch.nn.Linnear"})
    with pytest.raises(ValueError, match=r"`_target_: torch\.nn.Zzzzz` does not exist\.$"):
        instantiate({"_target_": "torch.nn.Zzzzz"})
    with pytest.raises(ValueError, match="Expected `_target_` to be a dotted name, but got 3"):
        instantiate({"_target_": 3})


def test_names_the_argument_that_was_meant():
    digits = {"_target_": "lightning_transfer.data.Digits"}
    with pytest.raises(TypeError, match="Digits takes no `max_sample`; did you mean `max_samples`"):
        instantiate({**digits, "max_sample": 3})
    with pytest.raises(TypeError, match=r"Digits takes no `zzz`; known are .*classes"):
        instantiate({**digits, "zzz": 3})
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 3})
    with pytest.raises(ValueError, match="Expected argument `max_samples`"):  # of a name that is known
        instantiate({**digits, "max_samples": -3})


def test_missing_values_are_named():
    config = OmegaConf.create({"layer": {"_target_": "torch.nn.Linear", "in_features": "???", "out_features": 1}})
    with pytest.raises(ValueError, match=r"Missing mandatory value: in_features"):
        instantiate(config.layer)


def test_the_objects_own_error_comes_through():
    with pytest.raises(ValueError, match="Invalid learning rate"):
        instantiate({"_target_": "torch.optim.SGD", "params": [torch.nn.Parameter(torch.zeros(1))], "lr": -1.0})
    with pytest.raises(TypeError):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 2})


def test_own_packages_by_argument_and_by_environment(monkeypatch):
    config = {"_target_": "fractions.Fraction", "_args_": [1, 2]}
    with pytest.raises(ValueError, match=EXTRA_VARIABLE):
        instantiate(config)
    assert instantiate(config, allow=("fractions",)) == 0.5
    monkeypatch.setenv(EXTRA_VARIABLE, "decimal, fractions")
    assert instantiate(config) == 0.5


def test_find_targets_sees_every_level():
    config = {"a": [{"_target_": "x.A", "b": {"_target_": "x.B"}}], "c": 1, "_args_": ({"_target_": "x.C"},)}
    assert sorted(find_targets(config)) == ["x.A", "x.B", "x.C"]


def test_a_flag_is_true_or_false():
    node = {"_target_": "lightning_transfer.backbones.EfficientNetLite", "pretrained": "nope", "input_size": 64}
    with pytest.raises(ValueError, match="`pretrained` to be true or false, but got 'nope'"):
        instantiate(node)
