"""Every score as a pure function of tensors."""

from lightning_transfer.functional.h_score import h_score
from lightning_transfer.functional.linear_mse import label_mse, linear_mse
from lightning_transfer.functional.logme import log_maximum_evidence
from lightning_transfer.functional.ridge_probe import ridge_probe

__all__ = ["h_score", "label_mse", "linear_mse", "log_maximum_evidence", "ridge_probe"]
