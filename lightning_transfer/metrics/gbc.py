"""GBC as a Metric: on a seeded sample with PCA, streamed exactly without."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.functional.counts import require_two_classes
from lightning_transfer.functional.gbc import bhattacharyya_score, check_gbc_options, gbc
from lightning_transfer.metrics.base import Health
from lightning_transfer.metrics.moments import MomentMetric, add_class_counts_
from lightning_transfer.metrics.samples import SampleMetric
from lightning_transfer.utilities.linalg import centred


@dataclass(frozen=True)
class _Gaussians:
    """Sums of shifted features by class id, and of their squares, about the shift or about the means of the classes."""

    count: int
    shift: Tensor
    class_counts: Tensor
    class_sums: Tensor
    class_squares: Tensor
    about_means: bool = False


class _GaussianSums:
    """What the streaming score keeps: no product of features with features."""

    names = ("class_counts", "class_sums", "class_squares")

    def shape(self, name: str, width: int, classes: int) -> tuple[int, ...]:
        return (classes,) if name == "class_counts" else (classes, width)

    def add_(self, sums: Mapping[str, Tensor], rows: Tensor, labels: Tensor) -> None:
        add_class_counts_(sums["class_counts"], labels)
        sums["class_sums"].index_add_(0, labels, rows)
        sums["class_squares"].index_add_(0, labels, rows.square())

    def moments(self, sums: Mapping[str, Tensor], shift: Tensor, single: bool) -> _Gaussians:
        counts, totals, squares = (sums[name] for name in self.names)
        return _Gaussians(int(counts.sum()), shift, counts, totals, squares)

    def of_rows(self, rows: Tensor, labels: Tensor, shift: Tensor, single: bool) -> _Gaussians:
        rows, mean = centred(rows)
        counts = torch.bincount(labels).double()
        sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, rows)
        residuals = rows - (sums / counts[:, None])[labels]
        squares = torch.zeros_like(sums).index_add_(0, labels, residuals.square())
        return _Gaussians(len(rows), shift + mean, counts, sums, squares, about_means=True)

    def about(self, moments: _Gaussians, delta: Tensor) -> dict[str, Tensor]:
        counts = moments.class_counts[:, None]
        return {
            "class_sums": moments.class_sums - counts * delta,
            "class_squares": moments.class_squares - 2 * moments.class_sums * delta + counts * delta.square(),
        }


class StreamingGBC(MomentMetric):
    """GBC of the features as they are, from sums: what ``GBC(pca_dim=None)`` makes, see :class:`GBC`.

    Args:
        covariance: ``"spherical"`` or ``"diagonal"``.
        variance_floor: Smallest variance of a dimension of a class, as a share of the mean variance.
        variant: ``"paper"`` or ``"official"``.
        kwargs: ``num_classes``, ``ignore_index``, ``jackknife_groups``, and keyword arguments of
            :class:`torchmetrics.Metric`.
    """

    name = "gbc_streaming"
    title = "GBC (streaming)"
    plot_upper_bound: float = 0.0

    def __init__(
        self, *, covariance: str = "spherical", variance_floor: float = 1e-4, variant: str = "paper", **kwargs: Any
    ) -> None:
        check_gbc_options(covariance, None, variance_floor, variant)
        super().__init__(**kwargs)
        self.options: dict[str, Any] = {"covariance": covariance, "variance_floor": variance_floor, "variant": variant}

    def _choose_sums(self) -> _GaussianSums:
        return _GaussianSums()

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-c (c - 1), 0]`` for c classes."""
        classes = int((self._totals().class_counts > 0).sum())
        return -float(classes * (classes - 1)), 0.0

    def _examine(self) -> Health:
        moments: _Gaussians = self._totals()
        counts = moments.class_counts[moments.class_counts > 0]
        smallest = int(counts.min())
        return Health(
            num_samples=moments.count,
            num_features=self._width,
            num_classes=len(counts),
            smallest_class=smallest,
            samples_per_feature=moments.count / self._width,
            messages=("a class has a single sample",) if smallest == 1 else (),
        )

    def _score(self, moments: _Gaussians) -> Tensor:
        present = moments.class_counts.nonzero().flatten()
        require_two_classes(len(present))
        counts = moments.class_counts[present, None]
        means = moments.class_sums[present] / counts
        variances = moments.class_squares[present] / counts
        if not moments.about_means:
            variances = (variances - means.square()).clamp(min=0)
        mean_variance = (counts * (variances + (means - (counts * means).sum(0) / moments.count).square())).sum()
        return bhattacharyya_score(
            means, variances, float(mean_variance) / (moments.count * self._width), **self.options
        )


def _without_sample(arguments: Mapping[str, Any]) -> StreamingGBC:
    """A score that streams, from arguments of one that samples: its own have to be left at what they are."""
    unused = {"pca_dim": None, "keep_samples": 10_000, "seed": 0, "num_resamples": 100}
    return StreamingGBC(**{name: value for name, value in arguments.items() if unused.get(name, ...) != value})


class _StreamsWithoutComponents(ABCMeta):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        streams = kwargs.get("pca_dim", 64) is None
        return _without_sample(kwargs) if streams else super().__call__(*args, **kwargs)


class GBC(SampleMetric, metaclass=_StreamsWithoutComponents):
    """Gaussian Bhattacharyya coefficient (Pandy et al., CVPR 2022); higher is better, 0 for classes apart.

    As input to ``forward`` and ``update`` the metric accepts the following input:

    - ``features`` (:class:`~torch.Tensor`): shape ``(n, d)``, any floating dtype.
    - ``labels`` (:class:`~torch.Tensor`): class ids of shape ``(n,)``, any integer dtype.

    As output of ``forward`` and ``compute`` the metric returns the following output:

    - ``gbc`` (:class:`~torch.Tensor`): 0-d float64 in ``[-c (c - 1), 0]``, see
      :func:`lightning_transfer.functional.gbc`.

    With principal components, which are known only at the end, the metric keeps a seeded sample. ``pca_dim=None`` makes
    a :class:`StreamingGBC`: exact on any number of samples in constant memory, with jackknife intervals.

    Args:
        pca_dim: Principal components kept where there are more features; None for the features as they are.
        covariance: ``"spherical"`` or ``"diagonal"``.
        variance_floor: Smallest variance of a dimension of a class, as a share of the mean variance.
        variant: ``"paper"`` or ``"official"``.
        kwargs: ``ignore_index``; with PCA ``keep_samples``, ``seed`` and ``num_resamples`` of the sample, without it
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

    name = "gbc"
    title = "GBC"
    _bias_counts = True
    plot_upper_bound: float = 0.0

    def __init__(
        self,
        *,
        pca_dim: int | None = 64,
        covariance: str = "spherical",
        variance_floor: float = 1e-4,
        variant: str = "paper",
        **kwargs: Any,
    ) -> None:
        check_gbc_options(covariance, pca_dim, variance_floor, variant)
        super().__init__(**kwargs)
        self.options: dict[str, Any] = {
            "pca_dim": pca_dim, "covariance": covariance, "variance_floor": variance_floor, "variant": variant
        }  # fmt: skip

    def score_range(self) -> tuple[float, float]:
        """Limits ``[-c (c - 1), 0]`` for c classes."""
        classes = len(self._kept()["labels"].unique())
        return -float(classes * (classes - 1)), 0.0

    def _score(self, **samples: Any) -> Tensor:
        return gbc(**samples, **self.options)


GBC.register(StreamingGBC)
