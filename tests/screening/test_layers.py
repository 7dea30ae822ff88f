import pytest
import torch
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits
from lightning_transfer.screening import Leaderboard, aggregate_layers, plot_layers, screen, screen_layers
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
    assert backbone.module.passes - before == 2 + 3  # two examples, three batches
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


def test_a_screen_scores_layers_of_several_backbones(backbone, tmp_path):
    data = Digits(max_samples=120)
    pair = {"one": backbone, "other": ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8))}
    options = {"layers": "module.[bs]*", "output_dir": tmp_path, "reference": Digits(max_samples=60, classes=[1, 2])}
    board = screen(pair, data, ["logme", "leep", "etran"], error_bars=True, **options)
    assert [row.backbone for row in board.rows] == [
        "one:module.stem", "one:module.body.0", "one:module.body.1", "one:module.body", "one:features", "other"
    ]  # fmt: skip
    assert "`layers`" in board["other"].status  # it has none of that name; the others are there
    assert (board.rows[3].network, board.rows[3].layer) == ("one", "module.body")
    alone = screen({"one": backbone}, data, ["logme"], error_bars=True, reference=options["reference"])["one"]
    for column in ("logme", "task_relatedness"):
        assert board["one:features"].score(column) == pytest.approx(alone.score(column), rel=1e-3)
    assert board["one:features"].standard_error("logme") == pytest.approx(alone.standard_error("logme"), rel=1e-3)
    assert len({row.score("task_relatedness") for row in board.rows[:2]}) > 1
    assert Leaderboard.load(tmp_path)["one:module.stem"] == board["one:module.stem"]
    again = screen(pair, data, ["logme", "leep", "etran"], error_bars=True, resume=tmp_path, **options)
    assert again["one:module.body"] == board["one:module.body"]  # its time, too: it was taken over


@pytest.mark.parametrize("how", ["best", "mean", "last"])
def test_layers_become_one_row(backbone, how):
    options = {"layers": "all", "error_bars": True}
    (row,) = screen({"net": backbone}, Digits(max_samples=80), ["logme", "leep"], aggregate=how, **options).rows
    board = screen_layers(backbone, Digits(max_samples=80), ["logme", "leep"], error_bars=True)
    assert (row.backbone, row.network, row.layer) == ("net", "net", "")
    assert dict(row.scores) == pytest.approx(aggregate_layers(board, how))
    if how == "mean":
        assert row.remarks[0].startswith("scores: mean of 3 layers (LogME")
        assert not row.standard_errors
    else:
        best = max(board.rows, key=lambda one: one.score("logme")) if how == "best" else board.rows[-1]
        assert f"{best.layer} (LogME" in row.remarks[0]
        assert row.standard_errors["logme"] == pytest.approx(best.standard_error("logme"))


def test_depth_is_drawn_for_every_backbone(backbone):
    board = screen({"a": backbone, "b": backbone}, Digits(max_samples=60), "logme", layers="all")
    texts = plot_layers(board).axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["a", "b"]
    with pytest.raises(ValueError, match="score of each layer"):
        plot_layers(screen({"a": backbone}, Digits(max_samples=60), "logme"))


@pytest.mark.parametrize("options", [{"aggregate": "best"}, {"aggregate": "worst", "layers": "all"}])
def test_bad_aggregations_are_refused(backbone, options):
    with pytest.raises(ValueError, match="`aggregate`"):
        screen({"a": backbone}, Digits(max_samples=60), "logme", **options)


def test_a_backbone_without_such_layers_is_refused(backbone):
    with pytest.raises(ValueError, match="`layers` to name layers"):
        screen_layers(backbone, Digits(max_samples=60), "logme", layers="neck*")
