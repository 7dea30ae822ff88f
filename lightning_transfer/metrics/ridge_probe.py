"""Ridge probe as a Metric."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from lightning_transfer.functional.counts import check_attributes
from lightning_transfer.functional.ridge_probe import ridge_probe
from lightning_transfer.metrics.base import TransferMetric, checked_batch, checked_targets
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_in_interval, check_one_of


class _ClassRidgeProbe(SampleMetric):
    """Leave-one-out accuracy of a ridge probe."""

    plot_upper_bound: float = 1.0
    plot_legend_name: str = "Ridge probe"

    def __init__(self, regularization: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if regularization is not None:
            check_in_interval(regularization, 0, float("inf"), "regularization")
        self.regularization = regularization

    def score_range(self) -> tuple[float, float]:
        """Limits of an accuracy."""
        return 0.0, 1.0

    def _score(self, **samples: Tensor) -> Tensor:
        features, responses = (samples[name] for name in self.requires)
        return ridge_probe(features, responses, regularization=self.regularization)


class _MultilabelRidgeProbe(_ClassRidgeProbe):
    """Leave-one-out accuracy of a ridge probe, the mean over 0/1 columns."""

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch of features ``(n, d)`` and zeros and ones ``(n, l)`` to the samples."""
        checked = checked_batch(
            features, labels, width=self._width, ignore_index=self.ignore_index, check=check_attributes
        )
        if checked is not None:
            self._keep(features=checked[0], labels=checked[1])


class _TargetRidgeProbe(_ClassRidgeProbe):
    """Leave-one-out R² of a ridge probe."""

    requires = ("features", "targets")

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch of features ``(n, d)`` and targets ``(n,)`` or ``(n, m)`` to the samples."""
        features, targets = checked_targets(features, targets, self._width)
        self._keep(features=features, targets=targets)

    def score_range(self) -> tuple[float, float]:
        """R² is at most 1."""
        return -float("inf"), 1.0


_CLASSES = {
    "classification": _ClassRidgeProbe,
    "multilabel": _MultilabelRidgeProbe,
    "regression": _TargetRidgeProbe,
}


class RidgeProbe(TransferMetric):
    """Leave-one-out accuracy or R² of a linear ridge probe, in closed form; higher is better.

    Leaving a sample out needs the sample, so this score keeps at most ``max_samples`` of them.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)``; with ``task="multilabel"`` zeros and ones ``(n, l)``.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``ridge_probe`` (:class:`~torch.Tensor`): 0-d float64, at most 1, see
      :func:`lightning_transfer.functional.ridge_probe`.

    Args:
        task: ``"classification"`` or ``"multilabel"`` (accuracy), or ``"regression"`` (R²); the instance is of the
            class for the task.
        kwargs: ``regularization``, a fixed strength relative to the mean variance of the features, or None to choose
            it; ``max_samples`` (10 000), ``seed``, ``num_resamples``, ``ignore_index``, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import RidgeProbe
        >>> metric = RidgeProbe()
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [5.0], [6.0], [7.0]])
        >>> metric.update(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    def __new__(
        cls, task: Literal["classification", "multilabel", "regression"] = "classification", **kwargs: Any
    ) -> Any:
        """Make an instance of the class for the task."""
        check_one_of(task, tuple(_CLASSES), "task")
        return _CLASSES[task](**kwargs)


RidgeProbe.register(_ClassRidgeProbe)
