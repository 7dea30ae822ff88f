"""TransRate as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.transrate import check_transrate_options, transrate
from lightning_transfer.metrics.samples import SampleMetric


class TransRate(SampleMetric):
    """TransRate on a seeded sample (Huang et al., ICML 2022); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``transrate`` (:class:`~torch.Tensor`): 0-d float64, in nats, see :func:`lightning_transfer.functional.transrate`.

    Args:
        eps: Distortion in squared units of the features.
        variant: ``"paper"`` weighs classes by their frequency, ``"official"`` alike.
        kwargs: ``keep_samples``, ``seed``, ``num_resamples`` and ``ignore_index`` of the sample, and keyword arguments
            of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.transrate import TransRate
        >>> metric = TransRate()
        >>> metric.update(torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> metric.update(torch.tensor([[1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), torch.tensor([1, 2, 2]))
        >>> metric.compute()
        tensor(1.9227, dtype=torch.float64)
    """

    name = "transrate"
    title = "TransRate"
    _bias_counts = True

    def __init__(self, *, eps: float = 1e-4, variant: str = "paper", **kwargs: Any) -> None:
        check_transrate_options(eps, variant)
        super().__init__(**kwargs)
        self.eps = eps
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """At least 0 with classes weighed by their frequency."""
        return (0.0 if self.variant == "paper" else -float("inf")), float("inf")

    def _score(self, **samples: Tensor) -> Tensor:
        return transrate(samples["features"], samples["labels"], eps=self.eps, variant=self.variant)
