"""Every score as a torchmetrics Metric."""

from lightning_transfer.metrics.energy_score import EnergyScore
from lightning_transfer.metrics.h_score import HScore
from lightning_transfer.metrics.knn_accuracy import KNNAccuracy
from lightning_transfer.metrics.leep import LEEP
from lightning_transfer.metrics.linear_mse import LabelMSE, LinearMSE
from lightning_transfer.metrics.logme import LogME
from lightning_transfer.metrics.negative_conditional_entropy import NegativeConditionalEntropy
from lightning_transfer.metrics.nleep import NLEEP
from lightning_transfer.metrics.otce import OTCE
from lightning_transfer.metrics.ridge_probe import RidgeProbe
from lightning_transfer.metrics.task_hardness import TaskHardness

__all__ = [
    "LEEP",
    "NLEEP",
    "OTCE",
    "EnergyScore",
    "HScore",
    "KNNAccuracy",
    "LabelMSE",
    "LinearMSE",
    "LogME",
    "NegativeConditionalEntropy",
    "RidgeProbe",
    "TaskHardness",
]
