"""N-LEEP as a Metric."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_transfer.functional.leep import leep
from lightning_transfer.functional.nleep import Covariance, check_nleep_options, responsibilities
from lightning_transfer.functional.task_hardness import task_hardness
from lightning_transfer.metrics.base import Health
from lightning_transfer.metrics.samples import SampleMetric


class NLEEP(SampleMetric):
    """N-LEEP on a bounded, seeded sample (Li et al., CVPR 2021); higher is better.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype (tokens ``(b, t, d)`` and pixels
      ``(b, d, h, w)`` too).
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``nleep`` (:class:`~torch.Tensor`): 0-d float64, nats, in ``[-H(Y), 0]``, see
      :func:`lightning_transfer.functional.nleep`.

    The interval of ``compute_with_interval`` leaves out samples under the one fitted mixture.

    Args:
        variance: Share of the variance that the principal components hold.
        components_per_class: Components of the mixture for each class.
        covariance: ``"full"``, ``"diag"`` or ``"spherical"``.
        kwargs: ``keep_samples`` (10 000), ``seed`` (of the sample and of the fit), ``num_resamples``, ``ignore_index``,
            and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics import NLEEP
        >>> labels = torch.arange(40) % 2
        >>> metric = NLEEP(components_per_class=1)
        >>> metric.update(torch.stack([5.0 * labels, torch.linspace(0, 1, 40)], dim=1), labels)
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    plot_upper_bound: float = 0.0
    _bias_counts = True
    name = "nleep"
    title = "N-LEEP"

    def __init__(
        self,
        *,
        variance: float = 0.8,
        components_per_class: int = 5,
        covariance: Covariance = "full",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_nleep_options(variance, components_per_class, covariance, self.seed)
        self.variance = variance
        self.components_per_class = components_per_class
        self.covariance: Covariance = covariance
        self._hard: tuple[str, ...] = ()  # what to say of the mixture last fitted

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-H(Y), 0]``."""
        return -float(task_hardness(self._kept()["labels"])), 0.0

    def reset(self) -> None:
        """Forget all data."""
        super().reset()
        self._hard = ()

    def _examine(self) -> Health:
        record = super()._examine()
        return replace(record, messages=record.messages + self._hard)

    def _prepare(self, **samples: Tensor) -> dict[str, Tensor]:
        mixture = responsibilities(
            **samples,
            variance=self.variance,
            components_per_class=self.components_per_class,
            covariance=self.covariance,
            seed=self.seed,
        )
        self._unconverged = "" if mixture.converged else "the Gaussian mixture did not converge"
        share = len(mixture.labels) / mixture.probs.shape[1]
        self._hard = (
            f"{share:.3g} samples a component: the Gaussian mixture is hardly more than k-means",
        ) * mixture.hard
        return {"source_probs": mixture.probs, "labels": mixture.labels}

    def _score(self, *, source_probs: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return leep(source_probs, labels)
