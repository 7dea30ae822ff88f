"""Leave-one-out nearest-neighbour accuracy as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.knn_accuracy import (
    Distance,
    check_ids_or_attributes,
    check_knn_options,
    knn_outcomes,
)
from lightning_transfer.metrics.samples import SampleMetric


class KNNAccuracy(SampleMetric):
    """Leave-one-out accuracy of k nearest neighbours on a bounded, seeded sample; higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels
      ``(b, d, h, w)`` too).
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, or zeros and ones of shape ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``knn_accuracy`` (:class:`~torch.Tensor`): 0-d float64 in ``[0, 1]``, see
      :func:`lightning_transfer.functional.knn_accuracy`.

    Samples that come with ``groups`` have no neighbours in their group. The interval of ``compute_with_interval``
    resamples which samples (or groups) are classified; their neighbours stay.

    Args:
        k: Number of neighbours.
        distance: ``"euclidean"`` or ``"cosine"``.
        kwargs: ``keep_samples`` (10 000), ``seed``, ``num_resamples``, ``ignore_index``, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` there are fewer than two classes or at most ``k``
            samples.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import KNNAccuracy
        >>> metric = KNNAccuracy()
        >>> metric.update(torch.tensor([[0.0], [0.1], [0.9]]), torch.tensor([0, 0, 1]))
        >>> metric.update(torch.tensor([[1.0], [0.3]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.8000, dtype=torch.float64)
    """

    plot_lower_bound: float = 0.0
    plot_upper_bound: float = 1.0
    name = "knn_accuracy"
    title = "kNN accuracy"
    leave_one_out = True
    _reads_groups = True
    tasks = ("classification", "multilabel")

    def __init__(self, *, k: int = 1, distance: Distance = "euclidean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_knn_options(k, distance)
        self.k = k
        self.distance: Distance = distance

    def _check_truth(self, truth: Tensor, n: int) -> Tensor:
        columns = check_ids_or_attributes(truth, n)
        return columns[:, 0] if columns.shape[1] == 1 else columns

    def score_range(self) -> tuple[float, float]:
        """Limits ``[0, 1]``."""
        return 0.0, 1.0

    def _prepare(self, **samples: Tensor) -> dict[str, Tensor]:
        features, labels, groups = samples["features"], samples["labels"], samples.get("groups")
        return {"outcomes": knn_outcomes(features, labels, k=self.k, distance=self.distance, groups=groups)}

    def _score(self, *, outcomes: Tensor) -> Tensor:  # type: ignore[override]
        return outcomes.mean()
