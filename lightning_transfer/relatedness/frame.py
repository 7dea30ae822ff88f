"""The space in which reference and target meet: standardised, and of a manageable dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_FLOOR = 0.05  # of the root mean square deviation: units that hardly fire are not blown up
_ROWS = 4096
_GRID = 2.0**24  # what is smaller than its inverse is noise: without it the last bit of an input could decide an answer


@dataclass(frozen=True)
class Frame:
    """Fixed maps of both sides into the working space: affine, then rounded to a fine grid, then projected.

    They are part of the classifier that is certified.

    Attributes:
        reference_mean: Shape ``(d,)``.
        reference_scale: Shape ``(d,)``.
        target_mean: Shape ``(d,)``.
        target_scale: Shape ``(d,)``.
        basis: Orthonormal rows that both sides are projected on, shape ``(r, d)``; None for no reduction.
        push_matrix: Applied to the reference last, shape ``(r, r)``: ``A`` of the published method, or the turn of a
            random copy; None otherwise.
        push_offset: Added after it, shape ``(r,)``.
    """

    reference_mean: Tensor
    reference_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    basis: Tensor | None
    push_matrix: Tensor | None = None
    push_offset: Tensor | None = None

    def reference(self, features: Tensor) -> Tensor:
        """Bring reference features of shape ``(n, d)`` into the working space, float64."""
        features = self._apply(features, self.reference_mean, self.reference_scale)
        if self.push_matrix is None or self.push_offset is None:
            return features
        return features @ self.push_matrix.T + self.push_offset

    def target(self, features: Tensor) -> Tensor:
        """Bring target features of shape ``(n, d)`` into the working space, float64."""
        return self._apply(features, self.target_mean, self.target_scale)

    def _apply(self, features: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        parts = (((part.double() - mean) / scale * _GRID).round() / _GRID for part in features.split(_ROWS))
        return torch.cat([part if self.basis is None else part @ self.basis.T for part in parts])

    @staticmethod
    def fit(reference: Tensor, target: Tensor, standardize: bool, common_scale: bool, dimension: int | None) -> Frame:
        """Fit the frame to the data that the transforms are learned on.

        Args:
            reference: Shape ``(n_R, d)``.
            target: Shape ``(n_T, d)``.
            standardize: Give every feature of each task mean 0 and deviation 1 by the task's own statistics, as
                published; deviations below 5 % of their root mean square are raised to it.
            common_scale: Without standardisation, divide both sides by the root mean square of the reference features.
            dimension: Width of the working space; None for all ``d``. The basis holds the leading principal components
                of both tasks together, at equal weight.

        Returns:
            The frame.
        """
        if standardize:
            reference_mean, reference_scale = _moments(reference)
            target_mean, target_scale = _moments(target)
        else:
            square = (
                sum(float(part.double().square().sum()) for part in reference.split(_ROWS)) if common_scale else 0.0
            )
            unit = (square / reference.numel()) ** 0.5 or 1.0
            reference_mean = target_mean = reference.new_zeros(reference.shape[1], dtype=torch.float64)
            reference_scale = target_scale = torch.full_like(reference_mean, unit)
        frame = Frame(reference_mean, reference_scale, target_mean, target_scale, None)
        if dimension is None or dimension >= reference.shape[1]:
            return frame
        moment = _second_moment(frame, reference, "reference") + _second_moment(frame, target, "target")
        return replace(frame, basis=_leading_directions(moment, dimension))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and guarded standard deviation of every feature, float64."""
    constant = features.amax(0) == features.amin(0)  # rounding of such a mean would pass for a deviation
    mean = torch.where(constant, features[0].double(), features.mean(0, dtype=torch.float64))
    variance = sum((part.double() - mean).square().sum(0) for part in features.split(_ROWS))
    assert isinstance(variance, Tensor)
    deviation = (variance / len(features)).sqrt()
    floor = _FLOOR * deviation.square().mean().sqrt()
    return mean, deviation.clamp_min(floor) if bool(floor > 0) else torch.ones_like(deviation)


def _leading_directions(moment: Tensor, count: int) -> Tensor:
    """Leading eigenvectors of a moment matrix by subspace iteration, as orthonormal rows; any basis would be valid."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(moment), min(len(moment), count + 16), dtype=moment.dtype, generator=generator)
    directions = torch.linalg.qr(start.to(moment.device))[0]
    for _ in range(6):
        directions = torch.linalg.qr(moment @ directions)[0]
    inner = torch.linalg.eigh(directions.T @ moment @ directions).eigenvectors[:, -count:]
    basis: Tensor = (directions @ inner).T.contiguous()
    return basis


def _second_moment(frame: Frame, features: Tensor, side: str) -> Tensor:
    """Second moment of one side in the frame; the products run in float32, which is enough to choose a basis."""
    moment = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float32)
    for part in features.split(_ROWS):
        rows = getattr(frame, side)(part).float()
        moment.addmm_(rows.T, rows)
    return moment.double() / len(features)
