"""PARC: agreement of two notions of distance between samples, by features and by labels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.functional._rows import principal_components
from lightning_transfer.functional._variants import published
from lightning_transfer.functional.counts import check_attributes, refuse_ignored_columns
from lightning_transfer.utilities.checks import (
    check_features,
    check_labels,
    check_one_of,
    check_positive_int,
    flatten_positions,
)
from lightning_transfer.utilities.linalg import centred
from lightning_transfer.utilities.renames import renamed


@renamed(max_samples="keep_samples")
def parc(
    features: Tensor,
    labels: Tensor,
    *,
    pca_dim: int | None = None,
    keep_samples: int | None = 500,
    seed: int = 0,
    variant: str = "paper",
    ignore_index: int | None = None,
) -> Tensor:
    """Compute the pairwise annotation representation comparison (Bolya et al., NeurIPS 2021, section 4).

    Features are standardised per dimension. The distance of two samples is one minus the Pearson correlation of their
    feature vectors, and likewise of their one-hot (or multi-hot) label vectors; the score is 100 times the Spearman
    correlation of the two distances over all pairs. A vector that does not vary has no correlation: its correlation
    with every other is taken as 0.

    Pairs cost time and memory that grow with n squared, so at most ``keep_samples`` samples are used, drawn by
    ``seed``: 500 is the size of the paper's probes. The published code reduces features by a seeded,
    randomised PCA to 32 dimensions: ``"official"`` does so too, otherwise ``pca_dim=32`` is an exact one. Shifting and
    scaling each feature changes nothing without PCA.

    All pairs of one class are at distance 0 from one another: a tie. In the published code rounding moves some classes
    to 1e-16, and the rank correlation then orders classes by that accident, which can move the score by some points:
    ``variant="official"`` repeats it, as far as NumPy rounds alike.

    Args:
        features: Shape ``(n, d)`` with ``d`` at least 2, any floating dtype; computed in float64.
        labels: Class ids, shape ``(n,)``, any integer dtype, with or without gaps; or attributes 0 and 1, shape
            ``(n, l)`` with ``l`` at least 2, any dtype.
        pca_dim: Principal components kept before standardising, at least 2; ``None`` keeps the features as they are.
        keep_samples: Largest number of samples used; ``None`` uses all.
        seed: Seed of the draw.
        variant: ``"paper"`` or ``"official"``.
        ignore_index: Samples with this class id are left out.

    Returns:
        0-d float64 tensor in [-100, 100]; higher is better.

    Raises:
        ValueError: If an input or option is malformed, or all samples used have the same labels.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional.parc import parc
        >>> features = torch.tensor([[0.0, 1.0, 0.1], [0.3, 0.6, 0.0], [1.0, 0.0, 0.2], [0.7, 0.5, 0.9]])
        >>> parc(features, torch.tensor([0, 0, 1, 1]))
        tensor(82.8079, dtype=torch.float64)
    """
    if variant == "official":
        score: Tensor = published("parc")(
            features, labels, pca_dim=pca_dim, keep_samples=keep_samples, seed=seed, ignore_index=ignore_index
        )
        return score
    check_parc_options(pca_dim, keep_samples, variant)
    rows, annotations = choose_samples(features, labels, keep_samples, seed, ignore_index)
    if pca_dim is not None:
        rows = principal_components(rows, pca_dim)[0]
    # to ten digits: below, sums of the same numbers differ by their order
    return rank_agreement(
        correlation_distances(standardise(rows)).mul(1e10).round(),
        correlation_distances(annotations).mul(1e10).round(),
    )


def choose_samples(
    features: Tensor, labels: Tensor, keep_samples: int | None, seed: int, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Check the samples of :func:`parc` and draw those that it compares.

    Returns:
        Centred features, shape ``(n, d)``, and one-hot or multi-hot labels, shape ``(n, l)``, both float64.
    """
    features, labels = flatten_positions(features, labels, ignore_index)
    refuse_ignored_columns(labels, ignore_index)
    features = check_features(features)
    labels = check_annotations(labels, len(features))
    if labels.ndim == 1:
        labels = torch.nn.functional.one_hot(labels.unique(return_inverse=True)[1])
    annotations = labels.double()
    if features.shape[1] < 2:
        raise ValueError(f"Expected argument `features` to have at least 2 columns, but got {features.shape[1]}.")
    if keep_samples is not None and len(features) > keep_samples:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(features), generator=generator)[:keep_samples].to(features.device)
        features, annotations = features[chosen], annotations[chosen]
    if bool((annotations == annotations[0]).all()):
        raise ValueError("Expected argument `labels` to differ between samples, but got the same labels for all.")
    return centred(features)[0], annotations


def check_parc_options(pca_dim: int | None, keep_samples: int | None, variant: str) -> None:
    """Check the options of :func:`parc`.

    Raises:
        ValueError: If one is malformed.
    """
    check_one_of(variant, ("paper", "official"), "variant")
    if pca_dim is not None:
        check_positive_int(pca_dim, "pca_dim", minimum=2)
    if keep_samples is not None:
        check_positive_int(keep_samples, "keep_samples", minimum=3)


def check_annotations(labels: Tensor, n: int) -> Tensor:
    """Check class ids of shape ``(n,)`` or attributes 0 and 1 of shape ``(n, l)``, ``l`` at least 2.

    Returns:
        The same as int64.

    Raises:
        ValueError: If dtype, shape, length or a value is wrong.
    """
    if isinstance(labels, Tensor) and labels.ndim == 2:
        return check_attributes(labels, n, minimum=2)
    return check_labels(labels, n)


def standardise(rows: Tensor) -> Tensor:
    """Divide centred features by their standard deviations; constant ones stay 0."""
    deviation = rows.square().mean(0).sqrt()
    return rows / torch.where(deviation > 0, deviation, torch.ones_like(deviation))


def correlation_distances(rows: Tensor) -> Tensor:
    """One minus the correlation of each pair of rows, shape ``(n (n - 1) / 2,)``."""
    rows = rows - rows.mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    rows = rows / torch.where(length > 0, length, torch.ones_like(length))
    return pairs(1 - rows @ rows.T)


def pairs(matrix: Tensor) -> Tensor:
    """Entries of a symmetric matrix above its diagonal."""
    upper = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    return matrix[upper[0], upper[1]]


def rank_agreement(first: Tensor, second: Tensor) -> Tensor:
    """100 times the rank correlation of two vectors, 0-d, 0 where one of them does not vary."""
    first, second = _ranks(first), _ranks(second)
    spread = first.norm() * second.norm()
    return 100 * (first @ second / spread).clamp(-1, 1) if spread > 0 else torch.zeros_like(spread)


def _ranks(values: Tensor) -> Tensor:
    """Centred ranks, ties at their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts - 1) / 2)[inverse]
    return ranks - ranks.mean()
