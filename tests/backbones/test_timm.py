"""timm networks: features and logits are the library's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import (
    TimmBackbone,
    load_backbone,
)
from tests.backbones._libraries import CLOSE, IMAGES

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


@pytest.mark.parametrize(
    "name",
    [
        "crossvit_tiny_240",
        pytest.param("sequencer2d_s", marks=pytest.mark.long),
        pytest.param("volo_d1_224", marks=pytest.mark.long),
    ],
)
def test_heads_that_take_more_than_the_features_are_none(name):
    assert _check_timm(name) is None
    assert isinstance(_check_timm("test_vit2"), nn.Linear)


ARCHITECTURES = [  # one or two of each family
    "beit_base_patch16_224", "halonet26t", "repvgg_b0", "cait_xxs24_224", "coat_mini", "convit_tiny",
    "convmixer_1024_20_ks9_p14", "convnext_atto", "cpubone_nano", "csatv2", "cs3darknet_s", "cspnext_tiny",
    "davit_tiny", "deit_tiny_distilled_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t12", "focalnet_tiny_lrf", "gcvit_xxtiny",
    "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small",
    "iformer_s", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_small",
    "levit_128s", "lowformer_b0", "mambaout_femto", "coatnet_pico_rw_224", "caformer_s18", "gmlp_s16_224",
    "tf_mobilenetv3_large_minimal_100", "mobilenetv4_conv_small", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_gap", "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_xs_224", "pvt_v2_b0",
    "qwen3_vit_88m", "rdnet_tiny", "regnety_040_sgn", "repghostnet_050", "repvit_m0_9", "res2net50_26w_4s",
    "resnest26d", "resnet18", "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "shvit_s1",
    "skresnet18", "starnet_s050", "swiftformer_xs", "swin_s3_tiny_224", "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_patch16_224", "tresnet_m", "twins_svt_small", "vgg11",
    "visformer_tiny", "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224",
    "vitamin_small_224", "ese_vovnet19b_slim", "legacy_xception", "xception41", "xcit_nano_12_p8_224",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_many_timm_architectures(name):
    _check_timm(name)


@pytest.mark.parametrize("channels", [1, 4])
def test_timm_with_other_channels(channels):
    backbone = TimmBackbone("test_resnet", pretrained=False, in_chans=channels)
    assert backbone.input_shape == (channels, 160, 160)
    white = torch.full((1, channels, 160, 160), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.preprocess(white), torch.ones(1, channels, 160, 160))
    assert backbone.takes_pictures == (channels == 1)


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
        ({"model_name": "test_resnett"}, "to be a model of timm"),
        ({"model_name": "test_resnet", "global_pool": ""}, "num_classes=0"),
        ({"model_name": "test_resnet", "preprocessing": "none"}, "`preprocessing`"),
    ],
)
def test_bad_timm_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**arguments, pretrained=False)
