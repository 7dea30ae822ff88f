"""From the loss on a sample to the expected loss on new samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMOOTHING = 0.02  # weight of the prior in the classifier that is bounded
_BETS = (0.05, 0.15, 0.4, 0.7, 0.95)


def smoothed(log_probabilities: Tensor, log_prior: Tensor) -> Tensor:
    """Mix predictions with a prior, so that no loss is larger than ``-log(w min prior)``.

    Args:
        log_probabilities: Shape ``(n, K)``.
        log_prior: Without minus infinity, shape ``(K,)``.

    Returns:
        Log-probabilities ``log((1 - w) p + w prior)``, shape ``(n, K)``.
    """
    return torch.logaddexp(log_probabilities + math.log1p(-SMOOTHING), log_prior + math.log(SMOOTHING))


def mean_bound(losses: Tensor, largest: float, confidence: float) -> float:
    r"""Upper bound of the expectation of losses from independent samples of them, by betting.

    For losses in :math:`[0, R]` scaled to the unit interval, a mean of :math:`m` would make
    :math:`\prod_i (1 + \lambda (m - x_i))` a wealth of expectation one, for any bet :math:`\lambda \le 1 / (1 - m)`
    fixed beforehand, and so the mean of the wealths of several bets. By Markov's inequality it exceeds
    :math:`1 / \alpha` with probability at most :math:`\alpha`; the wealth grows with :math:`m`, and the answer is where
    it gets there. (Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 2023,
    Proposition 2, with bets that do not depend on the order of the samples.)

    Args:
        losses: Shape ``(n,)``, in ``[0, largest]``.
        largest: Largest possible loss.
        confidence: Probability with which the answer shall be right, in (0, 1).

    Returns:
        The bound, at most ``largest``.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.population import mean_bound
        >>> losses = torch.tensor([0.0, 1.0]).double().repeat(250)
        >>> 0.5 < mean_bound(losses, 1.0, 0.95) < 0.6
        True
    """
    from scipy.optimize import brentq

    x = (losses / largest).clamp(0, 1)
    bets = x.new_tensor(_BETS)

    def wealth(m: float) -> float:
        logs = torch.log1p(bets[:, None] * (m - x) / (1 - m)).sum(1)
        return float(torch.logsumexp(logs, 0)) - math.log(len(bets)) + math.log(1 - confidence)

    low, high = float(x.mean()), 1 - 1e-9
    if low >= high or wealth(high) <= 0:
        return largest
    return largest * float(brentq(wealth, low, high, xtol=1e-12))
