"""Every score as a pure function of tensors."""

from lightning_transfer.functional.energy_score import energy_score
from lightning_transfer.functional.h_score import h_score
from lightning_transfer.functional.knn_accuracy import knn_accuracy
from lightning_transfer.functional.leep import leep
from lightning_transfer.functional.linear_mse import label_mse, linear_mse
from lightning_transfer.functional.logme import log_maximum_evidence
from lightning_transfer.functional.negative_conditional_entropy import (
    conditional_entropy_matrix,
    negative_conditional_entropy,
)
from lightning_transfer.functional.nleep import nleep
from lightning_transfer.functional.otce import otce
from lightning_transfer.functional.ridge_probe import ridge_probe
from lightning_transfer.functional.task_hardness import task_hardness

__all__ = [
    "conditional_entropy_matrix",
    "energy_score",
    "h_score",
    "knn_accuracy",
    "label_mse",
    "leep",
    "linear_mse",
    "log_maximum_evidence",
    "negative_conditional_entropy",
    "nleep",
    "otce",
    "ridge_probe",
    "task_hardness",
]
