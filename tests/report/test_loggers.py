"""Leaderboards in loggers: what each kind is handed."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_transfer.report.loggers import log_leaderboard
from tests.report._boards import make_board


def logger(**parts):
    return SimpleNamespace(log_metrics=MagicMock(), finalize=MagicMock(), **parts)


def test_every_logger_gets_the_scores():
    plain = logger()
    log_leaderboard(make_board(("logme",)), plain)
    handed = [call.args[0] for call in plain.log_metrics.call_args_list]
    assert handed[3] == {"backbone_3/logme": 0.30000000000000004}
    assert len(handed) == 4  # none for the row that failed
    plain.finalize.assert_called_once_with("success")


def test_tensorboard_gets_text_and_figure():
    experiment = MagicMock(spec=["add_text", "add_figure"])
    log_leaderboard(make_board(("logme",)), logger(experiment=experiment))
    assert "**0.300" in experiment.add_text.call_args.args[1]
    assert experiment.add_figure.call_args.args[0] == "leaderboard"


def test_weights_and_biases_gets_a_table_and_the_figure():
    taker = logger(log_table=MagicMock(), log_image=MagicMock())
    log_leaderboard(make_board(("logme",)), taker)
    table = taker.log_table.call_args.kwargs
    assert table["columns"][:3] == ["rank", "backbone", "logme"]
    assert table["data"][0][1] == "backbone_3"
    assert table["data"][-1][0] is None
    assert taker.log_image.call_args.kwargs["key"] == "leaderboard"


def test_mlflow_gets_the_report():
    experiment = MagicMock(spec=["log_text", "log_figure"])
    log_leaderboard(make_board(("logme",)), logger(experiment=experiment, run_id="7"))
    names = [call.args[2] for call in experiment.log_text.call_args_list]
    assert names == ["leaderboard.html", "leaderboard.md"]
    assert "<!doctype html>" in experiment.log_text.call_args_list[0].args[1]
    assert experiment.log_figure.call_args.args[0] == "7"


def test_a_csv_logger_writes_the_scores(tmp_path):
    log_leaderboard(make_board(("logme",)), CSVLogger(tmp_path, name="", version=""))
    (table,) = tmp_path.rglob("metrics.csv")
    with table.open() as file:
        values = [row["backbone_3/logme"] for row in csv.DictReader(file)]
    assert [float(value) for value in values if value] == pytest.approx([0.3])


def test_tensorboards_own_logger_takes_all(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_leaderboard(make_board(("logme",)), TensorBoardLogger(tmp_path, name="", version=""))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("backbone_3/logme")[0].value == pytest.approx(0.3)
    assert b"**0.300" in events.Tensors("leaderboard/text_summary")[0].tensor_proto.string_val[0]
    assert events.Images("leaderboard")[0].width > 100


def test_mlflows_own_logger_takes_all(tmp_path):
    for module in ("mlflow", "sqlalchemy"):
        pytest.importorskip(module)
    artifacts = (tmp_path / "artifacts").as_uri()
    logger = MLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_location=artifacts)
    log_leaderboard(make_board(("logme",)), logger)
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard_0.png"):
        assert list(tmp_path.rglob(name)), name


def test_weights_and_biases_own_logger_takes_all(tmp_path):
    pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    log_leaderboard(make_board(("logme",)), logger)
    logger.experiment.finish()
    assert list(tmp_path.rglob("*.table.json"))
    assert list(tmp_path.rglob("*.png"))
