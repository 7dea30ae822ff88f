"""CKA of features and classes as a Metric."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional.cka import cka_from_moments
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.metrics.moments import MomentMetric


class CKA(MomentMetric):
    """Centred kernel alignment of features and classes, streamed exactly in constant memory; higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``cka`` (:class:`~torch.Tensor`): 0-d float64 in [0, 1], see :func:`lightning_transfer.functional.cka`.

    Args:
        num_classes: Class ids must lie below it, where given; otherwise the states grow with the ids seen.
        jackknife_groups: Number of partial sums for ``compute_with_interval``; 1 for none.
        ignore_index: Samples with this class id are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import CKA
        >>> metric = CKA()
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.9, 0.2]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.1, 0.7]]), torch.tensor([5, 5]))
        >>> metric.compute()
        tensor(0.9595, dtype=torch.float64)
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    name = "cka"
    title = "CKA"

    def score_range(self) -> tuple[float, float]:
        """Limits ``[0, 1]``."""
        return 0.0, 1.0

    def _score(self, moments: ClassMoments) -> Tensor:
        return cka_from_moments(moments)
