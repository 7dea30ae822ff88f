"""TransRate as the listing in the paper and TLlib have it."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional._rows import labelled_rows
from lightning_transfer.functional.transrate import check_transrate_options, class_rates, coding_rate
from lightning_transfer.utilities.checks import flatten_positions


def transrate(features: Tensor, labels: Tensor, *, eps: float = 1e-4, ignore_index: int | None = None) -> Tensor:
    """TransRate with the plain mean over classes in place of one weighted by their sizes (Huang et al., ICML 2022).

    With classes of equal size it is :func:`lightning_transfer.functional.transrate`, whose arguments and errors it has;
    with others it can be negative.

    Returns:
        0-d float64, in nats; higher is better.

    Example:
        >>> import torch
        >>> from lightning_transfer.published.transrate import transrate
        >>> features = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> transrate(features, torch.tensor([0, 0, 1, 1, 2]))
        tensor(2.4651, dtype=torch.float64)
    """
    check_transrate_options(eps, "official")
    data = labelled_rows(*flatten_positions(features, labels, ignore_index), rotate=True)
    return coding_rate(data.rows, eps) - class_rates(data, eps).mean()
