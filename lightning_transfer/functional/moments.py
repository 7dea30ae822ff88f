"""The shared statistics: float64 moments from which every moment-based score is computed.

They come in two kinds. Sums about a pilot ``shift`` near the mean are additive: those of two parts of a data set add up
to those of the whole, in constant memory. Where all samples are at hand their centred ``rows`` are kept instead, and
what follows from them keeps the digits that a matrix of squares has lost.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from lightning_transfer.functional.counts import require_two_classes
from lightning_transfer.utilities.checks import check_features, check_labels, check_targets, flatten_positions
from lightning_transfer.utilities.linalg import (
    centred,
    cholesky,
    eigh,
    gram,
    left_svd,
    mirror_upper_,
    rank_cutoff,
    thin_svd,
    whitened_square,
)

_COLUMNS = 64  # targets looked at together
_SAFE = 1e-6  # share of the sum of squares of the features that a penalty has for ten digits of a factor


class Spectrum(NamedTuple):
    """Singular value decomposition ``U diag(values).sqrt() V.T`` of centred features, without rounding noise.

    Attributes:
        values: Squared singular values, which are the eigenvalues of the scatter, shape ``(r,)``.
        vectors: ``V``, shape ``(d, r)``; ``(d, 0)`` where only ``U`` was looked for, see :meth:`FeatureMoments.along`.
        left: ``U``, shape ``(n, r)``, where the samples are at hand.
    """

    values: Tensor
    vectors: Tensor
    left: Tensor | None = None


class LeastSquares(NamedTuple):
    """What a linear map of the centred features, with a penalty on its squared weights, makes of each target.

    Attributes:
        explained: ``y^T Z (Z^T Z + penalty)^+ Z^T y``, shape ``(m,)``.
        objective: The least squared error plus penalty, shape ``(m,)``: the squares of the target less ``explained``.
        weights: Squared norm of the weights, shape ``(m,)``.
    """

    explained: Tensor
    objective: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureMoments:
    """Moments of ``n`` feature vectors about ``shift``.

    Attributes:
        count: Number of samples ``n``.
        shift: Origin of the moments, shape ``(d,)``, float64.
        feature_sum: Sum of the shifted features, shape ``(d,)``.
        second_moment: Sum of their outer products, shape ``(d, d)``, of which only the upper triangle is read; None
            where the samples are at hand.
        rows: The centred samples, shape ``(n, d)``, where they are at hand; ``shift`` is then their mean.
        single: Whether samples came in single precision or less: what their rounding can have made is no variation.
        rough: Whether six digits are enough, as of parts that a standard error is made of.
        one_span: Whether the features are taken to have the same left vectors when they are divided by their scale.
    """

    count: int
    shift: Tensor
    feature_sum: Tensor
    second_moment: Tensor | None = None
    rows: Tensor | None = None
    single: bool = False
    rough: bool = False
    one_span: bool = False

    @staticmethod
    def of_features(features: Tensor, *, single: bool = False) -> FeatureMoments:
        """Moments of samples without classes or targets; float64 for float64 features, float32 for others.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            single: Whether float64 features came in single precision.
        """
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        rows, mean = centred(features, dtype)
        return FeatureMoments(count=len(rows), shift=mean, feature_sum=torch.zeros_like(mean), rows=rows, single=single)

    @property
    def num_features(self) -> int:
        """Width ``d`` of the features."""
        return len(self.shift)

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the features, shape ``(d,)``."""
        return self.shift + self.offset

    @cached_property
    def offset(self) -> Tensor:
        """Mean of the shifted features, shape ``(d,)``."""
        return self.feature_sum / self.count

    @cached_property
    def scatter(self) -> Tensor:
        """Sum of outer products of the centred features, shape ``(d, d)``; exactly zero for constant features."""
        if self.second_moment is None:
            assert self.rows is not None
            return gram(self.rows)
        scatter = mirror_upper_(torch.addr(self.second_moment, self.offset, self.offset, alpha=-self.count))
        eps = torch.finfo(scatter.dtype).eps
        spread = scatter.diagonal()
        noise = self.count * (8 * eps * self.mean.abs()) ** 2 + 8 * eps * self.second_moment.diagonal()
        constant = (spread <= noise).nonzero().flatten()
        return scatter.index_fill_(0, constant, 0).index_fill_(1, constant, 0) if len(constant) else scatter

    def part_like(self) -> dict[str, bool]:
        """How a part of the samples, which are at hand, may be looked at for a standard error."""
        known = "scatter_spectrum" in vars(self) and "standard_spectrum" in vars(self)
        alike = known and len(self.scatter_spectrum.values) == len(self.standard_spectrum.values)
        return {"rough": True, "one_span": alike}

    @cached_property
    def scatter_spectrum(self) -> Spectrum:
        """Spectrum of the centred features."""
        return self._spectrum(None)

    @cached_property
    def feature_scale(self) -> Tensor:
        """Norm of each centred feature, 1 for a constant one, shape ``(d,)``."""
        norm = self.scatter.diagonal().sqrt() if self.rows is None else torch.linalg.vector_norm(self.rows, dim=0)
        return torch.where(norm > 0, norm, torch.ones_like(norm))

    @cached_property
    def standard_spectrum(self) -> Spectrum:
        """Spectrum of the centred features divided by :attr:`feature_scale`; of samples at hand without ``V``."""
        return self._spectrum(self.feature_scale)

    def _input_noise(self, scale: Tensor | None) -> float:
        """Largest singular value, of the features divided by ``scale``, that their rounding can have made."""
        if not self.single:
            return 0.0
        squares = self.scatter.diagonal() if self.rows is None else self.rows.square().sum(0)
        squares = squares + self.count * self.mean.square()
        total = float((squares if scale is None else squares / scale**2).sum())
        return float(torch.finfo(torch.float32).eps * total**0.5)

    def _spectrum(self, scale: Tensor | None) -> Spectrum:
        input_noise = self._input_noise(scale)
        if self.rows is None:
            matrix = self.scatter if scale is None else self.scatter / scale / scale[:, None]
            values, vectors = eigh(matrix)
            cutoff = rank_cutoff(values[-1].clamp(min=0), self.count, self.num_features).clamp(min=input_noise**2)
            none = len(values) - int((values > cutoff).sum())  # they ascend
            return Spectrum(values[none:], vectors[:, none:])
        if self.rough and self.single and self.count < self.num_features:
            found = self._rough_spectrum(scale, input_noise)
            if found is not None:
                return found
        if scale is None:
            left, lengths, vectors = thin_svd(self.rows)
        else:
            left, lengths = left_svd(self.rows / scale)
            vectors = self.rows.new_empty(self.num_features, 0)
        eps = torch.finfo(lengths.dtype).eps
        # rounding of the rotation, and of the samples as they were handed in
        noise = max(self.rows.shape) * lengths[0]
        noise = noise + 4 * self.count**0.5 * (self.mean if scale is None else self.mean / scale).norm()
        kept = int((lengths > (eps * noise).clamp(min=input_noise)).sum())  # they descend
        return Spectrum(lengths[:kept].square(), vectors[:, :kept], left[:, :kept])

    def _rough_spectrum(self, scale: Tensor | None, noise: float) -> Spectrum | None:
        """The spectrum by way of the products of samples, at a third of the cost; None where the rank is in doubt."""
        assert self.rows is not None
        rows = self.rows if scale is None else self.rows / scale
        values, left = (part.flip(-1) for part in eigh(self.products if scale is None else gram(rows.T)))
        if bool(((values > noise**2 / 4) & (values < 4 * noise**2)).any()):
            return None
        kept = int((values > noise**2).sum())
        return Spectrum(values[:kept], rows.new_empty(self.num_features, 0), left[:, :kept])

    @cached_property
    def products(self) -> Tensor:
        """Products of the centred samples, which are at hand, with each other, shape ``(n, n)``."""
        assert self.rows is not None
        return gram(self.rows.T)

    def along(self, point: Tensor) -> Tensor:
        """A point, shape ``(d,)``, along the vectors of :attr:`scatter_spectrum`, shape ``(r,)``."""
        values, vectors, left = self.scatter_spectrum
        if vectors.shape[1] or left is None:
            return vectors.T @ point
        assert self.rows is not None
        return left.T @ (self.rows @ point) / values.sqrt()

    def _less_span(self, point: Tensor, along: Tensor) -> Tensor:
        """A point, shape ``(d,)``, less what of it lies along the vectors of :attr:`scatter_spectrum`."""
        values, vectors, left = self.scatter_spectrum
        if vectors.shape[1] or left is None:
            return point - vectors @ along
        assert self.rows is not None
        return point - self.rows.T @ (left @ (along / values.sqrt()))

    @cached_property
    def mean_along(self) -> Tensor:
        """The mean along the vectors of :attr:`scatter_spectrum`, shape ``(r,)``."""
        return self.along(self.mean)

    @cached_property
    def mean_outside(self) -> Tensor:
        """Squared length of the part of the mean outside the span of the centred features, 0-d; 0 below rounding."""
        values = self.scatter_spectrum.values
        if len(values) == self.num_features:
            return self.mean.new_zeros(())
        outside = self._less_span(self.mean, self.mean_along)
        outside = self._less_span(outside, self.along(outside))
        eps = torch.finfo(outside.dtype).eps
        largest = float(values.max()) ** 0.5 if len(values) else 0.0
        condition = largest / float(values.min()) ** 0.5 if len(values) else 0.0
        noise = 10 * eps * condition * float(self.mean.norm())
        # features that somebody has centred have a mean of rounding: as for singular values, their size counts too
        size = max(self.count, self.num_features) * eps * largest
        noise = max(noise, size / self.count**0.5, self._input_noise(None) / self.count**0.5)
        square = outside.square().sum()
        return square if float(square) > noise**2 else torch.zeros_like(square)

    @cached_property
    def total_variance(self) -> Tensor:
        """Trace of the covariance (normalised by ``n``), 0-d."""
        return (self.scatter.trace() if self.rows is None else self.rows.square().sum()) / self.count

    @cached_property
    def effective_rank(self) -> Tensor:
        """Participation ratio of the covariance: its squared trace over its squared Frobenius norm, 0-d, at least 0."""
        square = self.scatter_square
        trace = self.total_variance * self.count
        return torch.where(square > 0, trace.square() / square, torch.zeros_like(square))

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix on its range, an estimate from below."""
        if self.rows is None:
            noise = self._input_noise(self.feature_scale) ** 2
            return whitened_square(self.scatter, self.scatter[:, :0], self.count, noise)[2]
        values = self.standard_spectrum.values
        return float(values.max() / values.min()) if len(values) else 1.0

    @cached_property
    def scatter_square(self) -> Tensor:
        """Squared Frobenius norm of :attr:`scatter`, 0-d."""
        wide = self.rows is not None and self.count < self.num_features
        square = self.products if wide else self.scatter
        norm: Tensor = torch.linalg.vector_norm(square)
        return norm.square()

    @cached_property
    def mean_variation(self) -> Tensor:
        """Sum of squares of the centred features along their mean, times its squared length, 0-d."""
        if self.rows is None:
            return self.mean @ self.scatter @ self.mean
        return (self.rows @ self.mean).square().sum()


@dataclass(frozen=True, kw_only=True)
class SupervisedMoments(FeatureMoments):
    """Moments of features with ``m`` targets, which for class ids are the indicators of the classes present."""

    @property
    @abstractmethod
    def target_mean(self) -> Tensor:
        """Mean of each target, shape ``(m,)``."""

    @property
    @abstractmethod
    def target_scatter(self) -> Tensor:
        """Sum of squares of each target about its mean, shape ``(m,)``."""

    @property
    @abstractmethod
    def cross_scatter(self) -> Tensor:
        """Sum of centred features times each target, shape ``(d, m)``."""

    @abstractmethod
    def _target_columns(self) -> Iterator[Tensor]:
        """Some centred targets of all samples at a time, shape ``(n, some)``, where they are at hand."""

    def coordinates(self, spectrum: Spectrum, scale: Tensor | None = None) -> Tensor:
        """Targets along the left vectors of a spectrum of this, shape ``(m, r)``.

        Args:
            spectrum: Of the features, or of the features divided by ``scale``.
            scale: Shape ``(d,)``.
        """
        if spectrum.left is None:
            cross = self.cross_scatter if scale is None else self.cross_scatter / scale[:, None]
            return cross.T @ spectrum.vectors / spectrum.values.sqrt()
        return torch.cat([columns.T @ spectrum.left for columns in self._target_columns()])

    def _left_over(self, spectrum: Spectrum, coordinates: Tensor) -> Tensor:
        """Sum of squares of each target that the features do not explain, shape ``(m,)``."""
        if spectrum.left is None:
            return (self.target_scatter - coordinates.square().sum(1)).clamp(min=0)
        parts = zip(self._target_columns(), coordinates.split(_COLUMNS), strict=True)
        return torch.cat([(columns - spectrum.left @ some.T).square().sum(0) for columns, some in parts])

    @cached_property
    def principal_coordinates(self) -> tuple[Tensor, Tensor]:
        """Targets along the left vectors of :attr:`scatter_spectrum`, ``(m, r)``, and squares left over, ``(m,)``."""
        coordinates = self.coordinates(self.scatter_spectrum)
        return coordinates, self._left_over(self.scatter_spectrum, coordinates)

    @cached_property
    def _whitened_sums(self) -> tuple[Tensor, int, float]:
        """Explained squares, rank and condition number of the correlation matrix, from sums."""
        noise = self._input_noise(self.feature_scale) ** 2
        return whitened_square(self.scatter, self.cross_scatter, self.count, noise)

    @cached_property
    def _whitened(self) -> tuple[LeastSquares, int]:
        """Least squares without penalty, and the rank of the correlation matrix."""
        if self.rows is None:
            explained, rank, _ = self._whitened_sums
            left_over = (self.target_scatter - explained).clamp(min=0)
            return LeastSquares(explained, left_over, torch.zeros_like(explained)), rank
        if self.one_span:
            spectrum, (coordinates, left_over) = self.scatter_spectrum, self.principal_coordinates
        else:
            spectrum = self.standard_spectrum
            coordinates = self.coordinates(spectrum)
            left_over = self._left_over(spectrum, coordinates)
        return LeastSquares(coordinates.square().sum(1), left_over, torch.zeros_like(left_over)), len(spectrum.values)

    @property
    def rank(self) -> int:
        """Numerical rank of the correlation matrix."""
        return self._whitened[1]

    @property
    def condition_number(self) -> float:
        """Condition number of the correlation matrix on its range, an estimate from below."""
        return self._whitened_sums[2] if self.rows is None else super().condition_number

    def least_squares(self, penalty: float = 0.0) -> LeastSquares:
        """Fit the targets by a linear map of the centred features.

        Args:
            penalty: Of the squared weights, not negative. Without one the weights, of which there may be many, are not
                looked for.
        """
        if penalty == 0:
            return self._whitened[0]
        if self.rows is None:
            largest = self.scatter.diagonal().max()
            ridge = self.scatter.clone()
            ridge.diagonal().add_(penalty)
            factor = cholesky(ridge)
            if factor is not None and penalty > 10 * float(rank_cutoff(largest, self.count, self.num_features)):
                half = torch.linalg.solve_triangular(factor, self.cross_scatter, upper=False)
                weights = torch.linalg.solve_triangular(factor.T, half, upper=True)
                explained = half.square().sum(0)
                objective = (self.target_scatter - explained).clamp(min=0)
                return LeastSquares(explained, objective, weights.square().sum(0))
        elif self.count < self.num_features and penalty > _SAFE * float(self.products.trace()):
            return self._least_squares_of_few(penalty)
        values = self.scatter_spectrum.values
        coordinates, left_over = self.principal_coordinates
        square = coordinates.square()
        share = values / (values + penalty)
        return LeastSquares(
            square @ share, left_over + square @ (penalty / (values + penalty)), square @ (share / (values + penalty))
        )

    def _least_squares_of_few(self, penalty: float) -> LeastSquares:
        """The same for fewer samples than features, which are at hand, from their products."""
        ridge = self.products.clone()
        ridge.diagonal().add_(penalty)
        factor = cholesky(ridge)
        assert factor is not None  # the penalty is far above rounding
        parts = []
        for columns in self._target_columns():
            duals = torch.cholesky_solve(columns, factor)
            fitted = self.products @ duals
            parts.append(
                [(one * other).sum(0) for one, other in ((columns, fitted), (columns, duals), (duals, fitted))]
            )
        explained, left_over, weights = map(torch.cat, zip(*parts, strict=True))
        return LeastSquares(explained, penalty * left_over, weights)


@dataclass(frozen=True, kw_only=True)
class ClassMoments(SupervisedMoments):
    """Moments of features with class ids.

    Attributes:
        class_counts: Samples of each class, shape ``(k,)``, float64; classes may be missing.
        class_sums: Sum of the shifted features of each class, shape ``(k, d)``.
        norm_weighted_sum: Sum of shifted features times their squared norm, shape ``(d,)``.
        norm_fourth: Sum of the fourth powers of their norms, 0-d.
        labels: Where the samples are at hand, the positions of their classes among those present, shape ``(n,)``.
    """

    class_counts: Tensor
    class_sums: Tensor
    norm_weighted_sum: Tensor
    norm_fourth: Tensor
    labels: Tensor | None = None

    @classmethod
    def from_samples(cls, features: Tensor, labels: Tensor, ignore_index: int | None = None) -> Self:
        """Compute the moments of a set of samples.

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
        labels, single = check_labels(labels, len(features)), features.dtype != torch.float64
        return cls.of_rows(features, labels, single=single).require_classes()

    @classmethod
    def of_rows(cls, features: Tensor, labels: Tensor, shift: Tensor | float = 0.0, *, single: bool = False) -> Self:
        """Compute the moments of samples that are checked already.

        Args:
            features: Shape ``(n, d)``, less ``shift``.
            labels: Shape ``(n,)``, int64.
            shift: Origin of the features, shape ``(d,)``.
            single: Whether they came in single precision or less.
        """
        rows, mean = centred(features)
        counts = torch.bincount(labels).to(rows.dtype)
        square = rows.square().sum(1)
        return cls(
            count=len(rows),
            shift=shift + mean,
            feature_sum=torch.zeros_like(mean),
            rows=rows,
            single=single,
            labels=((counts > 0).cumsum(0) - 1)[labels],
            class_counts=counts,
            class_sums=rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, labels, rows),
            norm_weighted_sum=square @ rows,
            norm_fourth=square @ square,
        )

    def require_classes(self) -> Self:
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

    @property
    def target_mean(self) -> Tensor:
        """Share of each present class, shape ``(c,)``."""
        return self.counts / self.count

    @property
    def target_scatter(self) -> Tensor:
        """Sum of squares of the indicator of each present class about its mean, shape ``(c,)``."""
        return self.counts * (1 - self.target_mean)

    @cached_property
    def class_offsets(self) -> Tensor:
        """Means of the present classes about the overall mean, shape ``(c, d)``."""
        return self.class_sums[self.present] / self.counts[:, None] - self.offset

    @cached_property
    def class_means(self) -> Tensor:
        """Means of the present classes, shape ``(c, d)``."""
        return self.class_offsets + self.mean

    @cached_property
    def cross_scatter(self) -> Tensor:
        """Sum of the centred features of each present class, shape ``(d, c)``; zero where the feature is constant."""
        cross = (self.class_offsets * self.counts[:, None]).T
        return cross if self.rows is not None else cross * (self.scatter.diagonal() > 0)[:, None]

    def _target_columns(self) -> Iterator[Tensor]:
        assert self.labels is not None
        for classes in torch.arange(self.num_classes, device=self.labels.device).split(_COLUMNS):
            yield (self.labels[:, None] == classes).double() - self.target_mean[classes]

    @cached_property
    def within_scatter(self) -> Tensor:
        """Scatter about the class means, shape ``(d, d)``."""
        between = self.class_offsets * self.counts.sqrt()[:, None]
        return self.scatter - between.T @ between

    @cached_property
    def centred_norm_fourth(self) -> Tensor:
        """Sum of the fourth powers of the norms of the centred features, 0-d."""
        if self.second_moment is None:
            return self.norm_fourth
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


@dataclass(frozen=True, kw_only=True)
class TargetMoments(SupervisedMoments):
    """Moments of features with real-valued targets.

    Attributes:
        target_shift: Origin of the moments of the targets, shape ``(m,)``.
        target_sum: Sum of the shifted targets, shape ``(m,)``.
        target_square: Sum of their squares, shape ``(m,)``.
        cross_moment: Sum of shifted features times shifted targets, shape ``(d, m)``.
        targets: The centred targets, shape ``(n, m)``, where the samples are at hand.
    """

    target_shift: Tensor
    target_sum: Tensor
    target_square: Tensor
    cross_moment: Tensor
    targets: Tensor | None = None

    @classmethod
    def from_samples(cls, features: Tensor, targets: Tensor) -> Self:
        """Compute the moments of a set of samples.

        Args:
            features: Shape ``(n, d)``, any floating dtype.
            targets: Shape ``(n,)`` or ``(n, m)``, any floating dtype.

        Raises:
            ValueError: If an input is malformed.
        """
        features = check_features(features)
        targets, single = check_targets(targets, len(features)), features.dtype != torch.float64
        return cls.of_rows(features, targets, single=single)

    @classmethod
    def of_rows(
        cls,
        features: Tensor,
        targets: Tensor,
        shift: Tensor | float = 0.0,
        target_shift: Tensor | float = 0.0,
        *,
        single: bool = False,
    ) -> Self:
        """Compute the moments of samples that are checked already.

        Args:
            features: Shape ``(n, d)``, less ``shift``.
            targets: Shape ``(n, m)``, less ``target_shift``.
            shift: Origin of the features, shape ``(d,)``.
            target_shift: Origin of the targets, shape ``(m,)``.
            single: Whether the features came in single precision or less.
        """
        rows, mean = centred(features)
        targets, target_mean = centred(targets)
        return cls(
            count=len(rows),
            shift=shift + mean,
            feature_sum=torch.zeros_like(mean),
            rows=rows,
            single=single,
            targets=targets,
            target_shift=target_shift + target_mean,
            target_sum=torch.zeros_like(target_mean),
            target_square=targets.square().sum(0),
            cross_moment=rows.T @ targets,
        )

    @cached_property
    def target_offset(self) -> Tensor:
        """Mean of the shifted targets, shape ``(m,)``."""
        return self.target_sum / self.count

    @cached_property
    def target_mean(self) -> Tensor:
        """Mean of each target, shape ``(m,)``."""
        return self.target_shift + self.target_offset

    @cached_property
    def target_scatter(self) -> Tensor:
        """Sum of squares of the centred targets, shape ``(m,)``; exactly zero for a constant target."""
        scatter = self.target_square - self.count * self.target_offset.square()
        eps = torch.finfo(scatter.dtype).eps
        noise = self.count * (8 * eps * self.target_mean.abs()) ** 2
        return torch.where(scatter > noise, scatter, torch.zeros_like(scatter))

    @cached_property
    def cross_scatter(self) -> Tensor:
        """Sum of centred features times centred targets, shape ``(d, m)``; zero where the feature is constant."""
        if self.rows is not None:
            return self.cross_moment
        cross = self.cross_moment - self.count * torch.outer(self.offset, self.target_offset)
        return cross * (self.scatter.diagonal() > 0)[:, None]

    def _target_columns(self) -> Iterator[Tensor]:
        assert self.targets is not None
        yield from self.targets.split(_COLUMNS, dim=1)
