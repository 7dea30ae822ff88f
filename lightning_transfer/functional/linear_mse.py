"""Linear MSE and label MSE: the error of the best linear map to regression targets, with its sign turned."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lightning_transfer.functional._variants import published
from lightning_transfer.functional.moments import TargetMoments
from lightning_transfer.utilities.checks import check_features, check_in_interval, check_one_of

Variant = Literal["paper", "official"]


def linear_mse(features: Tensor, targets: Tensor, *, regularization: float = 0.0, variant: Variant = "paper") -> Tensor:
    r"""Negative minimum of the regularised squared error of a linear map of the features; higher is better.

    .. math:: -\min_{A, b} \frac{1}{n} \sum_i \lVert y_i - A f_i - b \rVert^2 + \lambda \lVert A \rVert_F^2

    (LinMSE of Nguyen et al., UAI 2023, definition 4.1), with an unpenalised intercept. The squared error is summed over
    outputs and the penalty is part of the score. ``variant="official"`` is what the authors' code returns: the mean
    over outputs of the squared error of the same map, without the penalty. With ``regularization=0`` and no more
    samples than features the map interpolates and the score is 0 for every backbone.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.
        regularization: Lambda, not negative, in units of squared features.
        variant: ``"paper"`` or ``"official"``.

    Returns:
        0-d float64, at most 0, in squared units of the targets.

    Raises:
        ValueError: If an input is malformed or not finite.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import linear_mse
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> targets = torch.tensor([0.0, 2.0, 4.0, 7.0])
        >>> linear_mse(features, targets), linear_mse(features, targets, regularization=1.0)
        (tensor(-0.0750, dtype=torch.float64), tensor(-3.0139, dtype=torch.float64))
    """
    check_linear_mse_arguments(regularization, variant)
    return linear_mse_from_moments(TargetMoments.from_samples(features, targets), regularization, variant)


def label_mse(
    source_outputs: Tensor, targets: Tensor, *, regularization: float = 0.0, variant: Variant = "paper"
) -> Tensor:
    """Linear MSE on the outputs of the source model in place of its features; higher is better.

    LabMSE of Nguyen et al. (UAI 2023, definition 4.2): the outputs of the source model on the target inputs stand in
    for source labels. Where true source labels of the same inputs exist, hand them in: that is the paper's
    shared-inputs form.

    Args:
        source_outputs: Shape ``(n, s)``, or ``(n,)``, any floating dtype: predictions of the source model.
        targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.
        regularization: Lambda, not negative, in squared units of the source outputs.
        variant: ``"paper"`` or ``"official"``, see :func:`linear_mse`.

    Returns:
        0-d float64, at most 0, in squared units of the targets.

    Raises:
        ValueError: If an input is malformed or not finite.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import label_mse
        >>> label_mse(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 4.0, 7.0]))
        tensor(-0.0750, dtype=torch.float64)
    """
    check_linear_mse_arguments(regularization, variant)
    moments = TargetMoments.from_samples(check_source_outputs(source_outputs), targets)
    return linear_mse_from_moments(moments, regularization, variant)


def check_source_outputs(source_outputs: Tensor) -> Tensor:
    """Check outputs of a source model and make them a matrix.

    Raises:
        ValueError: If they are malformed or not finite.
    """
    if isinstance(source_outputs, Tensor) and source_outputs.ndim == 1:
        source_outputs = source_outputs[:, None]
    return check_features(source_outputs, "source_outputs")


def check_linear_mse_arguments(regularization: float, variant: str) -> None:
    """Check the options of linear and label MSE.

    Raises:
        ValueError: If the strength is negative or the variant unknown.
    """
    check_in_interval(regularization, 0, float("inf"), "regularization")
    check_one_of(variant, ("paper", "official"), "variant")


def linear_mse_from_moments(moments: TargetMoments, regularization: float, variant: Variant) -> Tensor:
    """Compute linear MSE from moments; see :func:`linear_mse`."""
    if variant == "official":
        score: Tensor = published("linear_mse", "linear_mse_from_moments")(moments, regularization)
        return score
    return 0.0 - moments.least_squares(moments.count * regularization).objective.sum() / moments.count
