"""Energy of the outputs of a source model, the label-free part of ETran."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_features, check_in_interval, flatten_features


def energy_score(source_outputs: Tensor, *, lowest_fraction: float = 1.0) -> Tensor:
    r"""Mean negative free energy of the outputs of a source model (Gholami et al., ICCV 2023); higher is better.

    .. math:: \frac1n \sum_i \log \sum_j \exp f_{ij}

    A model to which the target looks familiar gives it low energy, that is a high score. No labels are needed. The
    score depends on the scale of the outputs: compare models of one kind, or use ETran, which scales it over a zoo.

    Args:
        source_outputs: Logits of the source model, shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)``
            too), any floating dtype; the code published with ETran hands in features instead.
        lowest_fraction: Average over this fraction of the samples only, those with the lowest score (at least one); the
            code published with ETran uses 0.005.

    Returns:
        0-d float64, nats.

    Raises:
        ValueError: If ``source_outputs`` is malformed or not finite, or the fraction is not in ``(0, 1]``.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import energy_score
        >>> energy_score(torch.zeros(3, 4))  # log 4
        tensor(1.3863, dtype=torch.float64)
    """
    check_fraction(lowest_fraction)
    return mean_of_lowest(sample_energies(source_outputs), lowest_fraction)


energy = energy_score  # the name of the column


def check_fraction(lowest_fraction: float) -> None:
    """Check the fraction of samples.

    Raises:
        ValueError: If it is not in ``(0, 1]``.
    """
    if check_in_interval(lowest_fraction, 0, 1, "lowest_fraction") == 0:
        raise ValueError("Expected argument `lowest_fraction` to be greater than 0, but got 0.")


def sample_energies(source_outputs: Tensor) -> Tensor:
    """Log of the summed exponentials of each sample or position, shape ``(n,)``, float64."""
    return torch.logsumexp(check_features(flatten_features(source_outputs), "source_outputs").double(), dim=1)


def mean_of_lowest(scores: Tensor, fraction: float) -> Tensor:
    """Mean of the lowest ``fraction`` of the scores (at least one of them), 0-d."""
    count = max(1, round(fraction * len(scores)))
    return scores.sort().values[:count].mean()
