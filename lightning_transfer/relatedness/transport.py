"""Label-conditional optimal transport: ground costs, the exact solver, and couplings of samples of any size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.relatedness.config import GroundCost
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.sample import Sample

_CHUNK_BYTES = 2**26


def embed(features: Tensor, head: SoftmaxHead, ground_cost: GroundCost) -> Tensor:
    """Bring features into the space in which the ground cost is measured.

    Args:
        features: Shape ``(n, d)``; reference features, or target features after the feature map.
        head: The head whose loss the cost must dominate.
        ground_cost: Name of the cost.

    Returns:
        ``tau z`` in the directions of the head, shape ``(n, r)``, for ``"feature"``; ``W z`` of shape ``(n, K)`` for
        the logit costs.
    """
    if ground_cost == "feature":
        return features @ head.directions.T * head.lipschitz_constant
    return features @ head.weight.T


def cost_matrix(source: Tensor, target: Tensor, ground_cost: GroundCost, support: Tensor) -> Tensor:
    r"""Cost of every pair, an upper bound of ``loss(target, y) - loss(source, y)`` in nats.

    With ``u`` the change of the logits from source to target, the change of the loss is
    :math:`\int (p - q) \cdot u` with ``p`` in the simplex and ``q`` in the simplex over the reference classes that the
    label map sends to ``y``. So it is at most ``max u - min u`` over that support (``"logit_margin"``), at most
    ``max u - min u`` over all classes (``"logit_range"``), and at most ``tau`` times the distance in the directions of
    the head (``"feature"``), hence at most ``tau`` times the distance, as published.

    Args:
        source: Embedded reference samples, shape ``(n, e)``.
        target: Embedded target samples, shape ``(m, e)``.
        ground_cost: Name of the cost.
        support: Reference classes with a positive entry in the row of the label map, shape ``(K,)``, bool.

    Returns:
        Shape ``(n, m)``, float64.
    """
    if ground_cost == "feature":
        return torch.cdist(source, target, compute_mode="donot_use_mm_for_euclid_dist")
    costs = source.new_empty(len(source), len(target))
    rows = max(1, _CHUNK_BYTES // (8 * target.numel()))
    for start in range(0, len(source), rows):
        change = target[None] - source[start : start + rows, None]
        low = change[..., support] if ground_cost == "logit_margin" else change
        costs[start : start + rows] = change.amax(-1) - low.amin(-1)
    return costs


def feasible_plan(plan: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Give a plan exactly the marginals it should have.

    Rows and columns that carry too much are scaled down, and what is missing is added as a product measure
    (Altschuler, Weed and Rigollet, NeurIPS 2017, Algorithm 2). Only a plan with the right marginals bounds anything.

    Args:
        plan: Shape ``(n, m)``, non-negative.
        source: Mass of the rows, shape ``(n,)``.
        target: Mass of the columns, shape ``(m,)``, with the same total.

    Returns:
        Shape ``(n, m)``.
    """
    worst = max(np.abs(plan.sum(1) - source).max(), np.abs(plan.sum(0) - target).max())
    if worst < 1e-15:
        return plan
    plan = plan * np.minimum(1, source / np.maximum(plan.sum(1), 1e-300))[:, None]
    plan = plan * np.minimum(1, target / np.maximum(plan.sum(0), 1e-300))[None]
    rows, columns = source - plan.sum(1), target - plan.sum(0)
    missing = float(rows.sum())
    return plan + np.outer(rows, columns) / missing if missing > 1e-14 else plan


def exact_plan(
    cost: np.ndarray, source: np.ndarray, target: np.ndarray, max_iter: int = 1_000_000
) -> tuple[np.ndarray, bool]:
    """Solve one transport problem exactly; say so when the solver gave up.

    POT answers an unfinished problem with a plan that lacks mass and a mere warning. Here the status is read, the
    problem tried once more with ten times the iterations, and what comes out in the end is made feasible, so that its
    cost is an upper bound in any case.

    Args:
        cost: Shape ``(n, m)``, float64.
        source: Positive masses of shape ``(n,)``.
        target: Positive masses of shape ``(m,)``, with the same total.
        max_iter: Iterations of the network simplex.

    Returns:
        The plan of shape ``(n, m)``, and whether it is optimal.
    """
    import ot

    total = source.sum()
    a, b = source / total, target / target.sum()
    for limit in (max_iter, 10 * max_iter):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the status is read instead
            plan, log = ot.emd(a, b, cost, numItermax=limit, log=True)
        if log["warning"] is None:
            break
    return feasible_plan(plan, a, b) * total, log["warning"] is None


@dataclass(frozen=True)
class Coupling:
    """A sparse joint distribution of reference and target samples with the same class.

    Attributes:
        source: Rows of the reference sample, shape ``(e,)``.
        target: Rows of the target sample, shape ``(e,)``.
        mass: Mass of each pair, shape ``(e,)``, float64; the total is one.
        class_costs: Transport cost of each target class, shape ``(K_T,)``, as a conditional expectation.
        cost: Expected cost of a pair, in nats.
        converged: Whether every problem was solved to optimality.
        num_problems: Number of transport problems solved.
    """

    source: Tensor
    target: Tensor
    mass: Tensor
    class_costs: Tensor
    cost: float
    converged: bool
    num_problems: int


def couple(
    reference: Sample,
    target: Sample,
    conditional: Tensor,
    support: Tensor,
    ground_cost: GroundCost,
    block_size: int,
) -> Coupling:
    """Couple all samples of two labelled samples, class by class.

    Target class ``k`` is coupled with the mixture ``conditional[k]`` of reference classes, uniform within each. A class
    that has more than ``block_size`` samples on a side is cut into blocks (systematic samples), and blocks are coupled
    with blocks. The mixture of the blocks' plans has exactly the marginals of the whole class, so the cost is an upper
    bound for all samples, not for a part of them, at a cost linear in their number.

    Args:
        reference: Embedded reference sample.
        target: Embedded target sample.
        conditional: Rows on the simplex, shape ``(K_T, K_R)``.
        support: Support of the label map, shape ``(K_T, K_R)``, bool.
        ground_cost: Name of the cost.
        block_size: Largest number of samples on a side of one problem.

    Returns:
        The coupling.

    Raises:
        ValueError: If a reference class that is needed has no samples.
    """
    prior = target.prior
    of_reference, of_target = reference.members(), target.members()
    sources, targets, masses = [], [], []
    class_costs = torch.zeros_like(prior)
    converged, problems = True, 0
    for k in prior.nonzero()[:, 0].tolist():
        rows, weight = _mixture(conditional[k], of_reference)
        for part, columns, share in _block_pairs(rows, weight, of_target[k], block_size):
            cost = cost_matrix(reference.features[rows[part]], target.features[columns], ground_cost, support[k])
            # the exact solver works on the CPU, wherever the samples are
            host = cost.cpu().numpy()
            mass = weight[part].cpu().numpy()
            plan, optimal = exact_plan(
                host, mass * (share / mass.sum()), np.full(len(columns), share / len(columns), dtype=np.float64)
            )
            first, second = plan.nonzero()
            class_costs[k] += float((plan * host).sum())
            sources.append(rows[part][torch.from_numpy(first).to(rows.device)])
            targets.append(columns[torch.from_numpy(second).to(rows.device)])
            masses.append(torch.from_numpy(plan[first, second]).to(weight) * prior[k])
            converged, problems = converged and optimal, problems + 1
    return Coupling(
        source=torch.cat(sources),
        target=torch.cat(targets),
        mass=torch.cat(masses),
        class_costs=class_costs,
        cost=float(prior @ class_costs),
        converged=converged,
        num_problems=problems,
    )


def couple_losses(
    reference: Sample,
    target: Sample,
    reference_losses: Tensor,
    target_losses: Tensor,
    conditional: Tensor,
    label_map: Tensor,
) -> Coupling:
    r"""Couple both samples, class by class, so that the loss rises least: the ground cost ``"loss"``.

    For target class ``k`` a reference sample of class ``j`` stands for the number :math:`-\log B_{kj} - \log h_j(z)`, a
    target sample for :math:`-\log (B h)_k`, and the cost is the positive part of the difference. It is convex in it, so
    on the line the monotone coupling is optimal, which sorting finds: no transport problem is solved, and every sample
    counts. An infinite reference number makes the bound infinite already and costs nothing here.

    Args:
        reference: Reference sample; its features are not looked at.
        target: Target sample; likewise.
        reference_losses: ``-log h`` of the own class of each reference sample, shape ``(n,)``.
        target_losses: ``-log (B h)`` of the own class of each target sample after the feature map, shape ``(m,)``.
        conditional: Rows on the simplex, shape ``(K_T, K_R)``.
        label_map: ``B``, shape ``(K_T, K_R)``.

    Returns:
        The coupling.

    Raises:
        ValueError: If a reference class that is needed has no samples.
    """
    prior = target.prior
    wanted, used = (conditional * (prior > 0)[:, None]).nonzero(as_tuple=True)
    counts = reference.counts.long()
    if bool((counts[used] == 0).any()):
        missing = used[counts[used] == 0].unique().tolist()
        raise ValueError(f"Expected samples of every reference class that is used, but got none of {missing}.")
    lengths = counts[used]  # all members of the reference classes behind each target class, one after the other
    before_it = (counts.cumsum(0) - counts)[used] - (lengths.cumsum(0) - lengths)
    places = torch.arange(int(lengths.sum()), device=lengths.device) + before_it.repeat_interleave(lengths)
    rows = torch.argsort(reference.labels, stable=True)[places]
    classes = wanted.repeat_interleave(lengths)
    weight = (conditional[wanted, used] / lengths).repeat_interleave(lengths)
    before = reference_losses[rows] - label_map[classes, reference.labels[rows]].log()
    first, second, mass = monotone_plan(before, weight, target_losses, classes, target.labels)
    rise = torch.where(before[first] == torch.inf, 0, (target_losses[second] - before[first]).clamp_min(0))
    of = target.labels[second]
    class_costs = torch.zeros_like(prior).index_add_(0, of, mass * rise)
    return Coupling(rows[first], second, mass * prior[of], class_costs, float(prior @ class_costs), True, 0)


def monotone_plan(
    source: Tensor,
    weight: Tensor,
    target: Tensor,
    source_groups: Tensor | None = None,
    target_groups: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Couple two weighted samples of numbers in ascending order, quantile by quantile, group by group.

    Args:
        source: Shape ``(n,)``.
        weight: Masses of ``source``, total one in each group, shape ``(n,)``.
        target: Shape ``(m,)``, equally heavy within a group.
        source_groups: Group of each source number, shape ``(n,)``; None for a single one.
        target_groups: Group of each target number, shape ``(m,)``; the same groups occur in both.

    Returns:
        Positions in both and masses of the pairs, each of shape ``(e,)`` with ``e < n + m``.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.transport import monotone_plan
        >>> half = torch.tensor([0.5, 0.5]).double()
        >>> [part.tolist() for part in monotone_plan(torch.tensor([3.0, 1.0]), half, torch.tensor([5.0]))]
        [[1, 0], [0, 0], [0.5, 0.5]]
    """
    rows, ends = _on_a_line(source, weight, source_groups)
    even = torch.ones_like(target, dtype=weight.dtype)
    if target_groups is None:
        even = even / len(target)
    else:
        _, of, counts = target_groups.unique(return_inverse=True, return_counts=True)
        even = even / counts[of]
    columns, others = _on_a_line(target, even, target_groups)
    cuts = torch.cat([ends, others]).sort().values
    mass = cuts.diff(prepend=cuts.new_zeros(1))
    cuts, mass = cuts[mass > 0], mass[mass > 0]
    return rows[torch.searchsorted(ends, cuts)], columns[torch.searchsorted(others, cuts)], mass


def _on_a_line(values: Tensor, weight: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    """Order of values within groups, and where each ends if group ``i`` fills the line from ``i`` to ``i + 1``."""
    order = values.argsort(stable=True)
    if groups is None:
        groups = torch.zeros_like(order)
    order = order[groups[order].argsort(stable=True)]
    _, number, counts = groups[order].unique_consecutive(return_inverse=True, return_counts=True)
    last = counts.cumsum(0) - 1
    sums = weight[order].cumsum(0)
    before = torch.cat([sums.new_zeros(1), sums[last[:-1]]])
    within = (sums - before[number]).clamp(0, 1)
    within[last] = 1
    return order, number + within


def _mixture(shares: Tensor, members: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of the reference classes behind a target class, and their masses."""
    used = shares.nonzero()[:, 0].tolist()
    if any(not len(members[j]) for j in used):
        raise ValueError(f"Expected samples of every reference class that is used, but got none of {used}.")
    rows = torch.cat([members[j] for j in used])
    return rows, torch.cat([(shares[j] / len(members[j])).expand(len(members[j])) for j in used])


def _block_pairs(
    rows: Tensor, weight: Tensor, columns: Tensor, block_size: int
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Blocks of both sides and the mass that goes from one to the other.

    Args:
        rows: Reference samples of the class, shape ``(n,)``.
        weight: Their masses, shape ``(n,)``, total one.
        columns: Target samples of the class, shape ``(m,)``, equally heavy.
        block_size: Largest block.

    Yields:
        Positions in ``rows``, target samples, and mass: a plan between the blocks with the blocks' masses as marginals
        (north-west corner rule), so at most one problem more than there are blocks.
    """
    source_blocks = -(-len(rows) // block_size)
    target_blocks = -(-len(columns) // block_size)
    positions = torch.arange(len(rows), device=rows.device)
    parts = [positions[b::source_blocks] for b in range(source_blocks)]
    supplies = [float(weight[part].sum()) for part in parts]
    others = [columns[b::target_blocks] for b in range(target_blocks)]
    demands = [len(block) / len(columns) for block in others]
    a = b = 0
    while a < len(parts) and b < len(others):
        share = min(supplies[a], demands[b])
        if share > 1e-15:
            yield parts[a], others[b], share
        supplies[a] -= share
        demands[b] -= share
        if supplies[a] <= demands[b]:
            a += 1
        else:
            b += 1
