"""Features as centred float64 rows with compact class ids: where scores that need samples, not moments, begin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional.counts import require_two_classes
from lightning_transfer.utilities.checks import check_features, check_labels
from lightning_transfer.utilities.linalg import centred, eigh, gram, input_rounding, thin_svd

_SQUARED = 1e-6  # eigenvalues of a square down to this share of the largest keep ten digits


class LabelledRows(NamedTuple):
    """Samples ready for a formula.

    Attributes:
        rows: Centred features, shape ``(n, r)``, float64; ``r`` is ``min(n, d)`` where they were rotated into their
            span.
        classes: Ids ``0 .. c - 1`` of the classes present, shape ``(n,)``.
        counts: Samples of each class, shape ``(c,)``, float64.
        num_features: Width ``d`` of the features as handed in.
        noise: Largest singular value that the rounding of the features as handed in can have made.
    """

    rows: Tensor
    classes: Tensor
    counts: Tensor
    num_features: int
    noise: float = 0.0

    @property
    def class_means(self) -> Tensor:
        """Means of the classes, shape ``(c, r)``."""
        sums = self.rows.new_zeros(len(self.counts), self.rows.shape[1]).index_add_(0, self.classes, self.rows)
        return sums / self.counts[:, None]

    @property
    def total_variance(self) -> Tensor:
        """Trace of the covariance, normalised by n, 0-d."""
        return self.rows.square().sum() / len(self.rows)

    def by_class(self) -> list[Tensor]:
        """Rows of each class, in the order of the ids."""
        order = self.classes.argsort(stable=True)
        return list(self.rows[order].split(self.counts.long().tolist()))


def labelled_rows(features: Tensor, labels: Tensor, *, rotate: bool) -> LabelledRows:
    """Check samples and centre them.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        labels: Shape ``(n,)``, any integer dtype; ids may have gaps.
        rotate: With fewer samples than features, rotate them into the space that they span: exact, and far cheaper, for
            formulas that do not change under a rotation of the features.

    Raises:
        ValueError: If an input is malformed or holds fewer than two classes.
    """
    features = check_features(features)
    labels = check_labels(labels, len(features))
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    require_two_classes(len(counts))
    rows, noise = centred_rows(features, rotate=rotate), input_rounding(features)
    return LabelledRows(rows, classes, counts.double(), features.shape[1], noise)


def centred_rows(features: Tensor, *, rotate: bool) -> Tensor:
    """Centre features in float64.

    Args:
        features: Shape ``(n, d)``, any floating dtype.
        rotate: Rotate them into the space that they span, where that is smaller.

    Returns:
        Shape ``(n, r)``.
    """
    rows = centred(features)[0]
    return torch.linalg.qr(rows.T, mode="r").R.T if rotate and len(rows) < rows.shape[1] else rows


def principal_components(rows: Tensor, num_components: int, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Project centred rows on their leading principal axes, each with its largest entry positive.

    Args:
        rows: Shape ``(n, r)``, centred, float64.
        num_components: Components to keep; never more than have variance, at least one.
        noise: Singular values up to this size are rounding of the samples.

    Returns:
        The projected rows, shape ``(n, k)``, and the eigenvalues of their scatter, shape ``(k,)``, descending.
    """
    values, vectors = eigh(gram(rows))
    k = min(num_components, len(values))
    if values[-k] <= max(_SQUARED * float(values[-1]), noise**2):  # the square of the rows has lost too many digits
        _, lengths, vectors = (part.flip(-1) for part in thin_svd(rows))
        values = lengths.square()
        cutoff = (max(rows.shape) * torch.finfo(rows.dtype).eps * lengths[-1]).clamp(min=noise)
        k = max(1, min(k, int((lengths > cutoff).sum())))
    axes = vectors[:, len(values) - k :].flip(1)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return rows @ (axes * signs), values[len(values) - k :].flip(0)
