"""Ridge probe as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.ridge_probe import ridge_probe
from lightning_transfer.metrics.base import SampleMetric, check_width
from lightning_transfer.utilities.checks import check_features, check_in_interval, check_one_of, check_targets


class RidgeProbe(SampleMetric):
    """Leave-one-out accuracy or R² of a linear ridge probe, in closed form; higher is better.

    Leaving a sample out needs the sample, so this score keeps at most ``max_samples`` of them.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)``; or, with ``task="regression"``,
    - ``targets`` (:class:`~torch.Tensor`): shape ``(n,)`` or ``(n, m)``, any floating dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``ridge_probe`` (:class:`~torch.Tensor`): 0-d float64, at most 1, see
      :func:`lightning_transfer.functional.ridge_probe`.

    Args:
        task: ``"classification"`` (accuracy) or ``"regression"`` (R²).
        regularization: A fixed strength relative to the mean variance of the features, or None to choose it.
        max_samples: Samples kept at most; None for all.
        kwargs: ``seed``, ``num_resamples``, ``ignore_index`` and keyword arguments of :class:`torchmetrics.Metric`.

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

    plot_upper_bound: float = 1.0
    plot_legend_name: str = "Ridge probe"

    def __init__(
        self,
        task: str = "classification",
        regularization: float | None = None,
        max_samples: int | None = 10_000,
        **kwargs: Any,
    ) -> None:
        check_one_of(task, ("classification", "regression"), "task")
        if regularization is not None:
            check_in_interval(regularization, 0, float("inf"), "regularization")
        super().__init__(max_samples=max_samples, **kwargs)
        self.task = task
        self.regularization = regularization

    def update(self, features: Tensor, labels: Tensor | None = None, targets: Tensor | None = None) -> None:
        """Add a batch to the samples.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            labels: Class ids ``(n,)``, for classification.
            targets: Shape ``(n,)`` or ``(n, m)``, for regression.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        if self.task == "classification":
            super().update(features, labels)  # type: ignore[arg-type]
            return
        features = check_features(features)
        check_width(self._width, features)
        self._keep(features=features, labels=check_targets(targets, len(features)))  # type: ignore[arg-type]

    def score_range(self) -> tuple[float, float]:
        """Limits: accuracy in ``[0, 1]``, R² at most 1."""
        return (0.0 if self.task == "classification" else -float("inf")), 1.0

    def _score(self, **samples: Tensor) -> Tensor:
        return ridge_probe(samples["features"], samples["labels"], regularization=self.regularization)
