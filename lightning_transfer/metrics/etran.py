"""ETran as a Metric, for class ids or regression targets."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_transfer.functional.etran import combine_etran, etran, etran_parts
from lightning_transfer.inputs import Task
from lightning_transfer.metrics.samples import ZooSampleMetric
from lightning_transfer.utilities.checks import check_one_of


class ETran(ZooSampleMetric):
    """Raw ETran on a seeded sample (Gholami et al., ICCV 2023); higher is better.

    Of one model there is a raw weighted sum only; :func:`lightning_transfer.functional.combine_etran` makes the
    published score out of the ``parts()`` of a zoo: ``energy`` and ``fit``.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.
    - ``targets`` (:class:`~torch.Tensor`), in place of labels with ``task="regression"``: ``(n,)`` or ``(n, m)``.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``etran`` (:class:`~torch.Tensor`): 0-d float64, see :func:`lightning_transfer.functional.etran`.

    Args:
        task: ``"classification"`` or ``"regression"``.
        variant: ``"paper"`` or ``"official"``.
        kwargs: ``keep_samples``, ``seed``, ``num_resamples`` and ``ignore_index`` of the sample, and keyword arguments
            of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.etran import ETran
        >>> metric = ETran()
        >>> metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        >>> metric.compute(), sorted(metric.parts())
        (tensor(1.0340, dtype=torch.float64), ['energy', 'fit'])
    """

    name = "etran"
    title = "ETran"
    _bias_counts = True
    tasks = ("classification", "regression")
    combine = staticmethod(combine_etran)

    def __init__(self, task: Task | None = None, *, variant: str = "paper", **kwargs: Any) -> None:
        super().__init__(task=task, **kwargs)
        check_one_of(variant, ("paper", "official"), "variant")
        self.variant = variant

    def _parts(self, **samples: Any) -> dict[str, Tensor]:
        return etran_parts(**samples, variant=self.variant)

    def _score(self, **samples: Any) -> Tensor:
        return etran(**samples, variant=self.variant)
