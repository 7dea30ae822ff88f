"""From maps and tokens to one vector a sample."""

import torch

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.backbones.pooling import pool
from tests.backbones._networks import Tokens


def test_tokens_are_pooled():
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    module = Tokens().eval()
    tokens = module(x)["tokens"]
    for pooling, expected in (("auto", tokens.mean(1)), ("cls", tokens[:, 0]), ("last", tokens[:, -1])):
        backbone = ModuleBackbone(module, (5, 8), pooling=pooling).eval()
        torch.testing.assert_close(backbone(x).features, expected)
        assert backbone.num_source_classes is None


def test_masks_are_respected():
    features = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(pool(features, "mean", mask)[0], features[0, :2].mean(0))
    assert torch.equal(pool(features, "last", mask), torch.stack([features[0, 1], features[1, 2]]))
    padded_left = mask.flip(1)
    assert torch.equal(pool(features, "cls", padded_left), torch.stack([features[0, 1], features[1, 0]]))
    assert torch.equal(pool(features, "last", padded_left), features[:, 2])
