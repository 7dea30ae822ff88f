"""Targets without labels: clusters, and predictions of the transformed classifier."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_transfer.relatedness.head import train_head
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.solvers import typical_tau


def cluster(features: Tensor, num_clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Group samples by k-means.

    Args:
        features: Shape ``(n, d)``.
        num_clusters: Number of clusters.
        seed: Seed of the first centres.

    Returns:
        Cluster of each sample, shape ``(n,)``, without gaps, and centres of shape ``(K, d)``.

    Raises:
        ValueError: If there are fewer distinct samples than clusters.
    """
    from sklearn.cluster import KMeans

    distinct = len(features.unique(dim=0)) if len(features) >= num_clusters else 0
    if distinct < num_clusters:
        raise ValueError(
            f"Expected argument `target_features` to hold a sample of each of {num_clusters} target classes, whose "
            f"labels are to be found, but got {len(features)} samples"
            f"{f', {distinct} of them distinct' if distinct else ''}."
        )
    fitted = KMeans(num_clusters, n_init=4, random_state=seed).fit(features.cpu().numpy())
    labels = without_gaps(torch.from_numpy(fitted.labels_).long().to(features.device))
    count = int(labels.max()) + 1
    return labels, Sample(features, labels, count).class_means


def nearest(features: Tensor, centres: Tensor) -> Tensor:
    """Nearest centre of each sample, shape ``(n,)``."""
    return torch.cdist(features, centres).argmin(1)


def without_gaps(labels: Tensor) -> Tensor:
    """Number the classes that occur in a row."""
    numbered: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbered


def first_guess(reference: Sample, features: Tensor, num_classes: int, seed: int) -> Tensor:
    """Labels to start from: predictions of a reference head where every class is predicted, else clusters.

    Args:
        reference: Reference sample.
        features: Target features, shape ``(n, d)``.
        num_classes: Number of target classes.
        seed: Seed of the clusters.

    Returns:
        Shape ``(n,)``, without gaps.
    """
    if num_classes == reference.num_classes:
        sample = reference.thinned(400)
        head, _ = train_head(sample, sample.prior, typical_tau(sample))
        labels = head.logits(features).argmax(1)
        if len(torch.unique(labels)) == num_classes:
            return labels
    return cluster(features, num_classes, seed)[0]
