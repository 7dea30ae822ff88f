"""Negative conditional entropy as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.counts import all_ignored, conditional_entropy
from lightning_transfer.functional.negative_conditional_entropy import flatten_pair, nce_from_counts
from lightning_transfer.metrics.counts import CountMetric
from lightning_transfer.utilities.checks import check_labels


class NCE(CountMetric):
    """Negative conditional entropy, NCE, from exact integer counts (Tran et al., ICCV 2019, eq. 7); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``source_labels`` (:class:`~torch.Tensor`): source class ids of shape ``(n,)``, any integer dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, or ``(n, m)`` for ``m`` labels a sample.
      Tokens and pixels: any shape, the same for both.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``nce`` (:class:`~torch.Tensor`): 0-d float64, nats, in ``[-H(Y), 0]``, see
      :func:`lightning_transfer.functional.negative_conditional_entropy`.

    Args:
        miller_madow: Correct the leading term of the bias; the limits then hold only on average.
        source_log_likelihood: Mean log-likelihood of the source model on its own labels, to be added to the score.
        jackknife_groups: Number of partial counts for ``compute_with_interval``; 1 for none.
        ignore_index: Positions with this target label are left out (not for shape ``(n, m)``).
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import NCE
        >>> metric = NCE()
        >>> metric.update(source_labels=torch.tensor([0, 0, 0, 0]), labels=torch.tensor([0, 0, 0, 1]))
        >>> metric.update(source_labels=torch.tensor([1, 1, 1, 1]), labels=torch.tensor([0, 1, 1, 1]))
        >>> metric.compute()
        tensor(-0.5623, dtype=torch.float64)
    """

    plot_upper_bound: float = 0.0
    name = "nce"
    title = "NCE"
    tasks = ("classification", "multilabel")
    requires = ("source_labels", "labels")

    def __init__(self, *, source_log_likelihood: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_log_likelihood = source_log_likelihood

    def update(self, source_labels: Tensor, labels: Tensor, groups: Tensor | None = None) -> None:
        """Add a batch of source and target class ids to the counts.

        Args:
            source_labels: Shape ``(n,)``, any integer dtype.
            labels: Shape ``(n,)`` or ``(n, m)``, any integer dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If an input is malformed.
        """
        source, flat = flatten_pair(source_labels, labels, self.ignore_index)
        if all_ignored(labels, self.ignore_index):
            return
        columns = self._checked_columns(flat)
        source = check_labels(source, len(columns), name="source_labels")
        positions = labels.shape if source_labels.shape == labels.shape else labels.shape[:1]
        self._count(source, columns, self._check_groups(groups, positions, labels))

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-H(Y), 0]``, moved by the correction and ``source_log_likelihood``."""
        hardness = float(conditional_entropy(self._totals().sum(1, keepdim=True)).mean())
        offset = (self.source_log_likelihood or 0.0) - self._correction()
        return offset - hardness, offset

    def _score(self, counts: Tensor) -> Tensor:
        return nce_from_counts(counts, self.miller_madow, self.source_log_likelihood)


NegativeConditionalEntropy = NCE  # the long name
