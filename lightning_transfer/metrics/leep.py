"""LEEP as a Metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_transfer.functional.counts import check_sample_columns
from lightning_transfer.functional.leep import leep
from lightning_transfer.functional.task_hardness import task_hardness
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_one_of, shape_of_positions

_CACHES = (None, "float32", "float16")


class LEEP(SampleMetric):
    """Log expected empirical prediction, exact, from cached probabilities (Nguyen et al., ICML 2020); higher is better.

    The score needs two passes over the probabilities, so they are kept: ``4 k`` bytes a sample in float32. Where that
    is too much, ``cache="float16"`` halves it (probabilities are rounded by at most 0.05 % or 3e-8), and
    ``keep_samples`` bounds it.

    The score of few samples is too high, as the log-likelihood of what was fitted to them: the interval of
    ``compute_with_interval`` is that of a jackknife, moved by the bias.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``source_probs`` (:class:`~torch.Tensor`): shape ``(n, k)``, rows on the simplex, any floating dtype (tokens
      ``(b, t, k)`` and pixels ``(b, k, h, w)`` too).
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, or ``(n, m)`` for ``m`` labels a sample.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``leep`` (:class:`~torch.Tensor`): 0-d float64, nats, in ``[-H(Y), 0]``, see
      :func:`lightning_transfer.functional.leep`.

    Args:
        keep_samples: Samples kept at most, over all ranks; None for all.
        cache: ``"float32"`` or ``"float16"`` to keep the probabilities in that precision at most; None for that of the
            input.
        kwargs: ``seed``, ``num_resamples``, ``ignore_index``, and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import LEEP
        >>> metric = LEEP()
        >>> metric.update(source_probs=torch.tensor([[0.9, 0.1], [0.8, 0.2]]), labels=torch.tensor([0, 0]))
        >>> metric.update(source_probs=torch.tensor([[0.3, 0.7], [0.1, 0.9]]), labels=torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(-0.3426, dtype=torch.float64)
    """

    plot_upper_bound: float = 0.0
    _bias_counts = True
    name = "leep"
    title = "LEEP"
    tasks = ("classification", "multilabel")
    requires = ("source_probs", "labels")

    def __init__(self, *, keep_samples: int | None = None, cache: str | None = None, **kwargs: Any) -> None:
        super().__init__(keep_samples=keep_samples, **kwargs)
        check_one_of(cache, _CACHES, "cache")
        self.cache = cache
        # metrics with other caches must not share states: collections compare states by value
        self.add_state("cache_code", torch.tensor(_CACHES.index(cache)), dist_reduce_fx="max")

    def update(  # type: ignore[override]
        self, source_probs: Tensor, labels: Tensor, groups: Tensor | None = None
    ) -> None:
        """Add a batch of source probabilities and class ids to the samples.

        Args:
            source_probs: Shape ``(n, k)``, any floating dtype.
            labels: Shape ``(n,)`` or ``(n, m)``, any integer dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If an input is malformed, not finite, or of another width than before.
        """
        checked = self._checked(source_probs, labels)
        if checked is not None and self.cache is not None:
            dtype = getattr(torch, self.cache)
            checked[0] = checked[0].to(dtype) if checked[0].dtype.itemsize > dtype.itemsize else checked[0]
        if checked is not None:
            self._keep_checked(checked, self._check_groups(groups, shape_of_positions(source_probs), labels))

    def _check_truth(self, truth: Tensor, n: int) -> Tensor:
        columns = check_sample_columns(truth, n)
        return columns[:, 0] if columns.shape[1] == 1 else columns

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-H(Y), 0]``."""
        return -float(task_hardness(self._kept()["labels"])), 0.0

    def _score(self, *, source_probs: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return leep(source_probs, labels)
