"""EMMS: linear regression on embeddings of the labels, several of them weighted by how well they fit."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional._variants import published
from lightning_transfer.functional.counts import (
    check_attributes,
    is_multilabel,
    refuse_ignored_columns,
)
from lightning_transfer.functional.moments import ClassMoments, FeatureMoments, TargetMoments
from lightning_transfer.utilities.checks import (
    check_features,
    check_one_of,
    check_targets,
    flatten_positions,
)


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
    columns = None
    if targets is not None:
        columns = check_targets(targets, len(features))
    elif labels is not None and is_multilabel(features, labels):
        refuse_ignored_columns(labels, ignore_index)
        columns = check_attributes(labels, len(features)).double()
        labels = None
    if columns is not None:
        if labels is not None or embeddings is not None:
            raise ValueError("Expected `targets` or several `labels` a sample alone, which are their own embedding.")
        return emms_from_moments(TargetMoments.from_samples(features, columns), variant=variant)
    if labels is not None:
        return emms_from_moments(ClassMoments.from_samples(features, labels), embeddings, variant=variant)
    if embeddings is None:
        raise ValueError("Expected argument `labels`, `targets` or `embeddings`, but got none.")
    embeddings = check_embeddings(embeddings, len(features))
    coordinates = FeatureMoments.of_features(
        features.double(), single=features.dtype != torch.float64
    ).standard_spectrum.left
    assert coordinates is not None
    return _score(coordinates, coordinates.new_ones(len(coordinates)), embeddings.to(coordinates), variant)


def emms_from_moments(
    moments: ClassMoments | TargetMoments, embeddings: Tensor | None = None, *, variant: str = "paper"
) -> Tensor:
    """Compute the score from moments.

    Args:
        moments: Of features with classes or with targets, which are their own embedding.
        embeddings: Of the classes, shape ``(classes, l, k)``, or None for one-hot vectors.
        variant: ``"paper"`` or ``"official"``.
    """
    if isinstance(moments, TargetMoments):
        variance = ((moments.target_scatter / moments.count).sqrt() + _floor(variant)).square()
        shares = torch.where(variance > 0, moments.least_squares().objective / variance, 0.0) / moments.count
        return _negated(shares.mean(), len(variance), variant)
    coordinates = moments.coordinates(moments.standard_spectrum, moments.feature_scale)
    chosen = select_embeddings(embeddings, moments.present)
    return _score(coordinates, moments.counts, chosen.to(coordinates), variant)


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


def _score(coordinates: Tensor, counts: Tensor, embeddings: Tensor, variant: str) -> Tensor:
    """Score of groups of samples with one embedding each.

    Args:
        coordinates: Sums over each group of an orthonormal basis of the standardised features, shape ``(g, r)``.
        counts: Samples of each group, shape ``(g,)``.
        embeddings: Shape ``(g, l, k)``.
        variant: ``"paper"`` or ``"official"``.
    """
    n = float(counts.sum())
    mean = torch.einsum("g,glk->lk", counts, embeddings) / n
    centred = embeddings - mean
    deviation = (torch.einsum("g,glk->lk", counts, centred.square()) / n).sqrt()
    constant = deviation <= 8 * torch.finfo(deviation.dtype).eps * mean.abs()
    standard = centred.masked_fill(constant, 0) / (deviation + _floor(variant)).masked_fill(constant, 1)
    projected = coordinates.T @ standard.mean(2)
    overlap = torch.einsum("g,glk,glm->km", counts, standard, standard)
    agreement = torch.einsum("gl,glk->k", coordinates @ projected, standard)  # of F W with each embedding
    target = standard @ _sparsemax(torch.linalg.pinv(overlap, hermitian=True) @ agreement)
    explained = coordinates.T @ target
    error: Tensor = (projected - explained).square().sum()
    error = error + ((counts @ target.square()).sum() - explained.square().sum()).clamp(min=0)
    width = standard.shape[1]
    return _negated(error / (n * width), width, variant)


def _floor(variant: str) -> float:
    return float(published("emms", "DEVIATION_FLOOR")) if variant == "official" else 0.0


def _negated(error: Tensor, width: int, variant: str) -> Tensor:
    score: Tensor = 0.0 - error
    return published("emms", "times_width")(score, width) if variant == "official" else score


def _sparsemax(values: Tensor) -> Tensor:
    """Euclidean projection on the simplex."""
    ordered = values.sort(descending=True).values
    excess = ordered.cumsum(0) - 1
    ranks = torch.arange(1, len(values) + 1, device=values.device)
    size = int((ordered * ranks > excess).sum())
    projected: Tensor = (values - excess[size - 1] / size).clamp(min=0)
    return projected
