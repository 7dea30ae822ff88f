"""LFC: label-feature correlation, the alignment of two kernels over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.moments import ClassMoments


def lfc(features: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Compute the label-feature correlation (Deshpande et al., 2021).

    The cosine of the kernel matrix :math:`X X^\top` and the label matrix (1 for pairs of one class, -1 for others),
    from both of which the mean over all entries is taken first. Neither matrix is formed: the score follows exactly
    from moments. It is invariant under rotation and scaling of the features, not under translation.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor in [-1, 1], 0 where all features are the same; higher is better.

    Raises:
        ValueError: If an input is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.lfc import lfc
        >>> lfc(torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0], [0.1, 0.7]]), torch.tensor([0, 0, 5, 5]))
        tensor(0.9341, dtype=torch.float64)
    """
    return lfc_from_moments(ClassMoments.from_samples(features, labels, ignore_index))


def lfc_from_moments(moments: ClassMoments) -> Tensor:
    r"""Compute the label-feature correlation from moments.

    With centred features Z, their mean m, scatter S and class offsets :math:`o_c`: the centred kernel is
    :math:`Z Z^\top + (Z m) 1^\top + 1 (Z m)^\top`, so its squared norm is :math:`|S|^2 + 2 n\, m^\top S m` and its
    product with the indicator of pairs of one class :math:`\sum_c n_c^2 (|o_c|^2 + 2\, o_c \cdot m)`.
    """
    n, mean, counts, offsets = moments.count, moments.mean, moments.counts, moments.class_offsets
    kernel = moments.scatter_square + 2 * n * moments.mean_variation
    pairs = counts.square()
    indicator = pairs.sum() - pairs.sum().square() / n**2
    along = 2 * (counts * (counts - pairs.sum() / n)) @ (offsets @ mean)  # the offsets of all samples sum to zero
    cosine = (pairs @ offsets.square().sum(1) + along) / kernel.sqrt() / indicator.sqrt()
    return torch.where(kernel > 0, cosine.clamp(-1, 1), torch.zeros_like(cosine))
