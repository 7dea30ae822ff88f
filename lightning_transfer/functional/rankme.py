"""RankMe: the effective rank of the features, without labels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.utilities.checks import check_features, flatten_features

EPS = 1e-7  # of the paper


def rankme(features: Tensor) -> Tensor:
    r"""Compute RankMe, the effective rank of the features (Garrido et al., ICML 2023, eq. 1).

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad p_k = \frac{\sigma_k}{\lVert\sigma\rVert_1} + \epsilon

    for the singular values :math:`\sigma` of the features as they are (not centred) and :math:`\epsilon = 10^{-7}`. It
    reads no labels: it tells collapsed features from others, not features that suit a target from others that do not.
    It is invariant under rotation and scaling of the features, not under translation, and it grows with their width and
    with the number of samples while there are few of them: compare on equally many samples, in the paper 25 600.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.

    Returns:
        0-d float64 tensor, up to ``min(n, d)`` (and what ``epsilon`` adds); 0 where all features are 0; higher is
        better.

    Raises:
        ValueError: If ``features`` are malformed or not finite.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import rankme
        >>> rankme(torch.eye(4)).round(decimals=4), rankme(torch.ones(4, 4)).round(decimals=4)
        (tensor(4., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    rows = check_features(flatten_features(features)).double()
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R
    values = torch.linalg.svdvals(rows)
    total = values.sum()
    if not bool(total > 0):
        return torch.zeros_like(total)
    shares = values / total + EPS
    entropy: Tensor = -(shares * shares.log()).sum()
    return entropy.exp()


def largest_rank(n: int, d: int) -> float:
    """The largest score that ``n`` samples of ``d`` features can have: that of equal singular values."""
    count = min(n, d)
    share = torch.tensor(1 / count + EPS, dtype=torch.float64)
    return float((-count * share * share.log()).exp())
