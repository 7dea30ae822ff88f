"""SFDA as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.sfda import sfda
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import check_one_of


class SFDA(SampleMetric):
    """Self-challenging Fisher score on a seeded sample (Shao et al., ECCV 2022); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``sfda`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.sfda`. Its first step
      alone needs no sample: :func:`lightning_transfer.functional.sfda.sfda_first_step`.

    Args:
        variant: ``"paper"`` (mean log-probability) or ``"official"`` (mean probability).
        kwargs: ``keep_samples``, ``seed``, ``num_resamples`` and ``ignore_index`` of the sample, and keyword arguments
            of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.sfda import SFDA
        >>> metric = SFDA(variant="official")
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.8081, dtype=torch.float64)
    """

    name = "sfda"
    title = "SFDA"
    _bias_counts = True

    def __init__(self, *, variant: str = "paper", **kwargs: Any) -> None:
        check_one_of(variant, ("paper", "official"), "variant")
        super().__init__(**kwargs)
        self.variant = variant

    def score_range(self) -> tuple[float, float]:
        """Log-probabilities are at most 0, probabilities lie in [0, 1]."""
        return (-float("inf"), 0.0) if self.variant == "paper" else (0.0, 1.0)

    def _score(self, **samples: Tensor) -> Tensor:
        return sfda(samples["features"], samples["labels"], variant=self.variant)
