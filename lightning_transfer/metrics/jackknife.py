"""Scores that follow from sums over samples: partial sums give them an interval without a second pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.metrics.base import ScoreInterval, TransferMetric
from lightning_transfer.utilities.checks import check_in_interval, check_positive_int


class JackknifeMetric(TransferMetric):
    """Base of scores of sums over samples, which are kept as partial sums of groups, over samples taken in turn.

    Args:
        jackknife_groups: Number of partial sums (and times the memory) for ``compute_with_interval``; 1 for none.
        kwargs: Additional keyword arguments of :class:`torchmetrics.Metric`.
    """

    jackknife = True

    def __init__(self, *, jackknife_groups: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jackknife_groups = check_positive_int(jackknife_groups, "jackknife_groups")

    @abstractmethod
    def _totals(self) -> Any:
        """Sums over all samples."""

    @abstractmethod
    def _totals_without_each(self) -> Iterable[Any]:
        """Sums over the samples of all groups but one, for each group in turn."""

    @abstractmethod
    def _score(self, totals: Any) -> Tensor:
        """Compute the score from sums."""

    def compute(self) -> Tensor:
        """Compute the score from the sums."""
        return self._finish(self._score(self._totals()))

    def compute_with_interval(self, level: float = 0.95) -> ScoreInterval:
        """Compute the score with a delete-a-group jackknife interval from the partial sums.

        Args:
            level: Nominal coverage, in (0, 1).

        Returns:
            The score, its standard error and its estimated bias, and an interval around the score less the bias, see
            :func:`jackknife_interval`.

        Raises:
            ValueError: If the metric was made with fewer than two ``jackknife_groups``.
        """
        check_in_interval(level, 0, 1, "level")
        if self.jackknife_groups < 2:
            raise ValueError(
                "Expected argument `jackknife_groups` to be at least 2 for an interval, "
                f"but got {self.jackknife_groups}."
            )
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            value = float(self._finish(self._score(self._totals())))
            without = [self._score(totals) for totals in self._totals_without_each()]
        return jackknife_interval(value, without, level)


def jackknife_interval(value: float, without: Sequence[Tensor], level: float) -> ScoreInterval:
    """Delete-a-group jackknife interval, from Student's t with one degree of freedom less than there are groups.

    The interval is centred on the value less its estimated bias: scores such as the H-score grow with the number of
    features per sample, and without the correction an interval from few samples misses the score of all of them.

    Args:
        value: Score of all data.
        without: Scores without each group in turn, 0-d.
        level: Nominal coverage.
    """
    from scipy.stats import t

    parts, groups = torch.stack(list(without)), len(without)
    error = float(((groups - 1) / groups * (parts - parts.mean()).square().sum()).sqrt())
    half = float(t.ppf(0.5 + level / 2, groups - 1)) * error
    bias = (groups - 1) * (float(parts.mean()) - value)
    return ScoreInterval(value, error, value - bias - half, value - bias + half, level, "jackknife", bias)
