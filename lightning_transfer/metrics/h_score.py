"""H-score as a Metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_transfer.functional.h_score import (
    Shrinkage,
    check_shrinkage,
    h_score_from_moments,
    ledoit_wolf_shrinkage,
)
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.metrics.base import Health
from lightning_transfer.metrics.moments import MomentMetric


class HScore(MomentMetric):
    """H-score, streamed in constant memory (Bao et al., ICIP 2019, eq. 4); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``h_score`` (:class:`~torch.Tensor`): 0-d float64 in ``[0, min(rank, classes - 1)]``, see
      :func:`lightning_transfer.functional.h_score`.

    Args:
        shrinkage: None for the plain score, ``"ledoit_wolf"``, or a strength in ``[0, 1]``.
        num_classes: Class ids must lie below it, where given; otherwise the states grow with the ids seen.
        jackknife_groups: Number of partial sums for ``compute_with_interval``; 1 for none.
        ignore_index: Samples with this label are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import HScore
        >>> metric = HScore()
        >>> metric.update(torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0]]), torch.tensor([0, 0, 0]))
        >>> metric.update(torch.tensor([[5.5, 2.0], [7.0, 0.5], [8.0, 3.5]]), torch.tensor([1, 1, 1]))
        >>> metric.compute()
        tensor(0.9081, dtype=torch.float64)
    """

    plot_lower_bound: float = 0.0
    name = "h_score"
    title = "H-score"

    def __init__(self, shrinkage: Shrinkage = None, num_classes: int | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes=num_classes, **kwargs)
        check_shrinkage(shrinkage)
        self.shrinkage = shrinkage
        if shrinkage is not None:
            self.name, self.title = "h_score_shrunk", "H-score (shrunk)"

    def score_range(self) -> tuple[float, float]:
        """Limits ``[0, min(features, classes - 1)]``."""
        moments = self._totals()
        return 0.0, float(min(moments.num_features, moments.num_classes - 1))

    @property
    def _unregularised(self) -> bool:
        return not self.shrinkage

    def _examine(self) -> Health:
        record = super()._examine()
        if isinstance(self.shrinkage, str) and float(ledoit_wolf_shrinkage(self._totals())) == 1:
            message = "the shrinkage is 1, so the score is 0: the samples are too few to tell features from noise"
            record = replace(record, messages=(*record.messages, message))
        return record

    def _score(self, moments: ClassMoments) -> Tensor:
        return h_score_from_moments(moments, self.shrinkage)
