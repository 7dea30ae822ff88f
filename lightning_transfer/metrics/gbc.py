"""GBC as a Metric: on a seeded sample with PCA, streamed exactly without."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from lightning_transfer.functional.gbc import bhattacharyya_score, check_gbc_options, gbc
from lightning_transfer.functional.moments import ClassMoments, FeatureMoments
from lightning_transfer.metrics.base import TransferMetric
from lightning_transfer.metrics.moments import ClassMomentMetric
from lightning_transfer.metrics.samples import SampleMetric


@dataclass(frozen=True)
class _SquareMoments(ClassMoments):
    """Moments with, for each class, the sums of the squared shifted features, shape ``(k, d)``."""

    class_squares: Tensor


class _SampleGBC(SampleMetric):
    """GBC on leading principal components, from a seeded sample."""

    plot_upper_bound: float = 0.0
    plot_legend_name: str = "GBC"

    def __init__(self, pca_dim: int, covariance: str, variance_floor: float, variant: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options: dict[str, Any] = {
            "pca_dim": pca_dim, "covariance": covariance, "variance_floor": variance_floor, "variant": variant
        }  # fmt: skip

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-c (c - 1), 0]`` for c classes."""
        classes = len(self._kept()["labels"].unique())
        return -float(classes * (classes - 1)), 0.0

    def _score(self, **samples: Tensor) -> Tensor:
        return gbc(samples["features"], samples["labels"], **self.options)


class _StreamingGBC(ClassMomentMetric):
    """GBC of the features as they are, from sums."""

    plot_upper_bound: float = 0.0
    plot_legend_name: str = "GBC"
    _sums = (*ClassMomentMetric._sums, "class_squares")  # type: ignore[assignment]  # a longer tuple
    class_squares: Tensor

    def __init__(self, covariance: str, variance_floor: float, variant: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options: dict[str, Any] = {"covariance": covariance, "variance_floor": variance_floor, "variant": variant}

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-c (c - 1), 0]`` for c classes."""
        classes = self._totals().num_classes
        return -float(classes * (classes - 1)), 0.0

    def _sum_shape(self, name: str, width: int, responses: int) -> tuple[int, ...]:
        return (responses, width) if name == "class_squares" else super()._sum_shape(name, width, responses)

    def _add_responses(self, group: int, rows: Tensor, responses: Tensor) -> None:
        super()._add_responses(group, rows, responses)
        self.class_squares[group].index_add_(0, responses, rows.square())

    def _build(self, sums: dict[str, Tensor]) -> _SquareMoments:
        moments = super()._build({name: value for name, value in sums.items() if name != "class_squares"})
        known = {field.name: getattr(moments, field.name) for field in fields(moments)}
        return _SquareMoments(**known, class_squares=sums["class_squares"])

    def _about(self, moments: FeatureMoments, delta: Tensor) -> dict[str, Tensor]:
        assert isinstance(moments, _SquareMoments)
        counts = moments.class_counts[:, None]
        squares = moments.class_squares - 2 * moments.class_sums * delta + counts * delta.square()
        return {**super()._about(moments, delta), "class_squares": squares}

    def _score(self, moments: ClassMoments) -> Tensor:
        assert isinstance(moments, _SquareMoments)
        counts = moments.counts[:, None]
        means = moments.class_sums[moments.present] / counts
        variances = moments.class_squares[moments.present] / counts - means.square()
        return bhattacharyya_score(means, variances, **self.options)


class GBC(TransferMetric):
    """Gaussian Bhattacharyya coefficient (Pandy et al., CVPR 2022); higher is better, 0 for classes apart.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``gbc`` (:class:`~torch.Tensor`): 0-d float64 in ``[-c (c - 1), 0]``, see
      :func:`lightning_transfer.functional.gbc`.

    With principal components, which are known only at the end, the metric keeps a seeded sample. ``pca_dim=None`` makes
    one that streams: exact on any number of samples in constant memory, with jackknife intervals.

    Args:
        pca_dim: Principal components kept where there are more features; None for the features as they are.
        covariance: ``"spherical"`` or ``"diagonal"``.
        variance_floor: Smallest variance of a dimension of a class.
        variant: ``"paper"`` or ``"official"``.
        kwargs: ``ignore_index``; with PCA ``max_samples``, ``seed`` and ``num_resamples`` of the sample, without it
            ``num_classes`` and ``jackknife_groups``; and keyword arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: If an argument is malformed, or at ``compute`` fewer than two classes were seen.

    Example:
        >>> import torch
        >>> from lightning_transfer.metrics.gbc import GBC
        >>> for metric in (GBC(), GBC(pca_dim=None)):
        ...     metric.update(torch.tensor([[0.0, 1.0], [0.3, 0.6]]), torch.tensor([0, 0]))
        ...     metric.update(torch.tensor([[1.0, 0.0], [0.7, 0.5]]), torch.tensor([1, 1]))
        ...     print(metric.compute())
        tensor(-0.1347, dtype=torch.float64)
        tensor(-0.1347, dtype=torch.float64)
    """

    def __new__(
        cls,
        *,
        pca_dim: int | None = 64,
        covariance: str = "spherical",
        variance_floor: float = 1e-4,
        variant: str = "paper",
        **kwargs: Any,
    ) -> Any:
        """Make an instance of the class for sampling or streaming."""
        check_gbc_options(covariance, pca_dim, variance_floor, variant)
        if pca_dim is None:
            return _StreamingGBC(covariance, variance_floor, variant, **kwargs)
        return _SampleGBC(pca_dim, covariance, variance_floor, variant, **kwargs)


for _kind in (_SampleGBC, _StreamingGBC):
    GBC.register(_kind)
