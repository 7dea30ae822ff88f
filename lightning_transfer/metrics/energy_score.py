"""Energy score as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.energy_score import check_fraction, mean_of_lowest, sample_energies
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.checks import shape_of_positions


class Energy(SampleMetric):
    """Mean log-sum-exp of the outputs of a source model (Gholami et al., ICCV 2023); higher is better.

    Only the energy of each sample is kept, not its outputs: 16 bytes a sample, exact by default.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``source_outputs`` (:class:`~torch.Tensor`): logits (or features) of shape ``(n, d)``, any floating dtype
      (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too, all positions alike).

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``energy`` (:class:`~torch.Tensor`): 0-d float64, nats, see :func:`lightning_transfer.functional.energy_score`.

    Args:
        lowest_fraction: Average over this fraction of the samples only, those with the lowest score.
        keep_samples: Samples kept at most, over all ranks; None for all.
        kwargs: ``seed``, ``num_resamples``, and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import Energy
        >>> metric = Energy()
        >>> metric.update(torch.zeros(3, 4))
        >>> metric.compute()
        tensor(1.3863, dtype=torch.float64)
    """

    name = "energy"
    title = "Energy"
    tasks = ("classification", "multilabel", "regression")
    requires = ("source_outputs",)

    def __init__(self, *, lowest_fraction: float = 1.0, keep_samples: int | None = None, **kwargs: Any) -> None:
        super().__init__(keep_samples=keep_samples, **kwargs)
        check_fraction(lowest_fraction)
        self.lowest_fraction = lowest_fraction

    def update(self, source_outputs: Tensor, groups: Tensor | None = None) -> None:  # type: ignore[override]
        """Add the energies of a batch.

        Args:
            source_outputs: Shape ``(n, d)``, any floating dtype.
            groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: for the interval.

        Raises:
            ValueError: If ``source_outputs`` is malformed or not finite.
        """
        energies = sample_energies(source_outputs)
        self._keep(self._check_groups(groups, shape_of_positions(source_outputs)), source_outputs=energies)

    def _score(self, *, source_outputs: Tensor) -> Tensor:  # type: ignore[override]
        return mean_of_lowest(source_outputs, self.lowest_fraction)


EnergyScore = Energy  # the long name
