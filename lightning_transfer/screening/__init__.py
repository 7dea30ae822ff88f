"""Screening: many backbones on one target, ranked."""

from lightning_transfer.screening.leaderboard import Leaderboard, Row

__all__ = ["Leaderboard", "Row"]
