"""Ridge probe as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.ridge_probe import ridge_probe
from lightning_transfer.inputs import Task
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_in_interval


class RidgeProbe(SampleMetric):
    """Leave-one-out accuracy or R² of a linear ridge probe, in closed form; higher is better.

    Leaving a sample out needs the sample, so this score keeps at most ``keep_samples`` of them. Samples that come with
    ``groups`` are left out a group at a time.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids ``(n,)``; with ``task="multilabel"`` zeros and ones ``(n, l)``.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``ridge_probe`` (:class:`~torch.Tensor`): 0-d float64, at most 1, see
      :func:`lightning_transfer.functional.ridge_probe`.

    Args:
        task: ``"classification"`` or ``"multilabel"`` (accuracy), or ``"regression"`` (R²).
        regularization: A fixed strength relative to the mean variance of the features; None to choose it.
        kwargs: ``keep_samples`` (10 000), ``seed``, ``num_resamples``, ``ignore_index``, and keyword arguments of
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

    name = "ridge_probe"
    title = "Ridge probe"
    leave_one_out = True
    _reads_groups = True
    tasks = ("classification", "multilabel", "regression")
    plot_upper_bound: float = 1.0

    def __init__(self, task: Task | None = None, *, regularization: float | None = None, **kwargs: Any) -> None:
        super().__init__(task=task, **kwargs)
        if regularization is not None:
            check_in_interval(regularization, 0, float("inf"), "regularization")
        self.regularization = regularization

    def score_range(self) -> tuple[float, float]:
        """Limits of an accuracy; R² is at most 1."""
        return (-float("inf") if self.task == "regression" else 0.0), 1.0

    def _score(self, **samples: Tensor) -> Tensor:
        features, truth = (samples[name] for name in self.requires)
        return ridge_probe(features, truth, regularization=self.regularization, groups=samples.get("groups"))
