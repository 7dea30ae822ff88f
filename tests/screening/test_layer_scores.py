import math

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_transfer.metrics import LogME
from lightning_transfer.screening import Row
from lightning_transfer.screening.layer_scores import LayerScores, choose_layers

ROWS = [
    Row("net:a", {"logme": 0.2, "bound": 3.0}, layer="a"),
    Row("net:b", {"logme": 0.7, "bound": 2.0}, layer="b"),
    Row("net:c", {"logme": math.nan, "bound": 4.0}, layer="c"),
]


@pytest.mark.parametrize(
    ("how", "logme", "bound"),
    [("best", (0.7, "b"), (2.0, "b")), ("last", (0.7, "b"), (4.0, "c")), ("mean", (0.45, ""), (3.0, ""))],
)
def test_layers_whose_score_is_not_known_are_left_out(how, logme, bound):
    chosen = choose_layers(ROWS, ["logme", "bound", "leep"], ["bound"], how)
    assert chosen["logme"] == (pytest.approx(logme[0]), logme[1])
    assert chosen["bound"] == (pytest.approx(bound[0]), bound[1])
    assert math.isnan(chosen["leep"][0])


def test_each_layer_is_fed_with_its_columns():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 5, generator=generator), torch.arange(40) % 2
    slices = {"first": slice(0, 2), "second": slice(2, 5)}
    scores = LayerScores({name: MetricCollection({"logme": LogME()}) for name in slices}, slices)
    scores.update(features=features[:25], labels=labels[:25])
    scores.update(features=features[25:], labels=labels[25:])
    for name, columns in slices.items():
        alone = LogME()
        alone.update(features=features[:, columns], labels=labels)
        torch.testing.assert_close(scores.compute()[name]["logme"], alone.compute())
    scores.reset()
    assert scores.of("first")["logme"].update_count == 0
