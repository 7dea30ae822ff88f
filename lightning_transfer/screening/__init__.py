"""Screening: many backbones on one target, ranked."""

from lightning_transfer.screening.leaderboard import Leaderboard, Row
from lightning_transfer.screening.relate import relate
from lightning_transfer.screening.screen import screen

__all__ = ["Leaderboard", "Row", "relate", "screen"]
