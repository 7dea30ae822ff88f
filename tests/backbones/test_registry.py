from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import nn

import lightning_transfer
from lightning_transfer.backbones import Backbone, EfficientNetLite, ModuleBackbone, known_backbones, load_backbone

CONF = Path(lightning_transfer.__file__).parents[1] / "conf"


def _compose(*overrides):
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        return compose(overrides=list(overrides))


def test_a_name_with_overrides():
    backbone = load_backbone("efficientnet_lite1", pretrained=False, input_size=64)
    assert isinstance(backbone, EfficientNetLite)
    assert backbone.input_shape == (3, 64, 64)


def test_an_unknown_name_lists_what_is_known():
    with pytest.raises(ValueError, match=r"efficientnet_lite0, .*timm/<model>"):
        load_backbone("resnet_fifty")
    assert {"efficientnet_lite2_random", "transformers/<model>"} <= set(known_backbones())


def test_a_module_is_wrapped_and_a_backbone_returned():
    backbone = load_backbone(nn.Linear(3, 2), input_shape=(3,))
    assert isinstance(backbone, ModuleBackbone)
    assert load_backbone(backbone) is backbone
    with pytest.raises(ValueError, match="seed"):
        load_backbone(backbone, seed=1)


def test_a_config_is_built():
    config = {"_target_": "lightning_transfer.backbones.EfficientNetLite", "pretrained": False, "input_size": 64}
    assert load_backbone(OmegaConf.create(config), variant=2).name == "efficientnet_lite2_random"
    module = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    target = "lightning_transfer.backbones.ModuleBackbone"
    assert load_backbone({"_target_": target, "module": module, "input_shape": [3]}).feature_dim == 3


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "backbone").glob("*.yaml")))
def test_every_backbone_config_names_existing_arguments(name):
    import inspect

    config = _compose(f"+backbone={name}").backbone
    cls = getattr(lightning_transfer.backbones, config["_target_"].rpartition(".")[2])
    accepted = {p for parent in cls.__mro__[:2] for p in inspect.signature(parent.__init__).parameters}
    assert issubclass(cls, Backbone)
    assert set(config) - {"_target_"} <= accepted


def test_the_default_zoo_pairs_every_network_with_its_control():
    zoo = _compose("+zoo=efficientnet_lite").zoo
    assert len(zoo) == 6
    for name, config in zoo.items():
        backbone = load_backbone(config, pretrained=False, input_size=64)
        assert backbone.name.removesuffix("_random") == name.removesuffix("_random")
        assert config.pretrained == (not name.endswith("_random"))


def test_a_checkpoint_config_is_built(tmp_path):
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    overrides = ["+backbone=checkpoint", f"backbone.path={tmp_path / 'w.pt'}", "backbone.input_shape=[3]"]
    module = "backbone.module={_target_: torch.nn.Linear, in_features: 3, out_features: 2}"
    assert load_backbone(_compose(*overrides, module).backbone).num_source_classes == 2
