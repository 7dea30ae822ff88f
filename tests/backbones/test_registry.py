from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import nn

import lightning_transfer
from lightning_transfer.backbones import (
    Backbone,
    EfficientNetLite,
    ModuleBackbone,
    check_name,
    expand_names,
    known_backbones,
    list_backbones,
    load_backbone,
)
from lightning_transfer.jobs.arguments import arrange
from lightning_transfer.jobs.list import run
from lightning_transfer.screening.candidates import name_candidates
from tests.backbones._libraries import SMALL, save_model

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
    assert {"efficientnet_lite2_random", "hf/<model>", "open_clip/<model>"} <= set(known_backbones())


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


CONFIGS = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml") if path.stem != "named")


@pytest.mark.parametrize("name", CONFIGS)
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


def test_names_of_libraries():
    for name in ("timm/test_resnet", "torchvision/shufflenet_v2_x0_5"):
        backbone = load_backbone(name, pretrained=False, input_size=64)
        assert backbone.name == name.partition("/")[2] + "_random"
    check_name("hf/google/vit-base-patch16-224")
    check_name("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(ValueError, match="did you mean efficientnet_lite2"):
        load_backbone("efficientnet_lite3")
    with pytest.raises(ValueError, match="takes no `pretraned`; did you mean `pretrained`"):
        load_backbone("efficientnet_lite0", pretraned=False)
    with pytest.raises(ValueError, match="`backbone` to be a name, path, config or module, but got 3"):
        load_backbone(3)
    with pytest.raises(ValueError, match="timm/test_resnet: "):
        load_backbone("timm/test_resnet", pretrained=False, depth=3)


def test_paths(tmp_path):
    path = tmp_path / "w.ckpt"
    torch.save(nn.Linear(3, 2).state_dict(), path)
    assert load_backbone(path, module=nn.Linear(3, 2), input_shape=(3,)).name == "w"
    with pytest.raises(ValueError, match="`module=`"):
        load_backbone(str(path))
    torch.jit.script(nn.ReLU()).save(tmp_path / "p.pt")
    assert load_backbone(tmp_path / "p.pt", input_shape=(4,)).feature_dim == 4
    with pytest.raises(ValueError, match=r"`config.json`"):
        load_backbone(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_backbone("./absent.ckpt")


def test_folders_that_libraries_saved(tmp_path):
    import timm
    from timm.models import save_for_hf
    from transformers import BertConfig

    network = timm.create_model("test_resnet", num_classes=5).eval()
    save_for_hf(network, tmp_path / "timm")
    loaded = load_backbone(tmp_path / "timm").eval()
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.network(images), network(images))
    assert (loaded.name, loaded.num_source_classes) == ("timm", 5)
    save_model(tmp_path / "hf", "BertModel", BertConfig(vocab_size=9, **SMALL))
    assert load_backbone(str(tmp_path / "hf")).feature_dim == 16


@pytest.mark.parametrize(
    ("pattern", "expected", "size"),
    [
        ("timm/test_resnet*", "timm/test_resnet.r160_in1k", (3, 160, 160)),
        ("torchvision/shufflenet_v2_x0_*", "torchvision/shufflenet_v2_x0_5", (3, 224, 224)),
        ("open_clip/RN50x4/*", "open_clip/RN50x4/openai", (3, 288, 288)),
        ("efficientnet_lite?", "efficientnet_lite0", None),
    ],
)
def test_patterns_list_what_there_is(pattern, expected, size):
    first = list_backbones(pattern)[0]
    assert (first.name, first.input_size) == (expected, size)


def test_patterns_with_a_limit_and_in_lists():
    small = [listed.name for listed in list_backbones("torchvision/shufflenet*", max_parameters=3e6)]
    assert small == ["torchvision/shufflenet_v2_x0_5", "torchvision/shufflenet_v2_x1_0"]
    assert list_backbones("timm/test_resnet*")[0].parameters == sum(
        p.numel() for p in load_backbone("timm/test_resnet", pretrained=False).parameters()
    )
    module = nn.Linear(3, 2)
    assert expand_names(["torchvision/shufflenet*", module, "./a*b"], 3e6) == [*small, module, "./a*b"]
    assert expand_names(["torchvision/shufflenet*", module, "torchvision/shufflenet_v2_x0*"], 3e6) == [*small, module]
    for pattern in ("timm/no_such*", "nowhere/*"):
        with pytest.raises(ValueError, match="pattern"):
            list_backbones(pattern)
    with pytest.raises(ValueError, match="`max_parameters` to be a number"):
        list_backbones("*", "3M")


def test_a_screen_takes_patterns():
    named = name_candidates(["torchvision/shufflenet_v2_x0*", "timm/test_resnet"])
    assert list(named) == ["torchvision/shufflenet_v2_x0_5", "timm/test_resnet"]


def test_what_is_typed():
    assert arrange(["zoo=[timm/vit*,hf/a/b]", "target=x"]) == [
        "zoo=named",
        "zoo.names=['timm/vit*',hf/a/b]",
        "target=x",
    ]
    assert arrange(["backbone=[a,b]"]) == ["zoo=named", "zoo.names=[a,b]"]
    assert arrange(["backbone=timm", "backbone.seed=1"]) == ["backbone=timm", "backbone.seed=1"]
    config = _compose("+zoo=named", "zoo.names=['timm/vit*',hf/a/b]").zoo
    assert list(config.names) == ["timm/vit*", "hf/a/b"]
    built = load_backbone(
        _compose("+backbone=named", "backbone.backbone=timm/test_vit", "++backbone.pretrained=false").backbone
    )
    assert built.name == "test_vit_random"


def test_list_prints_names_parameters_and_sizes(capsys):
    run(["torchvision/shufflenet*", "max_parameters=3e6"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["torchvision/shufflenet_v2_x0_5", "1.4", "M", "3x224x224"]
    assert len(lines) == 2
    with pytest.raises(ValueError, match="max_parameters"):
        run(["max_parameters=few"])


def test_the_fingerprint_names_the_transform(tmp_path):
    prints = {
        load_backbone("timm/test_resnet", pretrained=False, pretrained_cfg_overlay={"crop_pct": pct}).fingerprint()
        for pct in (0.9, 0.95, 0.9)
    }
    assert len(prints) == 2


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2_random"])
def test_a_name_means_the_same_model_as_its_config(name):
    from lightning_transfer.configs import load_config
    from lightning_transfer.utilities.instantiate import instantiate

    pytest.importorskip("efficientnet_lite_pytorch")
    by_name, by_config = load_backbone(name), instantiate(load_config("backbone", name))
    assert by_name.input_shape == by_config.input_shape
    assert by_name.fingerprint() == by_config.fingerprint()
    assert by_name.name == by_config.name
