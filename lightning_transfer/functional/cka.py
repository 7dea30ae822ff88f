"""CKA of features and classes: the centred alignment of two kernels over samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.moments import ClassMoments


def cka(features: Tensor, labels: Tensor, *, ignore_index: int | None = None) -> Tensor:
    r"""Compute the linear centred kernel alignment of features and classes (Kornblith et al., ICML 2019, eq. 3).

    .. math:: \frac{\lVert Y^\top H X \rVert_F^2}{\lVert X^\top H X \rVert_F\, \lVert Y^\top H Y \rVert_F}

    for features ``X``, one-hot classes ``Y`` and centring ``H``. Kite (Guo, 2024) takes it for the separability of the
    features, there divided by the alignment with the features of a random network, for which both networks would have
    to see the same samples at once. :func:`~lightning_transfer.functional.lfc` is a like cosine of features that are
    not centred; this one is invariant under translation too, beside rotation and scaling.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps, absent classes are ignored.
        ignore_index: Samples with this label are left out.

    Returns:
        0-d float64 tensor in [0, 1], 0 where all features are the same; higher is better.

    Raises:
        ValueError: If an input is malformed, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import cka
        >>> cka(torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.0, 1.0], [0.1, 0.7]]), torch.tensor([0, 0, 5, 5]))
        tensor(0.9595, dtype=torch.float64)
    """
    return cka_from_moments(ClassMoments.from_samples(features, labels, ignore_index))


def cka_from_moments(moments: ClassMoments) -> Tensor:
    r"""Compute the alignment from moments.

    With the offsets :math:`o_c` of the class means from the mean, the numerator is :math:`\sum_c n_c^2 |o_c|^2`.
    """
    counts = moments.counts
    pairs = counts.square()
    along = pairs @ moments.class_offsets.square().sum(1)
    classes = pairs.sum() - 2 * (pairs @ counts) / moments.count + (pairs.sum() / moments.count).square()
    square = moments.scatter_square
    return torch.where(square > 0, (along / square.sqrt() / classes.sqrt()).clamp(0, 1), torch.zeros_like(square))
