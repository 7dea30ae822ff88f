"""The three transforms: class prior, label map and feature map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.relatedness.config import FeatureMapKind

_RELATIVE = 1e-12
_SWEEPS = 100
_PULL = 1e-9  # where the goals say nothing of a direction, the features of one backbone stay as they are
_HUGE = 1e200  # costs beyond it could not be added up


@dataclass(frozen=True)
class FeatureMap:
    """Affine map of target features into the reference space, ``z -> G z + g``.

    Attributes:
        matrix: ``G``, shape ``(d, d)``.
        offset: ``g``, shape ``(d,)``.
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Map features of shape ``(n, d)``."""
        return features @ self.matrix.T + self.offset

    @staticmethod
    def identity(like: Tensor) -> FeatureMap:
        """The map that changes nothing, for features like these."""
        width = like.shape[1]
        return FeatureMap(torch.eye(width, dtype=like.dtype, device=like.device), like.new_zeros(width))


def fit_feature_map(
    kind: FeatureMapKind,
    features: Tensor,
    goals: Tensor,
    weights: Tensor,
    ridge: float,
    rank: int,
) -> FeatureMap:
    """Weighted least squares from target features to goals in the reference space, within a family of maps.

    Args:
        kind: Family.
        features: Target features, shape ``(n, d)``.
        goals: Where each of them should go, shape ``(n, d)``.
        weights: Weight of each, shape ``(n,)``.
        ridge: Strength of the pull of the matrix to zero, in units of the total weight (affine and low rank).
        rank: Largest rank of the matrix (low rank).

    Returns:
        The minimiser; among orthogonal maps, which goals of few classes leave undecided, the one nearest the identity.
    """
    if kind == "identity":
        return FeatureMap.identity(features)
    total = weights.sum()
    center, goal = weights @ features / total, weights @ goals / total
    x, y = features - center, goals - goal
    weighted = x * (weights / total)[:, None]
    cross = weighted.T @ y
    if kind == "orthogonal":
        cross.diagonal().add_(_PULL * float(cross.norm()) or 1.0)
        left, _, right = torch.linalg.svd(cross, full_matrices=False)
        matrix = (left @ right).T
    else:
        gram = weighted.T @ x
        gram.diagonal().add_(max(ridge, 1e-10))
        matrix = torch.linalg.solve(gram, cross).T
        if kind == "low_rank" and rank < len(matrix):
            fitted = matrix @ (weighted.T @ x) @ matrix.T
            main = torch.linalg.eigh((fitted + fitted.T) / 2).eigenvectors[:, -rank:]
            matrix = main @ (main.T @ matrix)
    return FeatureMap(matrix, goal - matrix @ center)


def fixed_label_map(kind: Literal["random", "matched"], costs: Tensor, seed: int) -> Tensor:
    """A deterministic label map: every reference class is sent to one target class, every target class is reached.

    Args:
        kind: ``"random"`` as in the paper's FixedAll and LearnedA, or ``"matched"`` by the costs.
        costs: Cost of letting reference class ``j`` stand for target class ``k``, shape ``(K_T, K_R)``.
        seed: Seed of the random map.

    Returns:
        ``B``, shape ``(K_T, K_R)``, zeros and ones with columns that sum to one.

    Raises:
        ValueError: If there are fewer reference than target classes.
    """
    targets, references = costs.shape
    if references < targets:
        raise ValueError(
            "Expected at least as many reference classes as target classes for a deterministic label map, but got "
            f"{references} and {targets}; learn the label map (`transforms='learned_all'`) or hand one in."
        )
    if kind == "random":
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(references, generator=generator)
        chosen = torch.empty(references, dtype=torch.long)
        chosen[order] = torch.arange(references) % targets
    else:
        chosen = costs.argmin(0).cpu()
        rows, columns = _assignment(costs.cpu().numpy())
        chosen[torch.from_numpy(columns)] = torch.from_numpy(rows)
    label_map = torch.zeros_like(costs)
    label_map[chosen.to(costs.device), torch.arange(references, device=costs.device)] = 1
    return label_map


def conditional_of(label_map: Tensor, prior: Tensor) -> Tensor:
    """Rows ``P(reference class | target class)`` under a label map and a class prior.

    Args:
        label_map: ``B``, shape ``(K_T, K_R)``.
        prior: ``D``, shape ``(K_R,)``.

    Returns:
        Shape ``(K_T, K_R)``, rows sum to one.

    Raises:
        ValueError: If a target class is not reached.
    """
    joint = label_map * prior
    rows = joint.sum(1, keepdim=True)
    if bool((rows <= 0).any()):
        missed = (rows[:, 0] <= 0).nonzero()[:, 0].tolist()
        raise ValueError(f"Expected the label map and class prior to reach every target class, but missed {missed}.")
    return joint / rows


def label_map_of(joint: Tensor, costs: Tensor) -> Tensor:
    """The best label map for a joint mass: ``M`` divided by its column sums.

    A reference class without mass may be sent anywhere; it goes where it costs least.

    Args:
        joint: ``M``, shape ``(K_T, K_R)``.
        costs: Shape ``(K_T, K_R)``.

    Returns:
        ``B``, shape ``(K_T, K_R)``, columns sum to one.
    """
    mass = joint.sum(0)
    label_map = joint / mass.clamp_min(torch.finfo(joint.dtype).tiny)
    empty = (mass <= 0).nonzero()[:, 0]
    label_map[:, empty] = 0
    label_map[costs[:, empty].argmin(0), empty] = 1
    return label_map


def assign_classes(costs: Tensor, prior: Tensor) -> tuple[Tensor, bool]:
    r"""Choose the label map and the class prior together.

    Minimises :math:`\sum_{kj} M_{kj} c_{kj} + H(Y''|Y')` over all joint masses with rows that sum to the target prior.
    It is linear plus concave, so a minimum lies where every target class uses a single reference class; sharing one
    costs entropy. Starts from the best assignment (with repeated reference classes where there are too few) and moves
    or swaps single classes as long as that helps by more than rounding, over a limited number of sweeps.

    Args:
        costs: Shape ``(K_T, K_R)``, in nats.
        prior: Target prior, shape ``(K_T,)``.

    Returns:
        The conditional, one-hot rows, shape ``(K_T, K_R)``, and whether no move helped any more at the end.
    """
    cost, weight = np.minimum(costs.cpu().numpy(), _HUGE), prior.cpu().numpy()
    targets, references = cost.shape
    slack = _RELATIVE * (1 + float(np.abs(cost * weight[:, None]).max()))  # below it a gain may be rounding
    repeats = -(-targets // references)
    _, columns = _assignment(np.tile(cost * weight[:, None], (1, repeats)))
    choice = columns % references
    mass, settled = np.bincount(choice, weight, minlength=references), False
    for _ in range(_SWEEPS):
        improved = False
        for k in range(targets):
            old = choice[k]
            rest = mass.copy()
            rest[old] -= weight[k]
            change = weight[k] * cost[k] + _plogp(rest + weight[k]) - _plogp(rest)
            new = int(change.argmin())
            if change[new] < change[old] - slack:
                choice[k], improved = new, True
                mass = np.bincount(choice, weight, minlength=references)
        if not _swap(choice, cost, weight, slack) and not improved:
            settled = True
            break
        mass = np.bincount(choice, weight, minlength=references)
    conditional = torch.zeros_like(costs)
    conditional[torch.arange(targets), torch.from_numpy(choice)] = 1
    return conditional, settled


def match_marginals(costs: Tensor, prior: Tensor, reference_prior: Tensor, max_rounds: int = 20) -> tuple[Tensor, bool]:
    """Choose the label map when the class prior may not change: a coupling of both priors.

    The entropy is concave: it is replaced by its tangent, the linear program solved exactly, and the step taken as long
    as the sum of both falls.

    Args:
        costs: Shape ``(K_T, K_R)``, in nats.
        prior: Target prior, shape ``(K_T,)``.
        reference_prior: Class prior, shape ``(K_R,)``.
        max_rounds: Linearisations at most.

    Returns:
        The conditional, shape ``(K_T, K_R)``, rows sum to one, and whether every step was solved and none helped any
        more at the end.
    """
    from lightning_transfer.relatedness.transport import exact_plan

    cost, rows, columns = costs.cpu().numpy(), prior.cpu().numpy(), reference_prior.cpu().numpy()

    def value(joint: np.ndarray) -> float:
        return float((joint * cost).sum() - _plogp(joint).sum() + _plogp(joint.sum(0)).sum())

    joint, solved = exact_plan(cost, rows, columns)
    settled = False
    for _ in range(max_rounds):
        slope = cost - np.log(np.maximum(joint / joint.sum(0), 1e-12))
        candidate, optimal = exact_plan(slope, rows, columns)
        solved = solved and optimal
        if not value(candidate) < value(joint) - _RELATIVE * (1 + abs(value(joint))):
            settled = True
            break
        joint = candidate
    return torch.from_numpy(joint / joint.sum(1, keepdims=True)).to(costs), settled and solved


def _assignment(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    return rows, columns


def _plogp(p: np.ndarray) -> np.ndarray:
    """``p log p`` with its limit 0 at 0."""
    return np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0)


def _swap(choice: np.ndarray, cost: np.ndarray, weight: np.ndarray, slack: float) -> bool:
    """Exchange the reference classes of two target classes where that lowers the objective; the first best pair."""

    def entropy(mass: np.ndarray) -> float:
        return float(_plogp(mass).sum())

    costs = weight * cost[np.arange(len(choice)), choice]
    crossed = weight[:, None] * cost[:, choice]
    gain = costs[:, None] + costs[None] - crossed - crossed.T
    first, second = np.unravel_index(int(gain.argmax()), gain.shape)
    if gain[first, second] <= slack:
        return False
    trial = choice.copy()
    trial[[first, second]] = trial[[second, first]]
    size = cost.shape[1]
    change = entropy(np.bincount(trial, weight, minlength=size)) - entropy(np.bincount(choice, weight, minlength=size))
    if change >= gain[first, second] - slack:
        return False
    choice[:] = trial
    return True
