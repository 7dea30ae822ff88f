"""The task-relatedness bound: heads with a known Lipschitz constant, transforms, transport, solvers, certificates."""

from lightning_transfer.relatedness.head import SoftmaxHead, certified_constant
from lightning_transfer.relatedness.published import PublishedSchedule
from lightning_transfer.relatedness.result import Figures, TaskRelatednessResult
from lightning_transfer.relatedness.transforms import FeatureMap

__all__ = [
    "FeatureMap",
    "Figures",
    "PublishedSchedule",
    "SoftmaxHead",
    "TaskRelatednessResult",
    "certified_constant",
]
