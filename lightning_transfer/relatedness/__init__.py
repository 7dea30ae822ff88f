"""The task-relatedness bound: heads with a known Lipschitz constant, transforms, transport, solvers, certificates."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightning_transfer.relatedness.head import SoftmaxHead, certified_constant
from lightning_transfer.relatedness.result import Figures, TaskRelatednessResult
from lightning_transfer.relatedness.transforms import FeatureMap

if TYPE_CHECKING:
    from lightning_transfer.relatedness.published import PublishedSchedule
    from lightning_transfer.relatedness.ranking import BoundRanking, rank_backbones, rank_references

__all__ = [
    "BoundRanking",
    "FeatureMap",
    "Figures",
    "PublishedSchedule",
    "SoftmaxHead",
    "TaskRelatednessResult",
    "certified_constant",
    "rank_backbones",
    "rank_references",
]

_LATER = {"PublishedSchedule": "published"} | dict.fromkeys(
    ("BoundRanking", "rank_backbones", "rank_references"), "ranking"
)  # these import the function that imports this package


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
