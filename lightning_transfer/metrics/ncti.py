"""NCTI as a Metric."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.ncti import combine_ncti, ncti, ncti_parts
from lightning_transfer.metrics.samples import ZooSampleMetric
from lightning_transfer.utilities.checks import check_positive_int


class NCTI(ZooSampleMetric):
    """Raw neural collapse informed score on a seeded sample (Wang et al., ICCV 2023); higher is better.

    Of one model there is a raw sum only; :func:`lightning_transfer.functional.combine_ncti` makes the published score
    out of the ``parts()`` of a zoo: ``seli``, ``ncc`` and ``variability``.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``ncti`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.ncti`.

    Args:
        pca_dim: Principal components kept.
        kwargs: ``keep_samples``, ``seed``, ``num_resamples`` and ``ignore_index`` of the sample, and keyword arguments
            of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.ncti import NCTI
        >>> metric = NCTI()
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        >>> metric.compute(), sorted(metric.parts())
        (tensor(3.8961, dtype=torch.float64), ['ncc', 'seli', 'variability'])
    """

    name = "ncti"
    title = "NCTI"

    combine = staticmethod(combine_ncti)

    def __init__(self, *, pca_dim: int = 64, **kwargs: Any) -> None:
        check_positive_int(pca_dim, "pca_dim")
        super().__init__(**kwargs)
        self.pca_dim = pca_dim

    def _parts(self, **samples: Tensor) -> dict[str, Tensor]:
        return ncti_parts(samples["features"], samples["labels"], pca_dim=self.pca_dim)

    def _score(self, **samples: Tensor) -> Tensor:
        return ncti(samples["features"], samples["labels"], pca_dim=self.pca_dim)
