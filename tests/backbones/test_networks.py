"""Many networks of timm and torchvision: each sees pictures as its library shows them, and gives what it gives."""

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import TimmBackbone, TorchvisionBackbone
from lightning_transfer.data import ImageFolder, open_rgb
from lightning_transfer.extraction import extract
from tests._pictures import draw_pictures

TIMM = [  # one or two small ones of each family
    "beit_base_patch16_224", "halonet26t", "repvgg_b0", "cait_xxs24_224", "coat_mini", "convit_tiny",
    "convmixer_1024_20_ks9_p14", "convnext_atto", "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_s",
    "cspnext_tiny", "davit_tiny", "deit_tiny_distilled_patch16_224", "densenet121", "dla34", "dla46_c", "dpn68",
    "edgenext_small", "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0", "efficientvim_m1",
    "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t12", "focalnet_tiny_lrf",
    "gcvit_xxtiny", "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small", "iformer_s",
    "inception_next_atto", "inception_v3", "lcnetv2_small", "levit_128s", "lowformer_b0",
    "mambaout_femto", "coatnet_pico_rw_224", "caformer_s18", "gmlp_s16_224", "tf_mobilenetv3_large_minimal_100",
    "mobilenetv3_small_050", "mobilenetv4_conv_small", "mobilevit_xxs", "mvitv2_tiny", "naflexvit_base_patch16_gap",
    "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_xs_224", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny",
    "regnety_040_sgn", "repghostnet_050", "repvit_m0_9", "res2net50_26w_4s", "resnest26d", "resnet18", "resnetv2_18",
    "rexnet_100", "selecsls42", "sequencer2d_s", "legacy_seresnet18", "shvit_s1", "skresnet18", "starnet_s050",
    "swiftformer_xs", "swin_s3_tiny_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224", "tiny_vit_5m_224",
    "tinynet_e", "tnt_s_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny",
    "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224", "vitamin_small_224",
    "volo_d1_224", "ese_vovnet19b_slim", "legacy_xception", "xception41", "xcit_nano_12_p8_224",
]  # fmt: skip
SHORTENED = {  # what is too large for a test, with fewer blocks
    "beit_base_patch16_224": {"depth": 2},
    "naflexvit_base_patch16_gap": {"depth": 2},
    "qwen3_vit_88m": {"depth": 2},
}
TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "swin_t", "swin_v2_t", "vgg11", "vit_b_32", "wide_resnet50_2",
]  # fmt: skip
CLOSE = {"rtol": 1e-3, "atol": 1e-4}

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    drawn = draw_pictures(root / "a")
    (root / "b").mkdir()
    return [file.rename(root / "ab"[number % 2] / file.name) for number, file in enumerate(drawn)]


def _check(backbone, transform, files, network, without_head):
    assert backbone.cost(measure=False).flops > 0
    data = ImageFolder(files[0].parents[1], val_fraction=0, test_fraction=0)
    ordered = sorted(files)
    prepared = torch.stack([transform(open_rgb(file)) for file in ordered])
    for file, expected in zip(ordered, prepared, strict=True):
        torch.testing.assert_close(backbone.transform(file), expected, rtol=0, atol=1e-5)
    outputs = () if backbone.num_source_classes is None else ("source_outputs",)  # some come without a classifier
    kept = extract(backbone, data, keep=("features", *outputs)).kept
    with torch.no_grad():
        one, other = backbone.encode(prepared[:2]), backbone.encode(prepared[:2])
        assert torch.equal(one.features, other.features)
        if outputs:
            assert torch.equal(one.logits, other.logits)
            torch.testing.assert_close(kept["source_outputs"], network(prepared), **CLOSE)
        if backbone.head is not None:
            torch.testing.assert_close(backbone.head(one.features), one.logits, **CLOSE)
        without_head()
        torch.testing.assert_close(kept["features"], network(prepared), **CLOSE)
    assert kept["features"].shape == (len(files), backbone.feature_dim)
    assert kept["features"].std(dim=0).max() > 0  # pictures differ


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, files):
    from timm.data import create_transform, resolve_model_data_config

    backbone = TimmBackbone(name, pretrained=False, **SHORTENED.get(name, {})).eval()
    transform = create_transform(**resolve_model_data_config(backbone.network))
    _check(backbone, transform, files, backbone.network, lambda: backbone.network.reset_classifier(0))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, files):
    from torchvision import models

    backbone = TorchvisionBackbone(name, pretrained=False).eval()
    network = backbone.module

    def replace_last_layer():
        last = [path for path, child in network.named_modules() if isinstance(child, nn.Linear)][-1]
        parent, _, attribute = last.rpartition(".")
        setattr(network.get_submodule(parent), attribute, nn.Identity())

    _check(backbone, models.get_model_weights(name).DEFAULT.transforms(), files, network, replace_last_layer)
