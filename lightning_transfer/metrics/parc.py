"""PARC as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.parc import check_annotations, check_parc_options, parc
from lightning_transfer.metrics.samples import SampleMetric


class PARC(SampleMetric):
    """Pairwise annotation representation comparison on a seeded sample (Bolya et al., NeurIPS 2021); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)`` with ``d`` at least 2, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype; or attributes 0 and 1 of
      shape ``(n, l)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``parc`` (:class:`~torch.Tensor`): 0-d float64 in [-100, 100], see :func:`lightning_transfer.functional.parc`.

    Args:
        pca_dim: Principal components kept; None keeps the features as they are.
        keep_samples: Samples kept at most, over all ranks: pairs of them are compared. The paper's probes have 500.
        variant: ``"paper"`` or ``"official"`` (which breaks ties by rounding).
        kwargs: ``seed``, ``num_resamples`` and ``ignore_index`` of the sample, and keyword arguments of
            :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` all samples have the same labels.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.parc import PARC
        >>> metric = PARC()
        >>> metric.update(torch.tensor([[0.0, 1.0, 0.1], [0.3, 0.6, 0.0]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0, 0.2], [0.7, 0.5, 0.9]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(82.8079, dtype=torch.float64)
    """

    plot_lower_bound: float = -100.0
    plot_upper_bound: float = 100.0
    name = "parc"
    title = "PARC"
    tasks = ("classification", "multilabel")

    def __init__(
        self, *, pca_dim: int | None = None, keep_samples: int | None = 500, variant: str = "paper", **kwargs: Any
    ) -> None:
        check_parc_options(pca_dim, keep_samples, variant)
        super().__init__(keep_samples=keep_samples, **kwargs)
        self.pca_dim = pca_dim
        self.variant = variant

    def _check_truth(self, truth: Tensor, n: int) -> Tensor:
        return check_annotations(truth, n)

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-100, 100]``."""
        return -100.0, 100.0

    def _score(self, **samples: Tensor) -> Tensor:
        return parc(
            samples["features"], samples["labels"], pca_dim=self.pca_dim, keep_samples=None, variant=self.variant
        )
