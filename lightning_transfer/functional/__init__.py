"""Every score as a pure function of tensors."""

from lightning_transfer.functional.cka import cka
from lightning_transfer.functional.emms import emms
from lightning_transfer.functional.energy_score import energy, energy_score
from lightning_transfer.functional.etran import combine_etran, etran, etran_parts
from lightning_transfer.functional.gbc import gbc
from lightning_transfer.functional.h_score import h_score
from lightning_transfer.functional.knn_accuracy import knn_accuracy
from lightning_transfer.functional.leep import leep
from lightning_transfer.functional.lfc import lfc
from lightning_transfer.functional.linear_mse import label_mse, linear_mse
from lightning_transfer.functional.logme import log_maximum_evidence, logme
from lightning_transfer.functional.ncti import combine_ncti, ncti, ncti_parts
from lightning_transfer.functional.negative_conditional_entropy import (
    conditional_entropy_matrix,
    nce,
    negative_conditional_entropy,
)
from lightning_transfer.functional.nleep import nleep
from lightning_transfer.functional.otce import otce
from lightning_transfer.functional.pactran import pactran, pactran_dirichlet, pactran_gamma
from lightning_transfer.functional.parc import parc
from lightning_transfer.functional.rankme import rankme
from lightning_transfer.functional.ridge_probe import ridge_probe
from lightning_transfer.functional.sfda import sfda, sfda_first_step
from lightning_transfer.functional.task_hardness import task_hardness
from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.functional.transrate import transrate

__all__ = [
    "cka",
    "combine_etran",
    "combine_ncti",
    "conditional_entropy_matrix",
    "emms",
    "energy",
    "energy_score",
    "etran",
    "etran_parts",
    "gbc",
    "h_score",
    "knn_accuracy",
    "label_mse",
    "leep",
    "lfc",
    "linear_mse",
    "log_maximum_evidence",
    "logme",
    "nce",
    "ncti",
    "ncti_parts",
    "negative_conditional_entropy",
    "nleep",
    "otce",
    "pactran",
    "pactran_dirichlet",
    "pactran_gamma",
    "parc",
    "rankme",
    "ridge_probe",
    "sfda",
    "sfda_first_step",
    "task_hardness",
    "task_relatedness",
    "transrate",
]
