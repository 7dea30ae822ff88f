"""The shared statistics: additive float64 moments from which every moment-based score is computed.

Moments are kept about a pilot ``shift`` near the mean of the features, so that features far from zero lose no digits,
and are exact sums: those of two parts of a data set add up to those of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional.counts import require_two_classes
from lightning_transfer.utilities.checks import check_features, check_labels, check_targets, flatten_positions
from lightning_transfer.utilities.linalg import add_gram_, mirror_upper_, rank_cutoff, whitened_square


class Spectrum(NamedTuple):
    """Eigenvalues (ascending, noise removed) and eigenvectors (columns) of a positive semi-definite matrix."""

    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class FeatureMoments:
    """Moments of ``n`` feature vectors about ``shift``.

    Attributes:
        count: Number of samples ``n``.
        num_features: Width ``d`` of the features as handed in; the moments may live in a smaller space that holds them.
        shift: Origin of the moments, shape ``(r,)``, float64.
        feature_sum: Sum of the shifted features, shape ``(r,)``.
        second_moment: Sum of their outer products, shape ``(r, r)``; only the upper triangle is read.
    """

    count: int
    num_features: int
    shift: Tensor
    feature_sum: Tensor
    second_moment: Tensor

    @classmethod
    def of_features(cls, features: Tensor) -> FeatureMoments:
        """Moments of samples without classes or targets; float64 for float64 features, float32 for others.

        Args:
            features: Shape ``(n, d)``, any floating dtype; with ``n < d`` in the space that they span.
        """
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        return FeatureMoments(**_sums(features, dtype)[1])

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the features, shape ``(r,)``."""
        return self.shift + self.offset

    @cached_property
    def offset(self) -> Tensor:
        """Mean of the shifted features, shape ``(r,)``."""
        return self.feature_sum / self.count

    @cached_property
    def scatter(self) -> Tensor:
        """Sum of outer products of the centred features, shape ``(r, r)``; exactly zero for constant features."""
        scatter = mirror_upper_(torch.addr(self.second_moment, self.offset, self.offset, alpha=-self.count))
        eps = torch.finfo(scatter.dtype).eps
        spread = scatter.diagonal()
        noise = self.count * (8 * eps * self.mean.abs()) ** 2 + 8 * eps * self.second_moment.diagonal()
        constant = (spread <= noise).nonzero().flatten()
        return scatter.index_fill_(0, constant, 0).index_fill_(1, constant, 0) if len(constant) else scatter

    @cached_property
    def gram(self) -> Tensor:
        """Sum of outer products of the features about the origin, shape ``(r, r)``."""
        gram = torch.addr(self.second_moment, self.feature_sum + self.count * self.shift, self.shift)
        return mirror_upper_(gram.addr_(self.shift, self.feature_sum))

    @cached_property
    def gram_spectrum(self) -> Spectrum:
        """Spectrum of :attr:`gram`."""
        return self._spectrum(self.gram)

    @cached_property
    def scatter_spectrum(self) -> Spectrum:
        """Spectrum of :attr:`scatter`."""
        return self._spectrum(self.scatter)

    def _spectrum(self, matrix: Tensor) -> Spectrum:
        values, vectors = torch.linalg.eigh(matrix)
        noise = int((values <= rank_cutoff(values[-1].clamp(min=0), self.count, self.num_features)).sum())
        return Spectrum(values[noise:], vectors[:, noise:])

    @cached_property
    def total_variance(self) -> Tensor:
        """Trace of the covariance (normalised by ``n``), 0-d."""
        return self.scatter.trace() / self.count

    @cached_property
    def effective_rank(self) -> Tensor:
        """Participation ratio of the covariance: its squared trace over its squared Frobenius norm, 0-d, at least 0."""
        square = self.scatter_square
        return torch.where(square > 0, self.scatter.trace().square() / square, torch.zeros_like(square))

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix on its range, an estimate from below."""
        return whitened_square(self.scatter, self.scatter[:, :0], self.count)[2]

    @cached_property
    def scatter_square(self) -> Tensor:
        """Squared Frobenius norm of :attr:`scatter`, 0-d."""
        norm: Tensor = torch.linalg.vector_norm(self.scatter)
        return norm.square()


@dataclass(frozen=True)
class ClassMoments(FeatureMoments):
    """Moments of features with class ids.

    Attributes:
        class_counts: Samples of each class, shape ``(k,)``, float64; classes may be missing.
        class_sums: Sum of the shifted features of each class, shape ``(k, r)``.
        norm_weighted_sum: Sum of shifted features times their squared norm, shape ``(r,)``.
        norm_fourth: Sum of the fourth powers of their norms, 0-d.
    """

    class_counts: Tensor
    class_sums: Tensor
    norm_weighted_sum: Tensor
    norm_fourth: Tensor

    @classmethod
    def from_samples(cls, features: Tensor, labels: Tensor, ignore_index: int | None = None) -> ClassMoments:
        """Compute the moments of a set of samples; with fewer samples than features, in the space that they span.

        Args:
            features: Shape ``(n, d)`` (or tokens, pixels, see ``flatten_positions``), any floating dtype.
            labels: Shape ``(n,)``, any integer dtype; ids may have gaps.
            ignore_index: Samples with this label are left out.

        Raises:
            ValueError: If an input is malformed or holds fewer than two classes.

        Example:
            >>> import torch
            >>> from lightning_transfer.functional.moments import ClassMoments
            >>> moments = ClassMoments.from_samples(torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([0, 0, 3]))
            >>> moments.mean, moments.class_means.flatten(), moments.num_classes
            (tensor([2.], dtype=torch.float64), tensor([1., 4.], dtype=torch.float64), 2)
        """
        features, labels = flatten_positions(features, labels, ignore_index)
        features = check_features(features)
        labels = check_labels(labels, len(features))
        rows, sums = _sums(features)
        counts = torch.bincount(labels).to(rows.dtype)
        square = rows.square().sum(1)
        return cls(
            **sums,
            class_counts=counts,
            class_sums=rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, rows),
            norm_weighted_sum=square @ rows,
            norm_fourth=square @ square,
        ).require_classes()

    def require_classes(self) -> ClassMoments:
        """Return itself if it holds at least two classes.

        Raises:
            ValueError: If it does not.
        """
        require_two_classes(self.num_classes)
        return self

    @cached_property
    def present(self) -> Tensor:
        """Ids of the classes that have samples, shape ``(c,)``."""
        return self.class_counts.nonzero().flatten()

    @property
    def num_classes(self) -> int:
        """Number of classes that have samples."""
        return len(self.present)

    @cached_property
    def counts(self) -> Tensor:
        """Samples of each present class, shape ``(c,)``, float64."""
        return self.class_counts[self.present]

    @cached_property
    def class_offsets(self) -> Tensor:
        """Means of the present classes about the overall mean, shape ``(c, r)``."""
        return self.class_sums[self.present] / self.counts[:, None] - self.offset

    @cached_property
    def class_means(self) -> Tensor:
        """Means of the present classes, shape ``(c, r)``."""
        return self.class_offsets + self.mean

    @cached_property
    def between_factor(self) -> Tensor:
        """Rows ``sqrt(n_c) (mean_c - mean)``, shape ``(c, r)``: its Gram matrix is the between-class scatter."""
        return self.class_offsets * self.counts.sqrt()[:, None]

    @cached_property
    def within_scatter(self) -> Tensor:
        """Scatter about the class means, shape ``(r, r)``."""
        return self.scatter - self.between_factor.T @ self.between_factor

    @cached_property
    def centred_norm_fourth(self) -> Tensor:
        """Sum of the fourth powers of the norms of the centred features, 0-d."""
        offset = self.offset
        length = offset @ offset
        along = self.scatter @ offset + self.count * length * offset
        return (
            self.norm_fourth
            - 4 * offset @ self.norm_weighted_sum
            + 4 * offset @ along
            + 2 * length * self.second_moment.trace()
            - 3 * self.count * length.square()
        ).clamp(min=0)

    @cached_property
    def canonical_square(self) -> tuple[Tensor, int, float]:
        """Squared length of each whitened row of :attr:`between_factor`, the rank and the condition number."""
        return whitened_square(self.scatter, self.between_factor.T, self.count)

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix on its range, an estimate from below."""
        return self.canonical_square[2]


@dataclass(frozen=True)
class TargetMoments(FeatureMoments):
    """Moments of features with real-valued targets.

    Attributes:
        target_shift: Origin of the moments of the targets, shape ``(m,)``.
        target_sum: Sum of the shifted targets, shape ``(m,)``.
        target_square: Sum of their squares, shape ``(m,)``.
        cross_moment: Sum of shifted features times shifted targets, shape ``(r, m)``.
    """

    target_shift: Tensor
    target_sum: Tensor
    target_square: Tensor
    cross_moment: Tensor

    @classmethod
    def from_samples(cls, features: Tensor, targets: Tensor) -> TargetMoments:
        """Compute the moments of a set of samples; with fewer samples than features, in the space that they span.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.

        Raises:
            ValueError: If an input is malformed.
        """
        features = check_features(features)
        targets = check_targets(targets, len(features)).double()
        rows, sums = _sums(features)
        target_shift = targets.mean(0)
        targets = targets - target_shift
        return cls(
            **sums,
            target_shift=target_shift,
            target_sum=targets.sum(0),
            target_square=targets.square().sum(0),
            cross_moment=rows.T @ targets,
        )

    @cached_property
    def target_offset(self) -> Tensor:
        """Mean of the shifted targets, shape ``(m,)``."""
        return self.target_sum / self.count

    @cached_property
    def target_scatter(self) -> Tensor:
        """Sum of squares of the centred targets, shape ``(m,)``; exactly zero for a constant target."""
        scatter = self.target_square - self.count * self.target_offset.square()
        eps = torch.finfo(scatter.dtype).eps
        mean = self.target_shift + self.target_offset
        return torch.where(scatter > self.count * (8 * eps * mean.abs()) ** 2, scatter, torch.zeros_like(scatter))

    @cached_property
    def explained_square(self) -> tuple[Tensor, int, float]:
        """Squares of the targets that a linear map explains, ``(m,)``; rank and condition number of the features."""
        return whitened_square(self.scatter, self.cross_scatter, self.count)

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix on its range, an estimate from below."""
        return self.explained_square[2]

    @cached_property
    def cross_scatter(self) -> Tensor:
        """Sum of centred features times centred targets, shape ``(r, m)``; zero where the feature is constant."""
        cross = self.cross_moment - self.count * torch.outer(self.offset, self.target_offset)
        return cross * (self.scatter.diagonal() > 0)[:, None]


def shifted_rows(features: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, int]:
    """Shift features to their mean; with n < d, first rotate them into the space that they span.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        dtype: What the rows are computed in.

    Returns:
        The shifted rows ``(n, r)``, the shift ``(r,)``, and ``d``; ``r`` is ``min(n, d)``.
    """
    rows = features.to(dtype)
    n, d = rows.shape
    if n < d:
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    shift = rows.mean(0)
    return rows - shift, shift, d


def _sums(features: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, dict[str, Any]]:
    """Shifted rows of samples, and what all kinds of moments keep of them."""
    rows, shift, num_features = shifted_rows(features, dtype)
    second_moment = add_gram_(rows.new_zeros(rows.shape[1], rows.shape[1]), rows)
    return rows, {
        "count": len(rows),
        "num_features": num_features,
        "shift": shift,
        "feature_sum": rows.sum(0),
        "second_moment": second_moment,
    }
