"""torchvision networks: features and logits are the library's own."""

from __future__ import annotations

import pytest
import torch

from lightning_transfer.backbones import (
    TorchvisionBackbone,
)
from tests.backbones._libraries import CLOSE, IMAGES

pytestmark = pytest.mark.usefixtures("rng_is_left_alone")


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mnasnet0_5", "vit_b_32"])
def test_torchvision(name):
    backbone = TorchvisionBackbone(name, pretrained=False, input_size=64).eval()
    with torch.no_grad():
        features, logits = backbone(IMAGES)
        torch.testing.assert_close(logits, backbone.module(backbone.preprocess(IMAGES)), **CLOSE)
        torch.testing.assert_close(backbone.head(features), logits, **CLOSE)
    assert (features.shape[1], backbone.name) == (backbone.feature_dim, f"{name}_random")


def test_a_classifier_that_is_a_convolution():
    backbone = TorchvisionBackbone("squeezenet1_1", pretrained=False, input_size=64).eval()
    with torch.no_grad():
        features, logits = backbone(IMAGES)
        prepared = backbone.preprocess(IMAGES)
        torch.testing.assert_close(logits, backbone.module(prepared), **CLOSE)
        torch.testing.assert_close(features, backbone.module.features(prepared).mean(dim=(2, 3)), **CLOSE)
    assert (backbone.feature_dim, backbone.num_source_classes, backbone.head) == (512, 1000, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "resnet17"}, "classifier of torchvision, but got 'resnet17'; near: resnet18"),
        ({"model_name": "resnet18", "weights": "V9"}, "to be one of"),
    ],
)
def test_torchvision_unknown(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(**arguments)
