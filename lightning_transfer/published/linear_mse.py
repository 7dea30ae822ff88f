"""Linear MSE and label MSE as the released code returns them."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional.linear_mse import check_linear_mse_arguments, check_source_outputs
from lightning_transfer.functional.moments import TargetMoments


def linear_mse(features: Tensor, targets: Tensor, *, regularization: float = 0.0) -> Tensor:
    """Mean over outputs of the squared error of the best regularised map, without the penalty, negated.

    Args and errors are those of :func:`lightning_transfer.functional.linear_mse` (Nguyen et al., UAI 2023).

    Example:
        >>> import torch
        >>> from lightning_transfer.published.linear_mse import linear_mse
        >>> features, targets = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0.0, 2.0, 4.0, 7.0])
        >>> linear_mse(features, targets, regularization=1.0)
        tensor(-1.3812, dtype=torch.float64)
    """
    check_linear_mse_arguments(regularization, "official")
    return linear_mse_from_moments(TargetMoments.from_samples(features, targets), regularization)


def label_mse(source_outputs: Tensor, targets: Tensor, *, regularization: float = 0.0) -> Tensor:
    """The same of the outputs of the source model; see :func:`lightning_transfer.functional.label_mse`."""
    return linear_mse(check_source_outputs(source_outputs), targets, regularization=regularization)


def linear_mse_from_moments(moments: TargetMoments, regularization: float) -> Tensor:
    """The score from moments."""
    fit = moments.least_squares(moments.count * regularization)
    return 0.0 - (fit.objective / moments.count - regularization * fit.weights).clamp(min=0).mean()
