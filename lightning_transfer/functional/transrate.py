"""TransRate: how many nats of coding rate the class ids explain."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional._rows import LabelledRows, labelled_rows
from lightning_transfer.functional._variants import published
from lightning_transfer.utilities.checks import check_in_interval, check_one_of, flatten_positions
from lightning_transfer.utilities.linalg import gram

_LARGE = 1e7


def transrate(
    features: Tensor, labels: Tensor, *, eps: float = 1e-4, variant: str = "paper", ignore_index: int | None = None
) -> Tensor:
    r"""Compute TransRate (Huang et al., ICML 2022).

    .. math::
        \mathrm{TrR} = R(Z) - R(Z | Y), \qquad R(Z) = \tfrac{1}{2} \log\det\big(I + \tfrac{1}{n \epsilon} Z^\top Z\big)

    with features ``Z`` centred by their overall mean. ``R(Z|Y)`` is the conditional coding rate
    :math:`\sum_c \frac{n_c}{n} R(Z_c)`: with these weights the score is an approximate mutual information, at least 0.
    The listing printed in the paper (and TLlib, which ships it) takes the plain mean over classes instead:
    ``"official"``; with classes of equal size the two agree.

    The distortion ``eps`` is absolute, so the score grows with the scale of the features; it is invariant under
    rotation and translation.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        eps: Distortion, in [1e-15, 1e15], in squared units of the features.
        variant: ``"paper"`` or ``"official"``.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor, in nats; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.transrate import transrate
        >>> features = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> transrate(features, torch.tensor([0, 0, 1, 1, 2, 2]))
        tensor(1.9227, dtype=torch.float64)
    """
    check_transrate_options(eps, variant)
    if variant == "official":
        score: Tensor = published("transrate")(features, labels, eps=eps, ignore_index=ignore_index)
        return score
    data = labelled_rows(*flatten_positions(features, labels, ignore_index), rotate=True)
    given_class = data.counts @ class_rates(data, eps) / len(data.rows)
    return (coding_rate(data.rows, eps) - given_class).clamp(min=0)


def check_transrate_options(eps: float, variant: str) -> None:
    """Check the options of :func:`transrate`.

    Raises:
        ValueError: If one is malformed.
    """
    check_one_of(variant, ("paper", "official"), "variant")
    check_in_interval(eps, 1e-15, 1e15, "eps")


def class_rates(data: LabelledRows, eps: float) -> Tensor:
    """Coding rates of the classes, shape ``(c,)``, nats."""
    return torch.stack([coding_rate(rows, eps) for rows in data.by_class()])


def coding_rate(rows: Tensor, eps: float) -> Tensor:
    """Coding rate of rows ``(n, r)``, 0-d, nats; see :func:`transrate`."""
    n, d = rows.shape
    rows = rows / (n * eps) ** 0.5
    if float(rows.square().sum()) > _LARGE:  # squared, small directions would be lost beside large ones
        rate: Tensor = torch.linalg.svdvals(rows).square().log1p().sum() / 2
        return rate
    small = gram(rows if d <= n else rows.T)
    small.diagonal().add_(1.0)
    rate = torch.linalg.cholesky(small).diagonal().log().sum()
    return rate
