import pytest
import torch

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits
from lightning_transfer.screening import aggregate_layers, plot_layers, screen, screen_layers
from tests.backbones._networks import Staged


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return ModuleBackbone(Staged(), (1, 8, 8))


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
