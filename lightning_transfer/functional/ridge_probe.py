"""Ridge probe: the leave-one-out accuracy or R² of a ridge regression on the features, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_transfer.functional._rows import centred_rows
from lightning_transfer.functional.counts import (
    check_attributes,
    is_multilabel,
    refuse_ignored_columns,
    require_two_classes,
)
from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_labels,
    check_targets,
    flatten_positions,
)
from lightning_transfer.utilities.groups import groups_of_positions, number_groups, rows_of_groups
from lightning_transfer.utilities.linalg import eigh, gram, rank_cutoff, thin_svd

_STRENGTHS = torch.logspace(-7, 2, 28, dtype=torch.float64).tolist()


class RidgeProbeResult(NamedTuple):
    """Score of the probe, and the strength of regularisation that it was reached with (relative to ``tr(S) / d``)."""

    score: Tensor
    strength: float


def ridge_probe(
    features: Tensor,
    labels: Tensor,
    *,
    regularization: float | None = None,
    ignore_index: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Leave-one-out accuracy (class ids, attributes) or R² (real targets) of a linear ridge probe; higher is better.

    One-hot classes, attributes or targets are regressed on the features with an unpenalised intercept. The prediction
    for a sample by the probe that was fitted without it follows from its leverage ``h`` as
    ``y - (y - prediction) / (1 - h)`` (PRESS; Allen, 1974), so one eigendecomposition gives all ``n`` probes at every
    strength of regularisation. The strength is the one with the smallest leave-one-out squared error on a grid of 28
    values from 1e-7 to 1e2 times the mean variance of the features. Strength 0 is the limit of a vanishing one: with no
    more samples than features, the probes that interpolate with the smallest weights.

    Args:
        features: Shape ``(n, d)``, any floating dtype, at least 3 samples.
        labels: Class ids, shape ``(n,)``, any integer dtype, ids may have gaps; zeros and ones of a multi-label task,
            shape ``(n, l)``; or floating targets, shape ``(n,)`` or ``(n, m)``.
        regularization: A fixed strength relative to the mean variance of the features, or None to choose it.
        ignore_index: Samples with this class id are left out.
        groups: Ids of samples that belong together, shape ``(n,)``, any integer dtype: a sample is predicted by the
            probe that was fitted without its group, from the block of the leverages of the group (strengths below
            1e-7: by fitting anew).

    Returns:
        0-d float64: the share of samples whose class is predicted (ties go to the smallest id); the share of attributes
        that are, by a prediction above one half; or R², the mean over targets of one minus the squared error over the
        error of the leave-one-out mean, at most 1.

    Raises:
        ValueError: If an input is malformed, not finite, holds fewer than two classes, every target is constant, or
            there is one group only.

    Example:
        >>> import torch
        >>> from lightning_transfer.functional import ridge_probe
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [5.0], [6.0], [7.0]])
        >>> ridge_probe(features, torch.tensor([0, 0, 0, 1, 1, 1]))
        tensor(1., dtype=torch.float64)
        >>> ridge_probe(features, 2 * features.flatten() + 1)
        tensor(1.0000, dtype=torch.float64)
    """
    return fit_ridge_probe(
        features, labels, regularization=regularization, ignore_index=ignore_index, groups=groups
    ).score


def fit_ridge_probe(
    features: Tensor,
    labels: Tensor,
    *,
    regularization: float | None = None,
    ignore_index: int | None = None,
    groups: Tensor | None = None,
) -> RidgeProbeResult:
    """Fit the probe of :func:`ridge_probe` and also say which strength was chosen."""
    if regularization is not None:
        check_in_interval(regularization, 0, float("inf"), "regularization")
    ids = groups_of_positions(groups, features, labels, ignore_index)
    members = None if ids is None else rows_of_groups(number_groups(ids)[0])
    alike = _stack_alike(members or ())
    features, labels = flatten_positions(features, labels, ignore_index)
    features = check_features(features)
    n = len(features)
    regression = isinstance(labels, Tensor) and labels.is_floating_point()
    multilabel = not regression and is_multilabel(features, labels)
    if regression:
        truth = check_targets(labels, n).double()
    elif multilabel:
        refuse_ignored_columns(labels, ignore_index)
        truth = check_attributes(labels, n).double()
        require_two_classes(1 + int((truth.amax(0) - truth.amin(0)).max()))
    else:
        classes, labels = check_labels(labels, n).unique(return_inverse=True)
        require_two_classes(len(classes))
        truth = torch.nn.functional.one_hot(labels).double()
    if n < 3:
        raise ValueError(f"Expected argument `features` to hold at least 3 samples, but got {n}.")
    rows, num_features = centred_rows(features, rotate=True), features.shape[1]
    centred = truth - truth.mean(0)
    weak = regularization is not None and regularization < _STRENGTHS[0]
    if weak:
        left, lengths, _ = thin_svd(rows)
        values, scores = lengths.square(), left * lengths
    else:
        values, vectors = eigh(gram(rows))
        scores = rows @ vectors
    kept = values > rank_cutoff(values.max().clamp(min=0), n, num_features)
    values, scores = values[kept], scores[:, kept]
    unit = float(values.sum()) / num_features or 1.0
    cross, leverages = scores.T @ centred, scores.square()
    # samples that are met exactly without a penalty leave 0 / 0 with a weak one, of which the strength cancels
    met = (leverages @ (1 / values) >= 1 - 1 / n - 1e-12) | (len(values) >= n - 1)
    met = met & weak
    best: tuple[float, Tensor, float] | None = None
    for strength in _STRENGTHS if regularization is None else [regularization]:
        weights = 1 / (values + strength * unit)
        residuals = centred - scores @ (weights[:, None] * cross)
        if members is not None and weak:
            residuals = _fitted_anew(rows, centred, members, strength * unit, num_features)
        elif members is not None:
            residuals = _without_groups(scores * weights.sqrt(), residuals, alike)
        else:
            slack = 1 - 1 / n - leverages @ weights
            if bool(met.any()):
                weights = weights * (unit / values)
                slack = torch.where(met, leverages @ weights, slack)
                residuals = torch.where(met[:, None], scores @ (weights[:, None] * cross), residuals)
            residuals = residuals / slack[:, None]
        press = float(residuals.square().sum())
        if best is None or press < best[0]:
            best = (press, residuals, strength)
    assert best is not None
    _, residuals, strength = best
    if multilabel:
        return RidgeProbeResult((((truth - residuals) > 0.5) == (truth > 0.5)).double().mean(), strength)
    if not regression:
        predicted = (truth - residuals).argmax(1)
        return RidgeProbeResult((predicted == labels).double().mean(), strength)
    spread = _spread(centred, members)
    varies = spread > 0
    if not bool(varies.any()):
        raise ValueError("Expected argument `targets` to vary, but got constant targets.")
    return RidgeProbeResult((1 - residuals.square().sum(0)[varies] / spread[varies]).mean(), strength)


def _spread(centred: Tensor, members: list[Tensor] | None) -> Tensor:
    """Squared error of the mean of the other samples, or of those of the other groups, shape ``(m,)``."""
    n = len(centred)
    if members is None:
        return (centred * n / (n - 1)).square().sum(0)
    errors = [centred[some] + centred[some].sum(0) / (n - len(some)) for some in members]
    return torch.cat(errors).square().sum(0)


def _stack_alike(members: Sequence[Tensor]) -> list[Tensor]:
    """Rows of the groups of each size, shape ``(groups, size)``."""
    by_size: dict[int, list[Tensor]] = {}
    for some in members:
        by_size.setdefault(len(some), []).append(some)
    return [torch.stack(some) for some in by_size.values()]


def _without_groups(factor: Tensor, residuals: Tensor, members: list[Tensor]) -> Tensor:
    """Residuals of each sample under the probe that was fitted without its group.

    They are ``(I - H)^-1`` times the residuals of the group, for the block ``H`` of leverages of its samples; a block
    that is larger than the rank is inverted by way of a matrix of that rank. Groups of one size go together.

    Args:
        factor: Rows whose products are the leverages less ``1 / n``, shape ``(n, r)``.
        residuals: Of the probe that was fitted on all samples, shape ``(n, m)``.
        members: Rows of the groups of each size, shape ``(groups, size)``.
    """
    n = len(factor)
    factor = torch.cat([factor, factor.new_full((n, 1), n**-0.5)], dim=1)
    left = torch.empty_like(residuals)
    for some in members:
        blocks, inside = factor[some], residuals[some]
        size = min(blocks.shape[1:])
        if some.shape[1] <= blocks.shape[2]:
            left[some] = torch.linalg.solve(torch.eye(size).to(blocks) - blocks @ blocks.mT, inside)
        else:
            matrix = torch.eye(size).to(blocks) - blocks.mT @ blocks
            left[some] = inside + blocks @ torch.linalg.solve(matrix, blocks.mT @ inside)
    return left


def _fitted_anew(rows: Tensor, centred: Tensor, members: list[Tensor], penalty: float, num_features: int) -> Tensor:
    """The same by one fit for each group: with next to no penalty nothing is left of what a group's block would tell.

    Args:
        rows: Centred features, shape ``(n, r)``.
        centred: Centred targets, shape ``(n, m)``.
        members: Rows of each group.
        penalty: Of the squared weights; 0 for the smallest weights that fit best.
        num_features: Width of the features.
    """
    left = torch.empty_like(centred)
    for some in members:
        others = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill_(0, some, False)
        mean, level = rows[others].mean(0), centred[others].mean(0)
        basis, lengths, directions = thin_svd(rows[others] - mean)
        values = lengths.square()
        kept = values > rank_cutoff(values.max(), int(others.sum()), num_features)
        gains = torch.where(kept, lengths / (values + penalty), 0.0)
        weights = directions @ (gains[:, None] * (basis.T @ (centred[others] - level)))
        left[some] = centred[some] - level - (rows[some] - mean) @ weights
    return left
