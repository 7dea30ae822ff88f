"""Screening: many backbones on one target, ranked."""

from lightning_transfer.screening.alike import AlikeTasks, alike_tasks
from lightning_transfer.screening.bound_ranking import BoundRanking, rank_backbones, rank_references
from lightning_transfer.screening.comparing import AcrossTargets, Comparison, across_targets
from lightning_transfer.screening.consensus import Evidence, consensus
from lightning_transfer.screening.layers import aggregate_layers, plot_layers, screen_layers
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.merging import merge_boards
from lightning_transfer.screening.relate import relate
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.screen import screen

__all__ = [
    "AcrossTargets",
    "AlikeTasks",
    "BoundRanking",
    "Comparison",
    "Evidence",
    "Leaderboard",
    "Row",
    "across_targets",
    "aggregate_layers",
    "alike_tasks",
    "consensus",
    "merge_boards",
    "plot_layers",
    "rank_backbones",
    "rank_references",
    "relate",
    "screen",
    "screen_layers",
]
