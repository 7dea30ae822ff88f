"""Symmetric linear algebra with relative cut-offs, so that no score depends on the scale of the features."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAF = 256  # below this width a plain product is as fast as splitting it further


def add_gram_(out: Tensor, rows: Tensor) -> Tensor:
    """Add the upper triangle of ``rows.T @ rows`` to ``out`` in place, at little more than half the cost of the whole.

    Entries below the diagonal of ``out`` are left in an unspecified state: read it through :func:`mirror_upper`.

    Args:
        out: Shape ``(d, d)``.
        rows: Shape ``(n, d)``, same dtype and device.

    Returns:
        ``out``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.linalg import add_gram_, mirror_upper
        >>> x = torch.arange(6.0).reshape(3, 2)
        >>> torch.equal(mirror_upper(add_gram_(torch.zeros(2, 2), x)), x.T @ x)
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


def mirror_upper(matrix: Tensor) -> Tensor:
    """Return the symmetric matrix that has the upper triangle of ``matrix``."""
    mirrored = matrix.triu()
    return mirrored.add_(matrix.triu(1).mT)


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

    The matrix is scaled to a unit diagonal first. For right-hand sides in the range of ``matrix`` that changes nothing
    but makes the notion of rank independent of the scale of each feature.
    A Cholesky factor serves where it is safe, an eigendecomposition where the rank is deficient.

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
    scaled = (matrix / scale).div_(scale[:, None])
    rhs = rhs / scale[:, None]
    factor, failed = torch.linalg.cholesky_ex(scaled)
    if not int(failed):
        pivots = factor.diagonal()
        condition = float((pivots.max() / pivots.min()) ** 2)
        if condition < 1e9:
            return torch.linalg.solve_triangular(factor, rhs, upper=False).square().sum(0), len(scale), condition
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > rank_cutoff(values[-1], n, len(values))
    values, vectors = values[kept], vectors[:, kept]
    square = ((vectors.T @ rhs).square() / values[:, None]).sum(0)
    return square, len(values), float(values[-1] / values[0])
