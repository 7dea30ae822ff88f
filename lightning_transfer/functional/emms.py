"""EMMS: linear regression on embeddings of the labels, several of them weighted by how well they fit."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional.counts import (
    check_attributes,
    is_multilabel,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.functional.moments import ClassMoments, TargetMoments
from lightning_transfer.utilities.checks import (
    check_features,
    check_labels,
    check_one_of,
    check_targets,
    flatten_positions,
)
from lightning_transfer.utilities.linalg import rank_cutoff

_EPS = 1e-8  # added to standard deviations, as in the published code


def emms(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    embeddings: Tensor | None = None,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    r"""Compute the efficient multi-task model selector score (Meng et al., NeurIPS 2023).

    Labels become vectors, by k foundation models at once: :math:`Y_1, \dots, Y_k`. With standardised features F and
    standardised embeddings, weights :math:`t` on the simplex and a linear map W are found in turn, once: W is the least
    squares map from F to the plain mean of the embeddings; t the sparsemax of the least squares weights of F W in terms
    of the embeddings. The score is minus the mean squared error :math:`-|F W - \sum_k t_k Y_k|^2 / (n\, l)`. The
    published code multiplies by the width l of the embeddings instead of dividing: ``"official"``.

    Args:
        features: Shape ``(n, d)`` (tokens ``(b, t, d)`` and pixels ``(b, d, h, w)`` too), any floating dtype; computed
            in float64.
        labels: Class ids, shape ``(n,)``, any integer dtype, that index the rows of ``embeddings``; zeros and ones of a
            multi-label task, shape ``(n, l)``, which are their own embedding; None if embeddings are given for each
            sample.
        targets: Regression targets instead of labels, shape ``(n,)`` or ``(n, m)``, which are their own embedding.
        embeddings: Shape ``(classes, l, k)`` with class ids, ``(n, l, k)`` without; ``(..., l)`` stands for one
            embedding. By default the one-hot vectors of the classes present.
        variant: ``"paper"`` or ``"official"``.
        ignore_index: Samples with this class id are left out.

    Returns:
        0-d float64 tensor, at most 0; higher is better.

    Raises:
        ValueError: If an input or option is malformed, does not go with another, or fewer than two classes are present.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.emms import emms
        >>> features = torch.tensor([[0.0, 1.0], [0.3, 0.6], [1.0, 0.0], [0.7, 0.5]])
        >>> emms(features, torch.tensor([0, 0, 1, 1]))
        tensor(-0.0094, dtype=torch.float64)
    """
    check_one_of(variant, ("paper", "official"), "variant")
    if labels is not None:
        features, labels = flatten_positions(features, labels, ignore_index)
    features = check_features(features)
    n = len(features)
    columns = None
    if targets is not None:
        columns = check_targets(targets, n).double()
    elif labels is not None and is_multilabel(features, labels):
        refuse_ignored_columns(labels, ignore_index)
        columns = check_attributes(labels, n).double()
        labels = None
    if columns is not None:
        if labels is not None or embeddings is not None:
            raise ValueError("Expected `targets` or several `labels` a sample alone, which are their own embedding.")
        embeddings = columns
    if labels is not None:
        present, groups = check_labels(labels, n).unique(return_inverse=True)
        require_two_classes(len(present))
        embeddings = select_embeddings(embeddings, present)
    elif embeddings is None:
        raise ValueError("Expected argument `labels`, `targets` or `embeddings`, but got none.")
    else:
        embeddings = check_embeddings(embeddings, n)
        groups = torch.arange(n, device=features.device)
    rows = features.double()
    rows = rows - rows.mean(0)
    rows = rows / (rows.square().mean(0).sqrt() + _EPS)
    if n < rows.shape[1]:
        rows = torch.linalg.qr(rows.T, mode="r").R.T
    sums = rows.new_zeros(len(embeddings), rows.shape[1]).index_add_(0, groups, rows)
    counts = torch.bincount(groups, minlength=len(embeddings)).double()
    return _score(rows.T @ rows, sums, counts, embeddings.to(rows), variant)


def emms_from_moments(
    moments: ClassMoments | TargetMoments, embeddings: Tensor | None = None, *, variant: str = "paper"
) -> Tensor:
    """Compute the score from moments in the coordinates of the features.

    Args:
        moments: Moments in all ``d`` features. Targets are their own embedding.
        embeddings: Of the classes, shape ``(classes, l, k)``, or None for one-hot vectors.
        variant: ``"paper"`` or ``"official"``.
    """
    scale = (moments.scatter.diagonal() / moments.count).sqrt() + _EPS
    if isinstance(moments, TargetMoments):
        deviation = (moments.target_scatter / moments.count).sqrt() + _EPS
        values, vectors = _spectrum(moments.scatter / scale / scale[:, None], moments.count)
        cross = moments.cross_scatter / scale[:, None] / deviation
        explained = ((vectors.T @ cross).square() / values[:, None]).sum()
        error = ((moments.target_scatter / deviation.square()).sum() - explained).clamp(min=0)
        return _negated(error, moments.count, len(deviation), variant)
    sums = moments.class_offsets * moments.counts[:, None] / scale
    gram = moments.scatter / scale / scale[:, None]
    chosen = select_embeddings(embeddings, moments.present)
    return _score(gram, sums, moments.counts, chosen.to(gram), variant)


def check_embeddings(embeddings: Tensor, rows: int | None = None) -> Tensor:
    """Check embeddings and give them the shape ``(rows, l, k)``, float64.

    Raises:
        ValueError: If they are malformed.
    """
    if isinstance(embeddings, Tensor) and embeddings.ndim == 2:
        embeddings = embeddings[:, :, None]
    valid = isinstance(embeddings, Tensor) and embeddings.ndim == 3 and embeddings.is_floating_point()
    if not valid or not embeddings.numel() or not bool(embeddings.isfinite().all()):
        what = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise ValueError(
            f"Expected argument `embeddings` to be a finite 2D or 3D floating point tensor, but got {what}."
        )
    if rows is not None and len(embeddings) != rows:
        raise ValueError(f"Expected argument `embeddings` to have {rows} rows, but got {len(embeddings)}.")
    return embeddings.detach().double()


def select_embeddings(embeddings: Tensor | None, present: Tensor) -> Tensor:
    """Rows of the classes present, shape ``(c, l, k)``; one-hot vectors if there are no embeddings.

    Raises:
        ValueError: If a class has no row.
    """
    if embeddings is None:
        return torch.eye(len(present), dtype=torch.float64, device=present.device)[:, :, None]
    embeddings = check_embeddings(embeddings)
    if int(present.max()) >= len(embeddings):
        raise ValueError(
            f"Expected argument `embeddings` to have a row for each class id, but got {len(embeddings)} rows and id "
            f"{int(present.max())}."
        )
    return embeddings[present.to(embeddings.device)]


def _score(gram: Tensor, sums: Tensor, counts: Tensor, embeddings: Tensor, variant: str) -> Tensor:
    """Score from the Gram matrix of standardised features and, for each group with one embedding, its sum and size."""
    n = float(counts.sum())
    centred = embeddings - torch.einsum("g,glk->lk", counts, embeddings) / n
    deviation = (torch.einsum("g,glk->lk", counts, centred.square()) / n).sqrt()
    standard = centred / (deviation + _EPS)
    target = standard.mean(2)
    values, vectors = _spectrum(gram, round(n))
    coefficients = (vectors.T @ sums.T @ target) / values[:, None]
    fitted = sums @ vectors @ coefficients  # F W summed over each group
    overlap = torch.einsum("g,glk,glm->km", counts, standard, standard)
    weights = _sparsemax(torch.linalg.pinv(overlap, hermitian=True) @ torch.einsum("gl,glk->k", fitted, standard))
    target = standard @ weights
    squares = (coefficients.square() * values[:, None]).sum()
    error: Tensor = (squares - 2 * (fitted * target).sum() + (counts @ target.square()).sum()).clamp(min=0)
    return _negated(error, n, standard.shape[1], variant)


def _spectrum(gram: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues above rounding noise, and their eigenvectors."""
    values, vectors = torch.linalg.eigh(gram)
    kept = values > rank_cutoff(values[-1], n, len(values))
    return values[kept], vectors[:, kept]


def _negated(error: Tensor, n: float, width: int, variant: str) -> Tensor:
    return -error / (n * width) if variant == "paper" else -error / n * width


def _sparsemax(values: Tensor) -> Tensor:
    """Euclidean projection on the simplex."""
    ordered = values.sort(descending=True).values
    excess = ordered.cumsum(0) - 1
    ranks = torch.arange(1, len(values) + 1, device=values.device)
    size = int((ordered * ranks > excess).sum())
    projected: Tensor = (values - excess[size - 1] / size).clamp(min=0)
    return projected
