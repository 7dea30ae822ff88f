"""The task-relatedness bound: heads with a known Lipschitz constant, transforms, transport, solvers, certificates."""

from lightning_transfer.relatedness.head import SoftmaxHead, certified_constant
from lightning_transfer.relatedness.result import Figures, TaskRelatednessResult
from lightning_transfer.relatedness.transforms import FeatureMap

__all__ = ["FeatureMap", "Figures", "SoftmaxHead", "TaskRelatednessResult", "certified_constant"]
