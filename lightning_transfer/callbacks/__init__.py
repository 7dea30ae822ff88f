"""Callbacks that watch how well features transfer."""

from lightning_transfer.callbacks.checkpoint import ContinuedCheckpoint
from lightning_transfer.callbacks.monitor import FeatureMonitor
from lightning_transfer.callbacks.task_relatedness import TaskRelatednessMonitor
from lightning_transfer.callbacks.transferability import TransferabilityMonitor

__all__ = ["ContinuedCheckpoint", "FeatureMonitor", "TaskRelatednessMonitor", "TransferabilityMonitor"]
