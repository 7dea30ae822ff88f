"""Values and figures on their way to everything that listens to a Trainer."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from _training import Diary, Points, fit
from lightning.pytorch.callbacks import LambdaCallback
from torch.utils.data import DataLoader

from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.callbacks.publish import publish_figures, publish_values


def test_values_reach_callbacks_and_loggers_unrounded():
    value, diary = 1 / 3, Diary()

    def publish(trainer, module):
        publish_values(trainer, {"a": value}, "p")
        publish_values(trainer, {"b": value}, "p", to_loggers=False)
        publish_values(trainer, {}, "p")

    _, trainer = fit([LambdaCallback(on_train_start=publish)], max_epochs=1, logger=diary)
    assert [row for row in diary.rows if "p-a" in row[1]] == [(0, {"p-a": value, "epoch": 0})]
    assert not any("p-b" in row for _, row in diary.rows)
    for name in ("p/a", "p/b"):
        assert trainer.callback_metrics[name].dtype == torch.float64
        assert float(trainer.callback_metrics[name]) == value
    assert "p/a" in trainer.logged_metrics
    assert "p/b" not in trainer.logged_metrics


def test_no_figure_is_drawn_that_no_logger_takes():
    def draw():
        raise AssertionError

    drawing = LambdaCallback(on_train_start=lambda trainer, _: publish_figures(trainer, {"f": draw}, "p"))
    fit([drawing], max_epochs=1, logger=Diary())


def test_every_key_is_documented():
    documented = set(
        re.findall(
            r"^\| `transfer/(\w+)`", (Path(__file__).parents[2] / "docs/monitoring.md").read_text(), re.MULTILINE
        )
    )
    monitor = TaskRelatednessMonitor(DataLoader(Points(40, seed=8), 16), settle=1, options={"rounds": 1})
    fit([monitor, scores := TransferabilityMonitor("logme")], max_epochs=1)
    assert monitor.values.keys() == documented - {"relatedness"}
    assert monitor.values["task_relatedness"] == monitor.values["bound"]
    assert scores.values.keys() == {"logme"}
