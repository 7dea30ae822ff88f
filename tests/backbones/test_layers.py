"""Several layers of a backbone side by side."""

import pytest
import torch

from lightning_transfer.backbones import LayeredBackbone, ModuleBackbone, TimmBackbone, TransformersBackbone
from tests.backbones._libraries import SMALL, save_model
from tests.backbones._networks import Staged


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return ModuleBackbone(Staged(), (1, 8, 8))


def test_stages_of_real_networks(tmp_path):
    from transformers import BertConfig

    vit = TimmBackbone("test_vit", pretrained=False, input_size=64).eval()
    layered = LayeredBackbone(vit).eval()
    assert list(layered.slices) == [*(f"network.blocks.{i}" for i in range(len(vit.network.blocks))), "features"]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    features, logits = layered(images)
    torch.testing.assert_close(features[:, layered.slices["features"]], vit(images).features)
    torch.testing.assert_close(logits, vit(images).logits)
    assert list(LayeredBackbone(TimmBackbone("test_resnet", pretrained=False)).slices)[-2:] == [
        "network.layer4",
        "features",
    ]
    save_model(tmp_path, "BertModel", BertConfig(vocab_size=9, **SMALL))
    bert = TransformersBackbone(tmp_path).eval()
    layered = LayeredBackbone(bert).eval()
    assert list(layered.slices) == ["network.encoder.layer.0", "network.encoder.layer.1", "features"]
    features = layered(["a bb ccc", "dddd"]).features
    torch.testing.assert_close(features[:, 16:32], features[:, 32:])  # padding is left out of both


def test_unknown_layers_are_refused(backbone):
    assert list(LayeredBackbone(backbone, "module.b*y").slices) == ["module.body", "features"]
    with pytest.raises(ValueError, match=r"`layers` to name layers of staged \(such as .*\), but got 'neck\*'"):
        LayeredBackbone(backbone, ["module.stem", "neck*"])
