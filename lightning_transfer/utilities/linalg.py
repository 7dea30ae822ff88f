"""Symmetric linear algebra with relative cut-offs, so that no score depends on the scale of the features."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_HALF = 512  # columns from which on a block of a product fills a GPU
_LEAF = 256  # below this width a plain product or copy is as fast as anything that knows of the symmetry
_SHARED = 1536  # rows from which on threads gain more of a factorisation than they lose by waiting for each other


def add_gram_(out: Tensor, rows: Tensor) -> Tensor:
    """Add the upper triangle of ``rows.T @ rows`` to ``out`` in place, at half the cost of the whole.

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
    if not (_suits_blas(rows) and len(rows) and out.is_contiguous()):  # a GPU is faster with one product
        return out.addmm_(rows.T, rows)
    from scipy.linalg.blas import dsyrk  # PyTorch has no product that knows its result is symmetric

    # in BLAS's order of memory the transpose of a tensor, whose lower triangle is the upper one here
    with _threads(torch.get_num_threads()):
        dsyrk(1.0, rows.detach().numpy().T, beta=1.0, c=out.numpy().T, lower=True, overwrite_c=True)
    return out


def add_grams_(out: Tensor, rows: Tensor) -> Tensor:
    """Add the upper triangles of several ``rows.T @ rows`` to ``out`` in place, as few products as suit a GPU.

    Args:
        out: Shape ``(k, d, d)``; entries below the diagonals are left in an unspecified state.
        rows: Shape ``(k, n, d)``, same dtype and device.

    Returns:
        ``out``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.linalg import add_grams_
        >>> x = torch.arange(6.0).reshape(1, 3, 2)
        >>> add_grams_(torch.zeros(1, 2, 2), x)
        tensor([[[20., 26.],
                 [26., 35.]]])
    """
    k, half = len(out), out.shape[1] // 2
    if half < _HALF:
        return out.baddbmm_(rows.mT, rows)
    left, right = rows[..., :half], rows[..., half:]
    for rest, one, other in (
        (out[:, :half, :half], left, left),
        (out[:, :half, half:], left, right),
        (out[:, half:, half:], right, right),
    ):
        if k == 1:  # a batch of one is cut along the samples, which takes longer
            rest[0].addmm_(one[0].T, other[0])
        else:
            rest.baddbmm_(one.mT, other)
    return out


def gram(rows: Tensor) -> Tensor:
    """``rows.T @ rows``, at half the cost where :func:`add_gram_` takes half.

    Args:
        rows: Shape ``(n, d)``.

    Returns:
        Shape ``(d, d)``, symmetric to the last bit on a CPU.
    """
    if rows.requires_grad or not _suits_blas(rows):
        return rows.T @ rows
    return mirror_upper_(add_gram_(rows.new_zeros(rows.shape[1], rows.shape[1]), rows))


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors as of ``torch.linalg.eigh``, by SciPy's LAPACK where that takes two thirds.

    Args:
        matrix: Shape ``(d, d)``, symmetric.

    Returns:
        Values, ascending, shape ``(d,)``, and vectors, shape ``(d, d)``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.linalg import eigh
        >>> eigh(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))[0]
        tensor([1., 2.])
    """
    if matrix.requires_grad or not _suits_blas(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    from scipy.linalg import eigh as decompose

    with _threads(_worth(matrix)):
        found = decompose(matrix.numpy(), driver="evd")
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def cholesky(matrix: Tensor) -> Tensor | None:
    """Lower Cholesky factor, by SciPy's LAPACK where that is faster; None if the matrix is not positive definite.

    Args:
        matrix: Shape ``(d, d)``, symmetric.
    """
    if matrix.requires_grad or not _suits_blas(matrix):
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return None if int(failed) else factor
    from scipy.linalg.lapack import dpotrf

    with _threads(_worth(matrix)):
        # in LAPACK's order of memory the transpose of the lower factor
        upper, failed = dpotrf(matrix.numpy().T, lower=False, clean=True)
    return None if failed else torch.from_numpy(upper.T)


@cache
def _pools() -> ThreadpoolController:
    """The threads of SciPy's BLAS, which knows nothing of ``torch.set_num_threads``."""
    import scipy.linalg  # noqa: F401 - what is loaded by now is found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _threads(count: int) -> AbstractContextManager[Any]:
    """Let SciPy's BLAS take so many threads, or as many as it may by its own settings, if these are fewer."""
    pools = _pools()
    limit: AbstractContextManager[Any] = pools.limit(
        limits=min([count, *(p.num_threads for p in pools.lib_controllers)])
    )
    return limit


def _worth(matrix: Tensor) -> int:
    """Threads for a factorisation: where others keep the cores busy, those of a small one wait longer than it takes."""
    return torch.get_num_threads() if len(matrix) >= _SHARED else 1


def _suits_blas(matrix: Tensor) -> bool:
    return matrix.device.type == "cpu" and matrix.dtype == torch.float64 and matrix.shape[1] > _LEAF


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


def centred(features: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Centre samples so that no digit is lost to a mean far from zero; what varies by rounding alone becomes zero.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        dtype: What is computed in.

    Returns:
        The centred samples, shape ``(n, d)``, in new memory, and the mean, shape ``(d,)``.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.linalg import centred
        >>> centred(torch.tensor([[0.1, 1e6], [0.1, 1e6 + 2]]))[0]
        tensor([[ 0., -1.],
                [ 0.,  1.]], dtype=torch.float64)
    """
    rows = features.to(dtype)
    mean = rows.mean(0)
    rows = rows - mean
    rest = rows.mean(0)  # of the rounding of the first mean
    rows -= rest
    mean = mean + rest
    noise = 8 * torch.finfo(dtype).eps * len(rows) ** 0.5 * mean.abs()
    constant = torch.linalg.vector_norm(rows, dim=0) <= noise
    return (rows.masked_fill_(constant, 0) if bool(constant.any()) else rows), mean


def thin_svd(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition ``rows = U diag(s) V.T``, by way of a triangular factor.

    Args:
        rows: Shape ``(n, d)``.

    Returns:
        ``U`` of shape ``(n, r)``, ``s`` of shape ``(r,)``, descending, and ``V`` of shape ``(d, r)``, with
        ``r = min(n, d)``.
    """
    tall = len(rows) >= rows.shape[1]
    basis, factor = torch.linalg.qr(rows if tall else rows.T)
    left, values, right = torch.linalg.svd(factor)
    return (basis @ left, values, right.T) if tall else (right.T, values, basis @ left)


def left_svd(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first two parts of :func:`thin_svd`; of fewer samples than features they cost less than half of it."""
    if len(rows) >= rows.shape[1]:
        return thin_svd(rows)[:2]
    _, values, right = torch.linalg.svd(torch.linalg.qr(rows.T, mode="r")[1])
    return right.T, values


def rank_cutoff(largest: Tensor, n: int, d: int) -> Tensor:
    """Eigenvalues of a Gram matrix up to this size are rounding noise.

    Args:
        largest: The largest eigenvalue, 0-d.
        n: Number of samples.
        d: Number of features.
    """
    return largest * max(n, d) * torch.finfo(largest.dtype).eps


def input_rounding(features: Tensor) -> float:
    """Largest singular value that the rounding of features to single precision or less can have made.

    Directions below it are no variation of the samples, whatever is computed in; 0 for float64.

    Args:
        features: As they were handed in, shape ``(n, d)``.
    """
    if features.dtype == torch.float64:
        return 0.0
    return torch.finfo(torch.float32).eps * float(torch.linalg.vector_norm(features, dtype=torch.float64))


def whitened_square(matrix: Tensor, rhs: Tensor, n: int, noise: float = 0.0) -> tuple[Tensor, int, float]:
    r"""Return ``diag(rhs.T @ pinv(matrix) @ rhs)`` with the numerical rank and condition number.

    A Cholesky factor serves where it is safe, an eigendecomposition where the rank is deficient. Rank and condition are
    those of the matrix scaled to a unit diagonal, so that they do not depend on the scale of each feature; for
    right-hand sides in the range of ``matrix`` the result does not either.

    Args:
        matrix: Shape ``(d, d)``, positive semi-definite.
        rhs: Shape ``(d, m)``, columns in the range of ``matrix``.
        n: Number of samples behind ``matrix``.
        noise: Eigenvalues of the scaled matrix up to this size are rounding of the samples.

    Returns:
        Shape ``(m,)``; the rank; the condition number of the scaled matrix on its range.
    """
    scale = matrix.diagonal().clamp(min=0).sqrt()
    alive = scale > 0
    if not bool(alive.all()):
        matrix, rhs, scale = matrix[alive][:, alive], rhs[alive], scale[alive]
    if not len(scale):
        return rhs.new_zeros(rhs.shape[1]), 0, 1.0
    factor = cholesky(matrix)
    if factor is not None:
        pivots = factor.diagonal() / scale  # the factor of the scaled matrix is this one with its rows scaled
        condition = float((pivots.max() / pivots.min()) ** 2)
        if condition < 1e9 and noise * condition < 1:
            return torch.linalg.solve_triangular(factor, rhs, upper=False).square().sum(0), len(scale), condition
    values, vectors = eigh((matrix / scale).div_(scale[:, None]))
    kept = values > rank_cutoff(values[-1], n, len(values)).clamp(min=noise)
    values, vectors = values[kept], vectors[:, kept]
    square = ((vectors.T @ (rhs / scale[:, None])).square() / values[:, None]).sum(0)
    return square, len(values), float(values[-1] / values[0])
