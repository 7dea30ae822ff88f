"""Softmax heads whose loss has a known Lipschitz constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.sample import Sample


def certified_constant(weight: Tensor) -> float:
    r"""Lipschitz constant of :math:`-\log (B\,\mathrm{softmax}(W z + c))_y` in ``z``, for every ``B``, ``c`` and ``y``.

    The gradient is :math:`W^T(p - q)` with ``p`` and ``q`` in the simplex, so its norm is at most the largest distance
    between two rows of ``W``. Unlike a largest gradient over sampled points this can not be too small (Assumption 1 of
    Mehra, Zhang and Hamm, NeurIPS 2024).

    Args:
        weight: Shape ``(K, d)``, any floating dtype.

    Returns:
        The constant, in nats per unit of distance.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.head import certified_constant
        >>> certified_constant(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        5.0
    """
    return float(_widest_pair(weight.double())) if len(weight) > 1 else 0.0


def _widest_pair(weight: Tensor) -> Tensor:
    """Largest distance between two rows; differentiable in them."""
    with torch.no_grad():
        distances = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")
        first, second = divmod(int(distances.argmax()), len(weight))
    distance: Tensor = torch.linalg.vector_norm(weight[first] - weight[second])
    return distance


@dataclass(frozen=True)
class SoftmaxHead:
    """A linear classifier of reference features: ``softmax(weight z + bias)``.

    Attributes:
        weight: Shape ``(K, d)``, float64.
        bias: Shape ``(K,)``, float64.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness import SoftmaxHead
        >>> head = SoftmaxHead(torch.eye(2).double(), torch.zeros(2).double())
        >>> round(head.lipschitz_constant, 4)
        1.4142
    """

    weight: Tensor
    bias: Tensor

    @cached_property
    def lipschitz_constant(self) -> float:
        """Certified constant of the loss, see :func:`certified_constant`."""
        return certified_constant(self.weight)

    @cached_property
    def directions(self) -> Tensor:
        """Orthonormal rows that span the differences of the rows of the weight, shape ``(r, d)``.

        The gradient of the loss lies in their span (``p - q`` sums to zero): nothing orthogonal to them changes a loss.
        Directions whose singular value is within rounding of zero are left out.
        """
        centred = self.weight - self.weight.mean(0)
        _, values, basis = torch.linalg.svd(centred, full_matrices=False)
        smallest = max(centred.shape) * torch.finfo(values.dtype).eps * values[:1].clamp_min(1e-300)
        used: Tensor = basis[values > smallest]
        return used

    def logits(self, features: Tensor) -> Tensor:
        """Logits of shape ``(n, K)``."""
        return features @ self.weight.T + self.bias

    def limited(self, tau: float) -> SoftmaxHead:
        """Scale the weight down until the constant is at most ``tau``."""
        constant = self.lipschitz_constant
        return self if constant <= tau else SoftmaxHead(self.weight * (tau / constant), self.bias)

    @staticmethod
    def constant(probabilities: Tensor, width: int) -> SoftmaxHead:
        """The head with constant 0 that predicts the same probabilities everywhere."""
        floor = torch.finfo(torch.float64).tiny
        return SoftmaxHead(probabilities.new_zeros(len(probabilities), width), probabilities.clamp_min(floor).log())

    @staticmethod
    def parts_of(head: object) -> tuple[Tensor, Tensor]:
        """Weight and bias of a head of the user's own.

        Raises:
            ValueError: If it is of another kind than :meth:`of` takes.
        """
        if isinstance(head, (nn.Linear, SoftmaxHead)):
            return head.weight, head.weight.new_zeros(len(head.weight)) if head.bias is None else head.bias
        if isinstance(head, tuple) and len(head) == 2 and all(isinstance(part, Tensor) for part in head):
            return head
        raise ValueError(
            "Expected argument `head` to be a linear layer, a `SoftmaxHead`, or a tuple of weight and bias, "
            f"but got {type(head).__name__}."
        )

    @staticmethod
    def of(head: nn.Linear | SoftmaxHead | tuple[Tensor, Tensor], width: int, num_classes: int) -> SoftmaxHead:
        """Take over a head of the user's own.

        Args:
            head: A linear layer, or weight ``(K, d)`` and bias ``(K,)``.
            width: Width of the features.
            num_classes: Number of reference classes.

        Returns:
            The head in float64, detached.

        Raises:
            ValueError: If it is of another kind, of another shape, or not finite.
        """
        weight, bias = SoftmaxHead.parts_of(head)
        if tuple(weight.shape) != (num_classes, width) or tuple(bias.shape) != (num_classes,):
            raise ValueError(
                f"Expected argument `head` to map {width} features to {num_classes} reference classes, but got weight "
                f"of shape {tuple(weight.shape)} and bias of shape {tuple(bias.shape)}."
            )
        if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise ValueError("Expected argument `head` to be finite, but got NaN or infinite weights.")
        return SoftmaxHead(weight.detach().double(), bias.detach().double())


def train_head(
    sample: Sample,
    prior: Tensor,
    tau: float = math.inf,
    start: SoftmaxHead | None = None,
    max_iter: int = 100,
) -> tuple[SoftmaxHead, bool]:
    r"""Minimise the re-weighted cross-entropy under an exact Lipschitz constraint.

    The weight is parametrised as :math:`W \min(1, \tau / \max_{i<j} \|w_i - w_j\|)` and fitted by full-batch L-BFGS, so
    the constraint holds at every step and needs no penalty.

    Args:
        sample: Features and classes.
        prior: Weight of each class in the loss, shape ``(K,)``, sums to one.
        tau: Largest allowed constant; 0 gives the constant predictor, infinity no constraint.
        start: Head to start from.
        max_iter: L-BFGS iterations.

    Returns:
        The head, and whether the solver met its tolerance before ``max_iter``.
    """
    features, labels = sample.features, sample.labels
    if tau == 0:
        return SoftmaxHead.constant(prior, features.shape[1]), True
    if start is None:  # class means separate the classes; at zero the constraint has no gradient
        means = sample.class_means
        start = SoftmaxHead(means - means.mean(0), prior.clamp_min(1e-12).log())
        start = start.limited(min(tau, 1 / max(float(features.square().sum(1).mean().sqrt()), 1e-12)))
    weight, bias = start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()
    weights = (prior / sample.counts.clamp_min(1))[labels]

    def effective() -> Tensor:
        if len(weight) < 2 or tau == math.inf:
            return weight
        return weight * (tau / _widest_pair(weight).clamp_min(tau))

    solver = lbfgs([weight, bias], max_iter)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = cross_entropy(features @ effective().T + bias, labels, reduction="none") @ weights
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    head = SoftmaxHead(effective().detach(), bias.detach())
    if not bool(head.weight.isfinite().all() and head.bias.isfinite().all()):  # logits overflowed on the way
        return start.limited(tau), False
    return head.limited(tau), iterations(solver) < max_iter


def lbfgs(parameters: list[Tensor], max_iter: int) -> torch.optim.LBFGS:
    """L-BFGS as all solvers of this package use it."""
    return torch.optim.LBFGS(
        parameters,
        max_iter=max_iter,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )


def iterations(solver: torch.optim.LBFGS) -> int:
    """Iterations that a solver has made."""
    return int(next(iter(solver.state.values()))["n_iter"])
