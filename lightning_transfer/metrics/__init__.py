"""Every score as a torchmetrics Metric."""

from lightning_transfer.metrics.h_score import HScore
from lightning_transfer.metrics.linear_mse import LabelMSE, LinearMSE
from lightning_transfer.metrics.logme import LogME
from lightning_transfer.metrics.ridge_probe import RidgeProbe

__all__ = ["HScore", "LabelMSE", "LinearMSE", "LogME", "RidgeProbe"]
