"""ETran: energy of the features plus how well a linear model reads the target from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_transfer.functional._discriminant import (
    adaptive_shrinkage,
    log_posterior,
    true_class,
    whiten,
    within_spectrum,
)
from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional._variants import published
from lightning_transfer.functional._zoo import scale_parts
from lightning_transfer.functional.moments import TargetMoments
from lightning_transfer.utilities.checks import check_features, check_in_interval, check_one_of, flatten_positions

ENERGY_WEIGHT = 0.15  # share of the energy in the published score


def etran_parts(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> dict[str, Tensor]:
    r"""Compute the two raw parts of ETran (Gholami et al., ICCV 2023).

    - ``energy``: mean of :math:`\log \sum_j e^{x_j}` over samples (the negative energy of the features: larger says
      more in-distribution);
    - ``fit``: for class ids the mean probability of the true class under a linear discriminant with the shrinkage of
      SFDA; for regression targets minus the mean squared residual after projection on the span of the features.

    The published code averages the energy over the lowest 0.5 % of samples only (here at least one), and hands a
    non-symmetric matrix to a symmetric eigensolver, which makes its discriminant one with identity covariance:
    ``variant="official"``. The regression part is the same in both.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Class ids, shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        targets: Regression targets instead of labels, shape ``(n,)`` or ``(n, m)``, any floating dtype.
        variant: ``"paper"`` or ``"official"``.
        ignore_index: Samples with this label are left out.

    Returns:
        Two 0-d float64 tensors, for :func:`combine_etran`.

    Raises:
        ValueError: If an input or option is malformed, or not exactly one of labels and targets is given.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.etran import etran_parts
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> {name: round(float(part), 4) for name, part in etran_parts(features, torch.tensor([0, 0, 1, 1])).items()}
        {'energy': 1.2698, 'fit': 0.9924}
    """
    check_one_of(variant, ("paper", "official"), "variant")
    if (labels is None) == (targets is None):
        raise ValueError("Expected exactly one of the arguments `labels` and `targets`, but got both or neither.")
    if labels is not None:
        features, labels = flatten_positions(features, labels, ignore_index)
    energies = check_features(features).double().logsumexp(dim=1)
    if variant == "official":
        energies = published("etran", "lowest_energies")(energies)
    if targets is not None:
        fit = 0.0 - _projection_residual(TargetMoments.from_samples(features, targets))
    else:
        assert labels is not None
        data = labelled_rows(features, labels, rotate=True)
        fit = published("etran", "discriminant_fit")(data) if variant == "official" else _discriminant_fit(data)
    return {"energy": energies.mean(), "fit": fit}


def etran(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    """Compute the raw ETran of one model: ``0.15 * energy + 0.85 * fit``.

    The published score scales both parts over the models compared before it adds them up, so it exists for a zoo only:
    pass the :func:`etran_parts` of each model to :func:`combine_etran`.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Class ids, shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        targets: Regression targets instead of labels, shape ``(n,)`` or ``(n, m)``, any floating dtype.
        variant: ``"paper"`` or ``"official"``, see :func:`etran_parts`.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or not exactly one of labels and targets is given.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.etran import etran
        >>> etran(torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]]), torch.tensor([0, 0, 1, 1]))
        tensor(1.0340, dtype=torch.float64)
    """
    parts = etran_parts(features, labels, targets=targets, variant=variant, ignore_index=ignore_index)
    return ENERGY_WEIGHT * parts["energy"] + (1 - ENERGY_WEIGHT) * parts["fit"]


def combine_etran(
    parts_of_zoo: Sequence[Mapping[str, Tensor | float]], *, energy_weight: float = ENERGY_WEIGHT
) -> Tensor:
    """Combine the parts of a zoo into the published score: a weighted sum of both parts, each scaled to [0, 1].

    Args:
        parts_of_zoo: The :func:`etran_parts` of each model, all on the same target data.
        energy_weight: Share of the energy, in [0, 1].

    Returns:
        Shape ``(m,)``, float64, in [0, 1]; higher is better. A part equal for all models counts 0.5 for each.

    Raises:
        ValueError: If there is no model, a model lacks a part, or a part or the weight is malformed.

    Example:
        >>> from lightning_transfer.functional.etran import combine_etran
        >>> combine_etran([{"energy": 2.0, "fit": 0.5}, {"energy": 1.0, "fit": 0.7}])
        tensor([0.1500, 0.8500], dtype=torch.float64)
    """
    check_in_interval(energy_weight, 0.0, 1.0, "energy_weight")
    scaled = scale_parts(parts_of_zoo, ("energy", "fit"))
    return energy_weight * scaled["energy"] + (1 - energy_weight) * scaled["fit"]


def _discriminant_fit(data: LabelledRows) -> Tensor:
    within = within_spectrum(data)
    data = data._replace(rows=whiten(data, within, adaptive_shrinkage(within.values)))
    return true_class(log_posterior(data), data).exp().mean()


def _projection_residual(moments: TargetMoments) -> Tensor:
    """Mean square of what the targets keep after projection on the columns of the features, neither centred."""
    coordinates, left_over = moments.principal_coordinates
    if float(moments.mean_outside) == 0:  # else the columns span the constant too, and all is as if centred
        slope = moments.mean_along / moments.scatter_spectrum.values.sqrt()
        missed = moments.target_mean - coordinates @ slope
        left_over = left_over + moments.count * missed.square() / (1 + moments.count * slope.square().sum())
    return left_over.sum() / (moments.count * len(left_over))
