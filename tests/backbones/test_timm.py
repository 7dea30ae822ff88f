"""timm networks: features and logits are the library's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import TimmBackbone, load_backbone
from lightning_transfer.data import ImageFolder, open_rgb
from lightning_transfer.extraction import extract
from tests._pictures import draw_pictures
from tests.backbones._libraries import CLOSE, IMAGES, assert_tensors_are_cut_like_pictures

pytestmark = pytest.mark.usefixtures("rng_is_left_alone")


def _check_timm(name, **kwargs):
    backbone = TimmBackbone(name, pretrained=False, **kwargs).eval()
    with torch.no_grad():
        inputs = backbone.preprocess(IMAGES[:2])
        features, logits = backbone.encode(inputs)
        again = backbone.encode(inputs)
        torch.testing.assert_close(logits, backbone.network(inputs), **CLOSE)
        assert torch.equal(features, again.features)
        head = backbone.head
        if head is not None:
            torch.testing.assert_close(head(features), logits, **CLOSE)
        backbone.network.reset_classifier(0)
        torch.testing.assert_close(features, backbone.network(inputs), **CLOSE)
    assert features.shape == (2, backbone.feature_dim)
    return head


TIMM = [
    "test_byobnet", "test_convnext", "test_efficientnet_gn", "test_nfnet", "test_vit", "test_vit4", "test_mambaout",
    "dla46_c", "mobilenetv3_small_050", "tinynet_e",
]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    _check_timm(name)


@pytest.mark.parametrize("mode", ["center", "squash"])
def test_tensors_are_cut_as_pictures_are(mode):
    backbone = TimmBackbone("test_vit", pretrained=False, pretrained_cfg_overlay={"crop_mode": mode, "crop_pct": 1.0})
    assert_tensors_are_cut_like_pictures(backbone)


@pytest.mark.parametrize(("tag", "classes"), [("openai", None), ("openai_ft_in1k", 1000)])
def test_a_space_of_texts_is_no_set_of_classes(tag, classes):
    backbone = TimmBackbone(
        f"vit_base_patch32_clip_224.{tag}", pretrained=False, depth=1, embed_dim=32, num_heads=2, input_size=64
    )
    assert (backbone.num_source_classes, backbone.head is None) == (classes, classes is None)
    assert (backbone(IMAGES[:2]).logits is None) == (classes is None)
    own = TimmBackbone("test_vit", pretrained=False, num_classes=128)
    assert own.num_source_classes == 128


def test_heads_that_take_more_than_the_features_are_none():
    assert _check_timm("crossvit_tiny_240") is None
    assert isinstance(_check_timm("test_vit2"), nn.Linear)


@pytest.mark.parametrize("channels", [1, 4])
def test_timm_with_other_channels(channels):
    backbone = TimmBackbone("test_resnet", pretrained=False, in_chans=channels)
    assert backbone.input_shape == (channels, 160, 160)
    white = torch.full((1, channels, 160, 160), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.preprocess(white), torch.ones(1, channels, 160, 160))
    assert backbone.takes_pictures == (channels == 1)


def test_cost_of_a_network_that_hands_parameters_to_its_modules():
    backbone = TimmBackbone("test_vit3", pretrained=False)
    assert backbone.cost(measure=False).flops > 0
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_timm_control_and_headless():
    first, again = (load_backbone("timm/test_resnet", pretrained=False, seed=3) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
    assert first.name == "test_resnet_random"
    headless = TimmBackbone("test_resnet", pretrained=False, num_classes=0, global_pool="", input_size=64)
    features, logits = headless(IMAGES)
    assert (features.shape, logits, headless.head, headless.input_shape) == ((3, 96), None, None, (3, 64, 64))
    assert TimmBackbone("test_vit", pretrained=False, input_size=64)(IMAGES).features.shape == (3, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "test_resnett"}, "got 'test_resnett'; near: .*test_resnet"),
        ({"model_name": "test_resnet", "global_pool": ""}, "num_classes=0"),
        ({"model_name": "test_resnet", "preprocessing": "none"}, "`preprocessing`"),
    ],
)
def test_bad_timm_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**arguments, pretrained=False)


NAFLEX = {"embed_dim": 48, "depth": 2, "num_heads": 3, "pretrained": False}


def test_naflex_networks_take_pictures_in_their_own_aspect(tmp_path):
    from timm.data import create_transform, resolve_model_data_config
    from timm.data.naflex_dataset import NaFlexCollator

    files = [file for name in "ab" for file in draw_pictures(tmp_path / name)]
    backbone = TimmBackbone("naflexvit_base_patch16_gap", sequence_length=64, **NAFLEX).eval()
    assert backbone.fingerprint() != TimmBackbone("naflexvit_base_patch16_gap", **NAFLEX).fingerprint()
    network = backbone.network
    transform = create_transform(
        **resolve_model_data_config(network), naflex=True, patch_size=16, max_seq_len=64, patchify=True
    )
    batch, _ = NaFlexCollator(64)([(transform(open_rgb(file)), 0) for file in files])
    sizes = batch["patch_coord"].amax(dim=1) + 1
    assert len(sizes.unique(dim=0)) > 3  # pictures of several aspects
    data = ImageFolder(tmp_path, val_fraction=0, test_fraction=0)
    kept = extract(backbone, data, keep=("features", "source_outputs")).kept
    with torch.no_grad():
        torch.testing.assert_close(kept["source_outputs"], network(batch), **CLOSE)
        network.reset_classifier(0)
        torch.testing.assert_close(kept["features"], network(batch), **CLOSE)


@pytest.mark.parametrize(
    ("name", "arguments"), [("test_resnet", {"sequence_length": 64}), ("test_vit", {"sequence_length": 0})]
)
def test_sequences_are_for_naflex_networks(name, arguments):
    with pytest.raises(ValueError, match="`sequence_length`"):
        TimmBackbone(name, pretrained=False, **arguments)
