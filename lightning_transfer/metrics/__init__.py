"""Every score as a torchmetrics Metric."""

from lightning_transfer.metrics.emms import EMMS
from lightning_transfer.metrics.energy_score import EnergyScore
from lightning_transfer.metrics.etran import ETran
from lightning_transfer.metrics.gbc import GBC
from lightning_transfer.metrics.h_score import HScore
from lightning_transfer.metrics.knn_accuracy import KNNAccuracy
from lightning_transfer.metrics.leep import LEEP
from lightning_transfer.metrics.lfc import LFC
from lightning_transfer.metrics.linear_mse import LabelMSE, LinearMSE
from lightning_transfer.metrics.logme import LogME
from lightning_transfer.metrics.ncti import NCTI
from lightning_transfer.metrics.negative_conditional_entropy import NegativeConditionalEntropy
from lightning_transfer.metrics.nleep import NLEEP
from lightning_transfer.metrics.otce import OTCE
from lightning_transfer.metrics.pactran import PACTran
from lightning_transfer.metrics.parc import PARC
from lightning_transfer.metrics.ridge_probe import RidgeProbe
from lightning_transfer.metrics.sfda import SFDA
from lightning_transfer.metrics.task_hardness import TaskHardness
from lightning_transfer.metrics.task_relatedness import TaskRelatedness
from lightning_transfer.metrics.transrate import TransRate

__all__ = [
    "EMMS",
    "GBC",
    "LEEP",
    "LFC",
    "NCTI",
    "NLEEP",
    "OTCE",
    "PARC",
    "SFDA",
    "ETran",
    "EnergyScore",
    "HScore",
    "KNNAccuracy",
    "LabelMSE",
    "LinearMSE",
    "LogME",
    "NegativeConditionalEntropy",
    "PACTran",
    "RidgeProbe",
    "TaskHardness",
    "TaskRelatedness",
    "TransRate",
]
