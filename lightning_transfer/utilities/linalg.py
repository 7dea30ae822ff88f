"""Symmetric linear algebra with relative cut-offs, so that no score depends on the scale of the features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

_LEAF = 256  # below this width a plain product, or decomposition, is as fast as splitting it further


def add_gram_(out: Tensor, rows: Tensor) -> Tensor:
    """Add the upper triangle of ``rows.T @ rows`` to ``out`` in place, at little more than half the cost of the whole.

    Entries below the diagonal of ``out`` are left in an unspecified state: read it through :func:`mirror_upper_`.

    Args:
        out: Shape ``(d, d)``.
        rows: Shape ``(n, d)``, same dtype and device.

    Returns:
        ``out``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.linalg import add_gram_, mirror_upper_
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> torch.equal(mirror_upper_(add_gram_(torch.zeros(2, 2), x)), x.T @ x)
        True
    """
    d = rows.shape[1]
    if d <= _LEAF:
        return out.addmm_(rows.T, rows)
    half = d // 2
    add_gram_(out[:half, :half], rows[:, :half])
    out[:half, half:].addmm_(rows[:, :half].T, rows[:, half:])
    add_gram_(out[half:, half:], rows[:, half:])
    return out


def mirror_upper_(matrix: Tensor) -> Tensor:
    """Copy the upper triangle of ``matrix`` onto the lower one in place, and return it."""
    d = len(matrix)
    if d <= _LEAF:
        return matrix.triu_().add_(matrix.triu(1).mT)
    half = d // 2
    mirror_upper_(matrix[:half, :half])
    matrix[half:, :half] = matrix[:half, half:].mT
    mirror_upper_(matrix[half:, half:])
    return matrix


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a symmetric matrix and a basis of eigenvectors, which may be left in factors.

    Attributes:
        values: Ascending, shape ``(m,)``.
        vectors: One column an eigenvalue, shape ``(d, m)``; behind ``reflectors``.
        reflectors: Householder vectors and their factors, as LAPACK leaves them, that reduce the matrix to the
            tridiagonal one that ``vectors`` belong to; none if they belong to the matrix itself.
    """

    values: Tensor
    vectors: Tensor
    reflectors: tuple[Any, Any] | None = None

    @classmethod
    def of(cls, matrix: Tensor) -> Spectrum:
        """Decompose a symmetric matrix.

        Few columns are ever expressed in the eigenvectors, so that these need not be multiplied out: on a CPU that
        saves about a third of the time.

        Args:
            matrix: Shape ``(d, d)``, floating, on any device.

        Example:
            >>> import torch
            >>> from lightning_transfer.utilities.linalg import Spectrum
            >>> spectrum = Spectrum.of(torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
            >>> spectrum.values, spectrum.along(torch.tensor([[5.0], [7.0]])).abs()
            (tensor([2., 3.]), tensor([[7.],
                    [5.]]))
        """
        on_cpu = matrix.device.type == "cpu" and matrix.dtype == torch.float64 and not matrix.requires_grad
        found = _reduced_spectrum(matrix) if on_cpu and len(matrix) > _LEAF else None
        return found or cls(*torch.linalg.eigh(matrix))

    def without_first(self, count: int) -> Spectrum:
        """Leave out the smallest eigenvalues.

        Args:
            count: How many.
        """
        return replace(self, values=self.values[count:], vectors=self.vectors[:, count:])

    def along(self, columns: Tensor) -> Tensor:
        """Coordinates of columns along the eigenvectors.

        Args:
            columns: Shape ``(d, k)``.

        Returns:
            Shape ``(m, k)``; the sign of each row is arbitrary.
        """
        if self.reflectors is not None:
            from scipy.linalg import lapack

            vectors, factors = self.reflectors
            rotated, _, _ = lapack.dormqr("L", "T", vectors, factors, columns[1:].numpy(), _LEAF * columns.shape[1])
            columns = torch.cat([columns[:1], torch.from_numpy(rotated)])
        return self.vectors.T @ columns


def _reduced_spectrum(matrix: Tensor) -> Spectrum | None:
    """Spectrum with its reflectors kept apart; none where SciPy is too old or LAPACK does not succeed."""
    from scipy.linalg import lapack

    if not hasattr(lapack, "dstevd"):  # before SciPy 1.16
        return None
    work, _ = lapack.dsytrd_lwork(len(matrix), lower=1)
    reduced, diagonal, off_diagonal, factors, failed = lapack.dsytrd(matrix.numpy().T, lower=1, lwork=int(work))
    values, vectors, unconverged = lapack.dstevd(diagonal, off_diagonal)
    if failed or unconverged:
        return None
    reflectors = reduced[1:, :-1].copy(order="F"), factors
    return Spectrum(torch.from_numpy(values), torch.from_numpy(vectors), reflectors)


def rank_cutoff(largest: Tensor, n: int, d: int) -> Tensor:
    """Eigenvalues of a Gram matrix up to this size are rounding noise.

    Args:
        largest: The largest eigenvalue, 0-d.
        n: Number of samples.
        d: Number of features.
    """
    return largest * max(n, d) * torch.finfo(largest.dtype).eps


def whitened_square(matrix: Tensor, rhs: Tensor, n: int) -> tuple[Tensor, int, float]:
    r"""Return ``diag(rhs.T @ pinv(matrix) @ rhs)`` with the numerical rank and condition number.

    A Cholesky factor serves where it is safe, an eigendecomposition where the rank is deficient. Rank and condition are
    those of the matrix scaled to a unit diagonal, so that they do not depend on the scale of each feature; for
    right-hand sides in the range of ``matrix`` the result does not either.

    Args:
        matrix: Shape ``(d, d)``, positive semi-definite.
        rhs: Shape ``(d, m)``, columns in the range of ``matrix``.
        n: Number of samples behind ``matrix``.

    Returns:
        Shape ``(m,)``; the rank; the condition number of the scaled matrix on its range.
    """
    scale = matrix.diagonal().clamp(min=0).sqrt()
    alive = scale > 0
    if not bool(alive.all()):
        matrix, rhs, scale = matrix[alive][:, alive], rhs[alive], scale[alive]
    if not len(scale):
        return rhs.new_zeros(rhs.shape[1]), 0, 1.0
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        pivots = factor.diagonal() / scale  # the factor of the scaled matrix is this one with its rows scaled
        condition = float((pivots.max() / pivots.min()) ** 2)
        if condition < 1e9:
            return torch.linalg.solve_triangular(factor, rhs, upper=False).square().sum(0), len(scale), condition
    values, vectors = torch.linalg.eigh((matrix / scale).div_(scale[:, None]))
    kept = values > rank_cutoff(values[-1], n, len(values))
    values, vectors = values[kept], vectors[:, kept]
    square = ((vectors.T @ (rhs / scale[:, None])).square() / values[:, None]).sum(0)
    return square, len(values), float(values[-1] / values[0])
