"""RankMe as a Metric."""

from __future__ import annotations

from torch import Tensor

from lightning_transfer.functional.rankme import largest_rank, rankme
from lightning_transfer.metrics.base import check_width
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_features, flatten_features, shape_of_positions


class RankMe(SampleMetric):
    """Effective rank of the features, without labels, on a seeded sample (Garrido et al., ICML 2023); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels
      ``(b, d, h, w)`` too, all positions alike).

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``rankme`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.rankme`.

    Args:
        kwargs: ``keep_samples`` (10 000), ``seed``, ``num_resamples``, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import RankMe
        >>> metric = RankMe()
        >>> metric.update(torch.eye(4)[:3])
        >>> metric.update(torch.eye(4)[3:])
        >>> metric.compute().round(decimals=4)
        tensor(4., dtype=torch.float64)
    """

    plot_lower_bound: float = 0.0
    _bias_counts = True
    name = "rankme"
    title = "RankMe"
    tasks = ("classification", "multilabel", "regression")
    requires = ("features",)

    def update(self, features: Tensor, groups: Tensor | None = None) -> None:  # type: ignore[override]
        """Add a batch to the samples.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If ``features`` are malformed, not finite, or of another width than before.
        """
        rows = check_features(flatten_features(features))
        check_width(self._width, rows)
        self._keep(self._check_groups(groups, shape_of_positions(features)), features=rows)

    def score_range(self) -> tuple[float, float]:
        """Limits 0 and, but for what ``epsilon`` adds, the smaller of samples and features."""
        return 0.0, largest_rank(*self._kept()["features"].shape)

    def _score(self, *, features: Tensor) -> Tensor:  # type: ignore[override]
        return rankme(features)
