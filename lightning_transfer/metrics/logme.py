"""LogME as a Metric, for class ids, multi-label columns or regression targets."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_transfer.functional.logme import log_maximum_evidence_from_moments
from lightning_transfer.functional.moments import FeatureMoments
from lightning_transfer.metrics.base import TransferMetric
from lightning_transfer.metrics.moments import ClassMomentMetric, MultilabelMomentMetric, TargetMomentMetric
from lightning_transfer.utilities.checks import check_one_of


class _Evidence(TransferMetric):
    """What the kinds of task share."""

    plot_legend_name: str = "LogME"
    _decomposes = True

    def _score(self, moments: FeatureMoments) -> Tensor:
        return log_maximum_evidence_from_moments(moments)


class _ClassLogME(_Evidence, ClassMomentMetric):
    """LogME of class ids."""


class _TargetLogME(_Evidence, TargetMomentMetric):
    """LogME of regression targets."""


class _MultilabelLogME(_Evidence, MultilabelMomentMetric):
    """LogME of 0/1 columns, each a target."""


class LogME(TransferMetric):
    """Logarithm of the maximum evidence, streamed in constant memory (You et al., ICML 2021); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)``; with ``task="multilabel"`` zeros and ones ``(n, l)``.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``logme`` (:class:`~torch.Tensor`): 0-d float64, nats a sample, see
      :func:`lightning_transfer.functional.log_maximum_evidence`.

    ``LogME(...)`` makes an instance of the class for its task, so that scores of classes share their states with
    the other moment-based metrics of a ``MetricCollection``.

    Args:
        task: ``"classification"``, ``"multilabel"`` or ``"regression"``.
        kwargs: ``num_classes``, ``ignore_index`` (classification), ``jackknife_groups``, and keyword arguments of
            :class:`torchmetrics.Metric`.

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

    def __new__(
        cls, task: Literal["classification", "multilabel", "regression"] = "classification", **kwargs: Any
    ) -> Any:
        """Make an instance of the class for the task."""
        check_one_of(task, ("classification", "multilabel", "regression"), "task")
        classes: dict[str, type[ClassMomentMetric | TargetMomentMetric]]
        classes = {"classification": _ClassLogME, "multilabel": _MultilabelLogME, "regression": _TargetLogME}
        return classes[task](**kwargs)


for _task_class in (_ClassLogME, _MultilabelLogME, _TargetLogME):
    LogME.register(_task_class)
