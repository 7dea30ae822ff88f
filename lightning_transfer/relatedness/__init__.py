"""The task-relatedness bound: heads with a known Lipschitz constant, transforms, transport, solvers, certificates."""

import warnings
from typing import Any

from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.config import BoundConfig, PublishedSchedule
from lightning_transfer.relatedness.head import SoftmaxHead, certified_constant
from lightning_transfer.relatedness.result import TaskRelatednessResult
from lightning_transfer.relatedness.transforms import FeatureMap

__all__ = [
    "BoundConfig",
    "Certificate",
    "FeatureMap",
    "PublishedSchedule",
    "SoftmaxHead",
    "TaskRelatednessResult",
    "certified_constant",
]


def __getattr__(name: str) -> Any:
    if name == "Figures":
        warnings.warn("`Figures` is now `Certificate`.", DeprecationWarning, stacklevel=2)
        return Certificate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
