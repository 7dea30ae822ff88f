"""LogME as a Metric, for class ids, multi-label columns or regression targets."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional.logme import log_maximum_evidence_from_moments
from lightning_transfer.functional.moments import SupervisedMoments
from lightning_transfer.metrics.moments import MomentMetric


class LogME(MomentMetric):
    """Logarithm of the maximum evidence, streamed in constant memory (You et al., ICML 2021); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)``; with ``task="multilabel"`` zeros and ones ``(n, l)``.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``logme`` (:class:`~torch.Tensor`): 0-d float64, nats a sample, see
      :func:`lightning_transfer.functional.log_maximum_evidence`.

    Args:
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``.
        num_classes: Class ids must lie below it, where given; otherwise the states grow with the ids seen.
        jackknife_groups: Number of partial sums for ``compute_with_interval``; 1 for none.
        ignore_index: Samples with this class id are left out.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import LogME
        >>> features = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 0.0], [5.5, 2.0], [7.0, 0.5], [8.0, 3.5]])
        >>> metric = LogME()
        >>> metric.update(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> metric.compute()
        tensor(-0.6509, dtype=torch.float64)
        >>> metric = LogME(task="regression")
        >>> metric.update(features=features, targets=torch.tensor([0.1, 0.9, 2.2, 5.2, 7.4, 7.6]))
        >>> metric.compute()
        tensor(-1.0533, dtype=torch.float64)
    """

    name = "logme"
    title = "LogME"
    tasks = ("classification", "multilabel", "regression")

    def _score(self, moments: SupervisedMoments) -> Tensor:
        return log_maximum_evidence_from_moments(moments)
