"""Task hardness as a Metric."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_transfer.functional.counts import all_ignored, conditional_entropy
from lightning_transfer.functional.task_hardness import flatten_labels
from lightning_transfer.metrics.counts import CountMetric


class TaskHardness(CountMetric):
    """Entropy of the labels, from exact integer counts (Tran et al., ICCV 2019, eq. 14); higher is HARDER.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, or ``(n, m)`` for ``m`` labels a sample, any
    integer
      dtype; pixels ``(b, h, w)`` are flattened, and any shape is with ``ignore_index``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``task_hardness`` (:class:`~torch.Tensor`): 0-d float64, nats, in ``[0, log(classes)]``, see
      :func:`lightning_transfer.functional.task_hardness`. ``higher_is_better`` is False.

    Args:
        miller_madow: Correct the leading term of the bias of small samples.
        jackknife_groups: Number of partial counts for ``compute_with_interval``; 1 for none.
        ignore_index: Positions with this label are left out; labels are then flattened.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import TaskHardness
        >>> metric = TaskHardness()
        >>> metric.update(torch.tensor([0, 0, 1, 1]))
        >>> metric.compute()
        tensor(0.6931, dtype=torch.float64)
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float = 0.0
    name = "task_hardness"
    title = "Task hardness"
    tasks = ("classification", "multilabel")
    requires = ("labels",)

    def update(self, labels: Tensor, groups: Tensor | None = None) -> None:
        """Add a batch of class ids to the counts.

        Args:
            labels: Shape ``(n,)`` or ``(n, m)``, any integer dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If ``labels`` is malformed.
        """
        if all_ignored(labels, self.ignore_index):
            return
        columns = self._checked_columns(flatten_labels(labels, self.ignore_index))
        positions = labels.shape if self.ignore_index is not None or labels.ndim == 3 else labels.shape[:1]
        self._count(torch.zeros_like(columns[:, 0]), columns, self._check_groups(groups, positions, labels))

    def score_range(self) -> tuple[float, float]:
        """Limits ``[0, log(classes)]``, moved by the correction."""
        correction = self._correction()
        return correction, math.log(int((self._totals() > 0).sum(-1).max())) + correction

    def _score(self, counts: Tensor) -> Tensor:
        return conditional_entropy(counts, self.miller_madow).mean()
