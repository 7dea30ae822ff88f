"""Datamodules for targets and references."""

from lightning_transfer.data.base import TransferDataModule, TransferDataset
from lightning_transfer.data.digits import Digits
from lightning_transfer.data.photo_patches import PhotoPatches

__all__ = ["Digits", "PhotoPatches", "TransferDataModule", "TransferDataset"]
