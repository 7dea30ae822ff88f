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
    """Base of scores of sums over samples, which are kept as partial sums, over samples dealt out in turn.

    Of so many samples in a row each sum gets one, see :func:`~lightning_transfer.utilities.groups.turns`. Of data
    sorted by class all sums have the same share of each: the error is then that of samples with these class counts.

    Samples that come with ``groups`` are added to a partial sum by the id of their group, see
    :func:`~lightning_transfer.utilities.groups.parts_of`: none of them is divided.

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
    def _sizes(self) -> Tensor:
        """Samples behind each partial sum, shape ``(jackknife_groups,)``."""

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
            ValueError: If the metric was made with fewer than two ``jackknife_groups``, or all samples are of one
                group.
        """
        check_in_interval(level, 0, 1, "level")
        if self.jackknife_groups < 2:
            raise ValueError(
                "Expected argument `jackknife_groups` to be at least 2 for an interval, "
                f"but got {self.jackknife_groups}."
            )
        with self.sync_context(should_sync=not self._is_synced, should_unsync=True):
            value = float(self._finish(self._score(self._totals())))
            sizes = self._sizes().tolist() if self._has_groups else None
            filled = None if sizes is None else [size for size in sizes if size]
            if filled is not None and len(filled) < 2:
                raise ValueError(
                    f"Expected argument `groups` to fill at least 2 of {self.jackknife_groups} `jackknife_groups`, "
                    f"but got {len(filled)}."
                )
            return jackknife_interval(value, self._scores_without_each(sizes), level, filled)

    def _scores_without_each(self, sizes: Sequence[int] | None) -> list[Tensor]:
        """Scores of the samples of all groups but one, for each group that is not empty."""
        if sizes is None:
            return [self._score(part) for part in self._totals_without_each()]
        parts = zip(self._totals_without_each(), sizes, strict=True)
        return [self._score(part) for part, size in parts if size]


def jackknife_interval(
    value: float, without: Sequence[Tensor], level: float, sizes: Sequence[float] | None = None
) -> ScoreInterval:
    """Delete-a-group jackknife interval, from Student's t with one degree of freedom less than there are groups.

    The interval is centred on the value less its estimated bias: scores such as the H-score grow with the number of
    features per sample, and without the correction an interval from few samples misses the score of all of them.

    Args:
        value: Score of all data.
        without: Scores without each group in turn, 0-d.
        level: Nominal coverage.
        sizes: Samples of each group, where they are not equal (Busing, Meijer and van der Leeden, 1999, eq. 1, 5, 6).
    """
    from scipy.stats import t

    parts, groups = torch.stack(list(without)), len(without)
    if sizes is None:
        error = float(((groups - 1) / groups * (parts - parts.mean()).square().sum()).sqrt())
        bias = (groups - 1) * (float(parts.mean()) - value)
    else:
        shares = torch.tensor(sizes, dtype=torch.float64, device=parts.device) / sum(sizes)
        corrected = groups * value - ((1 - shares) * parts).sum()
        pseudo = value / shares - (1 / shares - 1) * parts
        error = float(((pseudo - corrected).square() * shares / (1 - shares)).mean().sqrt())
        bias = value - float(corrected)
    half = float(t.ppf(0.5 + level / 2, groups - 1)) * error
    return ScoreInterval(value, error, value - bias - half, value - bias + half, level, "jackknife", bias)
