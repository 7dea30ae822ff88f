import pytest
import torch
from torch import nn

from lightning_transfer.backbones import LayeredBackbone, ModuleBackbone, TimmBackbone, TransformersBackbone
from lightning_transfer.data import Digits
from lightning_transfer.screening import aggregate_layers, plot_layers, screen, screen_layers
from tests.backbones._libraries import SMALL, save_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())
        self.classifier = nn.Linear(6, 5)
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return self.classifier(self.body(self.stem(x)).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return ModuleBackbone(Net(), (1, 8, 8))


def test_each_layer_scores_as_it_does_alone_in_one_pass(backbone):
    data = Digits(max_samples=120, batch_size=50)
    layers = ["module.stem", "module.body"]
    before = backbone.module.passes
    board = screen_layers(backbone, data, ["logme", "h_score", "leep"], layers=layers)
    assert backbone.module.passes - before == 1 + 3  # an example, three batches
    assert [row.backbone for row in board.rows] == [*layers, "features"]
    assert [row.feature_dim for row in board.rows] == [4, 6, 6]
    for layer in layers:
        alone = ModuleBackbone(backbone.module, (1, 8, 8), layer=layer.removeprefix("module."))
        expected = screen({"alone": alone}, data, ["logme", "h_score", "leep"])["alone"]
        assert dict(board[layer].scores) == pytest.approx(dict(expected.scores), rel=1e-4)
    assert dict(board["features"].scores) == pytest.approx(
        dict(screen({"own": backbone}, data, ["logme", "h_score", "leep"])["own"].scores), rel=1e-4
    )


def test_layers_are_aggregated(backbone):
    board = screen_layers(backbone, Digits(max_samples=60), "logme")
    values = [row.score("logme") for row in board.rows]
    assert [row.backbone for row in board.rows] == ["module.stem", "module.body", "features"]
    assert aggregate_layers(board, "best")["logme"] == max(values)
    assert aggregate_layers(board, "last")["logme"] == values[-1]
    assert aggregate_layers(board, "mean")["logme"] == pytest.approx(sum(values) / 3)
    labels = [label.get_text() for label in plot_layers(board).axes[0].get_xticklabels()]
    assert labels == ["module.stem", "module.body", "features"]
    with pytest.raises(ValueError, match="`how`"):
        aggregate_layers(board, "worst")


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
    with pytest.raises(ValueError, match=r"`layers` to name layers of net, but got 'neck\*'"):
        LayeredBackbone(backbone, ["module.stem", "neck*"])
