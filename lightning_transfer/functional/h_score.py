"""H-score: how much of the variation of whitened features the class means explain."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.utilities.checks import check_in_interval

Shrinkage = Literal["ledoit_wolf"] | float | None


def h_score(
    features: Tensor, labels: Tensor, *, shrinkage: Shrinkage = None, ignore_index: int | None = None
) -> Tensor:
    r"""H-score of features for a classification task (Bao et al., ICIP 2019, eq. 4); higher is better.

    .. math:: H = \operatorname{tr}\bigl(\operatorname{cov}(f)^{+} \operatorname{cov}(E[f \mid y])\bigr)

    the sum of the squared canonical correlations between features and classes. It lies in
    ``[0, min(rank, classes - 1)]`` and does not change under invertible affine maps of the features. With fewer samples
    than features it saturates at its upper limit and says nothing: use ``shrinkage``, which replaces the covariance
    ``S`` by ``(1 - a) S + a tr(S) / d I`` and scales the class term by ``1 - a`` (Ibrahim et al., 2022).

    Args:
        features: Shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too).
        labels: Class ids, shape ``(n,)``, any integer dtype; ids may have gaps.
        shrinkage: None for the plain score, ``"ledoit_wolf"`` for the optimal strength of Ledoit and Wolf (2004), or a
            strength in ``[0, 1]``.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64, without unit.

    Raises:
        ValueError: If an input is malformed, not finite or holds fewer than two classes.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import h_score
        >>> features = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.5, 2.0], [7.0, 0.5], [8.0, 3.5]])
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> h_score(features, labels), h_score(features, labels, shrinkage="ledoit_wolf")
        (tensor(0.9081, dtype=torch.float64), tensor(0.7146, dtype=torch.float64))
    """
    check_shrinkage(shrinkage)
    return h_score_from_moments(ClassMoments.from_samples(features, labels, ignore_index), shrinkage)


def check_shrinkage(shrinkage: Shrinkage) -> None:
    """Check the choice of shrinkage.

    Raises:
        ValueError: If it is neither None, ``"ledoit_wolf"`` nor a number in ``[0, 1]``.
    """
    if isinstance(shrinkage, str):
        if shrinkage != "ledoit_wolf":
            raise ValueError(
                f"Expected argument `shrinkage` to be None, 'ledoit_wolf' or a number in [0, 1], but got {shrinkage!r}."
            )
    elif shrinkage is not None:
        check_in_interval(shrinkage, 0, 1, "shrinkage")


def h_score_from_moments(moments: ClassMoments, shrinkage: Shrinkage = None) -> Tensor:
    """Compute the H-score from moments; see :func:`h_score`."""
    strength = float(ledoit_wolf_shrinkage(moments)) if isinstance(shrinkage, str) else float(shrinkage or 0)
    if strength == 1 or float(moments.total_variance) == 0:
        return moments.total_variance.new_zeros(())
    # (1 - a) S + a tr(S) / d I is S + penalty I, but for a factor that cancels
    penalty = moments.count * float(moments.total_variance) / moments.num_features * strength / (1 - strength)
    score = (moments.least_squares(penalty).explained / moments.counts).sum()
    return score.clamp(0, min(moments.rank if penalty == 0 else moments.num_features, moments.num_classes - 1))


def ledoit_wolf_shrinkage(moments: ClassMoments) -> Tensor:
    """Optimal strength of shrinkage towards a multiple of the identity (Ledoit and Wolf, 2004), 0-d in [0, 1]."""
    covariance_square = moments.scatter_square / moments.count**2
    trace = moments.total_variance
    distance = covariance_square - trace.square() / moments.num_features
    spread = (moments.centred_norm_fourth / moments.count - covariance_square) / moments.count
    isotropic = distance <= 1e-14 * covariance_square
    return torch.where(isotropic, torch.zeros_like(trace), (spread / distance).clamp(0, 1))
