"""Every score as a torchmetrics Metric; the class of a name is imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_transfer.metrics.cka import CKA
    from lightning_transfer.metrics.emms import EMMS
    from lightning_transfer.metrics.energy_score import Energy, EnergyScore
    from lightning_transfer.metrics.etran import ETran
    from lightning_transfer.metrics.gbc import GBC, StreamingGBC
    from lightning_transfer.metrics.h_score import HScore
    from lightning_transfer.metrics.knn_accuracy import KNNAccuracy
    from lightning_transfer.metrics.leep import LEEP
    from lightning_transfer.metrics.lfc import LFC
    from lightning_transfer.metrics.linear_mse import LabelMSE, LinearMSE
    from lightning_transfer.metrics.logme import LogME
    from lightning_transfer.metrics.ncti import NCTI
    from lightning_transfer.metrics.negative_conditional_entropy import NCE, NegativeConditionalEntropy
    from lightning_transfer.metrics.nleep import NLEEP
    from lightning_transfer.metrics.otce import OTCE
    from lightning_transfer.metrics.pactran import PACTran
    from lightning_transfer.metrics.parc import PARC
    from lightning_transfer.metrics.rankme import RankMe
    from lightning_transfer.metrics.ridge_probe import RidgeProbe
    from lightning_transfer.metrics.sfda import SFDA
    from lightning_transfer.metrics.task_hardness import TaskHardness
    from lightning_transfer.metrics.task_relatedness import TaskRelatedness
    from lightning_transfer.metrics.transrate import TransRate

#: Module and class of every score, and the options that it is made with, by the name of its column.
SCORES: dict[str, tuple[str, dict[str, Any]]] = {
    "logme": ("logme:LogME", {}),
    "h_score": ("h_score:HScore", {}),
    "h_score_shrunk": ("h_score:HScore", {"shrinkage": "ledoit_wolf"}),
    "knn_accuracy": ("knn_accuracy:KNNAccuracy", {}),
    "ridge_probe": ("ridge_probe:RidgeProbe", {}),
    "leep": ("leep:LEEP", {}),
    "nce": ("negative_conditional_entropy:NCE", {}),
    "linear_mse": ("linear_mse:LinearMSE", {}),
    "label_mse": ("linear_mse:LabelMSE", {}),
    "gbc": ("gbc:GBC", {}),
    "gbc_streaming": ("gbc:StreamingGBC", {}),
    "lfc": ("lfc:LFC", {}),
    "cka": ("cka:CKA", {}),
    "rankme": ("rankme:RankMe", {}),
    "transrate": ("transrate:TransRate", {}),
    "sfda": ("sfda:SFDA", {}),
    "parc": ("parc:PARC", {}),
    "nleep": ("nleep:NLEEP", {}),
    "ncti": ("ncti:NCTI", {}),
    "etran": ("etran:ETran", {}),
    "pactran": ("pactran:PACTran", {}),
    "pactran_dirichlet": ("pactran:PACTran", {"prior": "dirichlet"}),
    "pactran_gamma": ("pactran:PACTran", {"prior": "gamma"}),
    "emms": ("emms:EMMS", {}),
    "energy": ("energy_score:Energy", {}),
    "task_hardness": ("task_hardness:TaskHardness", {}),
    "otce": ("otce:OTCE", {}),
    "task_relatedness": ("task_relatedness:TaskRelatedness", {}),
}
_MODULES = {name: module for module, name in (path.split(":") for path, _ in SCORES.values())} | {
    "EnergyScore": "energy_score", "NegativeConditionalEntropy": "negative_conditional_entropy"
}  # fmt: skip

__all__ = [
    "CKA",
    "EMMS",
    "GBC",
    "LEEP",
    "LFC",
    "NCE",
    "NCTI",
    "NLEEP",
    "OTCE",
    "PARC",
    "SCORES",
    "SFDA",
    "ETran",
    "Energy",
    "EnergyScore",
    "HScore",
    "KNNAccuracy",
    "LabelMSE",
    "LinearMSE",
    "LogME",
    "NegativeConditionalEntropy",
    "PACTran",
    "RankMe",
    "RidgeProbe",
    "StreamingGBC",
    "TaskHardness",
    "TaskRelatedness",
    "TransRate",
]


def __getattr__(name: str) -> Any:
    """Import a class."""
    if name not in _MODULES:
        raise AttributeError(f"module `lightning_transfer.metrics` has no attribute `{name}`")
    return getattr(importlib.import_module(f"lightning_transfer.metrics.{_MODULES[name]}"), name)
