"""The certificate: evaluate the bound for given transforms on given samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.certificate import Certificate
from lightning_transfer.relatedness.config import GroundCost
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import FeatureMap
from lightning_transfer.relatedness.transport import Coupling, couple, couple_losses, embed

EPS = torch.finfo(torch.float64).eps
_ENTRIES = 2**20  # of one block of logits: what is made of it stays in the cache of a core


@dataclass(frozen=True)
class Transforms:
    """Everything that is chosen; any choice gives a valid bound.

    Attributes:
        head: Reference classifier ``h``.
        feature_map: Map of target features into the reference space.
        label_map: ``B`` of the classifier, shape ``(K_T, K_R)``; every column sums to one.
        conditional: Which reference classes stand for each target class, shape ``(K_T, K_R)``; every row sums to one.
            The joint mass is ``M = diag(P_T) conditional``, the class prior its column sums.
    """

    head: SoftmaxHead
    feature_map: FeatureMap
    label_map: Tensor
    conditional: Tensor

    def joint(self, target_prior: Tensor) -> Tensor:
        """Joint mass of target and reference classes, shape ``(K_T, K_R)``; its row sums are the target prior."""
        return target_prior[:, None] * self.conditional

    def log_probabilities(self, target_features: Tensor) -> Tensor:
        """Log-probabilities ``log B h(G z + g)`` of the target classes, shape ``(n, K_T)``."""
        return label_log_probabilities(self.head.logits(self.feature_map(target_features)), self.label_map)

    def predict(self, target_features: Tensor) -> Tensor:
        """Most probable target class of each sample, shape ``(n,)``."""
        parts = row_blocks(len(target_features), self.head)
        return torch.cat([self.log_probabilities(target_features[rows]).argmax(1) for rows in parts])


def row_blocks(num_rows: int, head: SoftmaxHead) -> Iterator[slice]:
    """Rows whose logits fit into one block; no matrix of all samples by all classes is needed."""
    step = max(1, _ENTRIES // len(head.weight))
    return (slice(start, start + step) for start in range(0, max(num_rows, 1), step))


def label_log_probabilities(logits: Tensor, label_map: Tensor) -> Tensor:
    """Logarithm of ``B softmax(logits)``, without underflow.

    Args:
        logits: Shape ``(n, K_R)``.
        label_map: Shape ``(K_T, K_R)``.

    Returns:
        Shape ``(n, K_T)``.
    """
    return _mapped(torch.log_softmax(logits, dim=1), label_map)


def _mapped(log_p: Tensor, label_map: Tensor) -> Tensor:
    counts = (label_map > 0).sum(1)
    single = counts == 1
    if bool(single.all()):
        share, only = label_map.max(1)
        return log_p.index_select(1, only).add_(share.log())
    mapped = log_p.new_full((len(log_p), len(label_map)), -torch.inf)
    only = label_map[single].argmax(1)
    mapped[:, single] = log_p[:, only] + label_map[single, only].log()
    for k in (counts > 1).nonzero()[:, 0].tolist():
        used = label_map[k] > 0
        mapped[:, k] = torch.logsumexp(log_p[:, used] + label_map[k, used].log(), dim=1)
    return mapped


def label_losses(log_p: Tensor, labels: Tensor, label_map: Tensor) -> Tensor:
    """Loss ``-log (B p)_y`` of each sample, without the probabilities of the other target classes.

    Args:
        log_p: Logarithm of ``p``, shape ``(n, K_R)``.
        labels: Target classes, shape ``(n,)``.
        label_map: Shape ``(K_T, K_R)``.

    Returns:
        Shape ``(n,)``; infinite where no reference class is sent to the class.
    """
    several = (label_map > 0).sum(1) > 1
    share, only = label_map.max(1)
    own = log_p.gather(1, only[labels][:, None])[:, 0] + share.log()[labels]
    for k in several.nonzero()[:, 0].tolist():
        rows, used = (labels == k).nonzero()[:, 0], label_map[k] > 0
        own[rows] = torch.logsumexp(log_p[rows][:, used] + label_map[k, used].log(), dim=1)
    return -own


@dataclass(frozen=True)
class Look:
    """What a solver sees of the bound: its value without regard to rounding, and the plan to go on with."""

    bound: float
    coupling: Coupling


def sampled_constant(head: SoftmaxHead, label_map: Tensor, features: Tensor, labels: Tensor) -> float:
    """Largest norm of the gradient of the loss over samples: the published estimate of the Lipschitz constant.

    It looks at finitely many points, hence it is too small for a bound; compare it with
    :attr:`~lightning_transfer.relatedness.head.SoftmaxHead.lipschitz_constant`.

    Args:
        head: The head.
        label_map: ``B``, shape ``(K_T, K_R)``.
        features: Points in the space of the head, shape ``(n, d)``.
        labels: Target classes, shape ``(n,)``.

    Returns:
        The estimate.
    """
    largest = 0.0
    for rows in row_blocks(len(features), head):
        p = head.logits(features[rows]).softmax(1)
        posterior = p * label_map[labels[rows]]
        posterior /= posterior.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
        largest = max(largest, float(((p - posterior) @ head.weight).norm(dim=1).max()))
    return largest


def sample_losses(head: SoftmaxHead, sample: Sample) -> Tensor:
    """Cross-entropy of the head on each sample, shape ``(n,)``."""
    features, labels = sample.features, sample.labels
    parts = row_blocks(len(labels), head)
    return torch.cat([cross_entropy(head.logits(features[i]), labels[i], reduction="none") for i in parts])


def target_losses(transforms: Transforms, target: Sample) -> Tensor:
    """Loss of the transformed classifier on each target sample, shape ``(n,)``."""
    losses = target.features.new_zeros(len(target.labels))
    for rows in row_blocks(len(losses), transforms.head):
        log_p = transforms.head.logits(transforms.feature_map(target.features[rows])).log_softmax(1)
        losses[rows] = label_losses(log_p, target.labels[rows], transforms.label_map)
    return losses


def class_losses(head: SoftmaxHead, sample: Sample) -> Tensor:
    """Mean cross-entropy of the head on each class, shape ``(K,)``; zero for an empty class."""
    return class_averages(sample_losses(head, sample), sample)


def class_averages(values: Tensor, sample: Sample) -> Tensor:
    """Mean of each class of values of the samples, shape ``(K,)``; zero for an empty class."""
    return values.new_zeros(sample.num_classes).index_add_(0, sample.labels, values) / sample.counts.clamp_min(1)


def label_mismatch(joint: Tensor, label_map: Tensor) -> float:
    r"""Cost of the label map, :math:`-\sum_{kj} M_{kj} \log B_{kj}` with ``0 log 0 = 0``.

    Where ``B`` is ``M`` divided by its column sums, this is the conditional entropy ``H(Y''|Y')`` of the paper. For any
    other column-stochastic ``B`` it is the cross-entropy, and the bound holds with it just as well.

    Args:
        joint: Shape ``(K_T, K_R)``.
        label_map: Shape ``(K_T, K_R)``.

    Returns:
        The cost in nats.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.bound import label_mismatch
        >>> label_map = torch.tensor([[0.7, 0.2, 0.5], [0.3, 0.8, 0.5]], dtype=torch.float64)
        >>> round(label_mismatch(label_map * torch.tensor([0.5, 0.3, 0.2]), label_map), 6)
        0.594182
    """
    used = joint > 0
    return float(-(joint[used] * label_map[used].log()).sum()) + 0.0


def look(transforms: Transforms, reference: Sample, target: Sample, ground_cost: GroundCost, block_size: int) -> Look:
    """Evaluate the bound and nothing else; for arguments and errors see :func:`certify`."""
    losses = sample_losses(transforms.head, reference)
    if ground_cost == "loss":
        return look_at_losses(transforms, reference, target, losses, target_losses(transforms, target))
    coupling = _couple(transforms, reference, target, ground_cost, block_size)
    return _seen(transforms, reference, target, losses, coupling)


def look_at_losses(transforms: Transforms, reference: Sample, target: Sample, before: Tensor, after: Tensor) -> Look:
    """The same for the ground cost ``"loss"``, from the losses of both sides.

    Args:
        transforms: What was chosen; the head and the feature map are not looked at.
        reference: Reference sample.
        target: Target sample.
        before: Loss of the head on each reference sample, shape ``(n_R,)``.
        after: Loss of the transformed classifier on each target sample, shape ``(n_T,)``.

    Returns:
        Bound and coupling.
    """
    coupling = couple_losses(reference, target, before, after, transforms.conditional, transforms.label_map)
    return _seen(transforms, reference, target, before, coupling)


def _seen(transforms: Transforms, reference: Sample, target: Sample, losses: Tensor, coupling: Coupling) -> Look:
    joint = transforms.joint(target.prior)
    loss = float(joint.sum(0) @ class_averages(losses, reference))
    return Look(loss + label_mismatch(joint, transforms.label_map) + coupling.cost, coupling)


def certify(
    transforms: Transforms, reference: Sample, target: Sample, ground_cost: GroundCost, block_size: int
) -> Certificate:
    """Evaluate the bound, an upper bound of the loss of ``B h(G z + g)`` on this very target sample, and that loss.

    For every target class ``k`` and any coupling of the reference mixture ``conditional[k]`` with the class,
    ``E loss(target) <= E loss(reference) + E cost``, and ``-log (B h)_k <= -log B_kj - log h_j`` for every reference
    class ``j``. Summing over classes gives the three terms. Nothing is estimated: whatever the samples, the transforms
    and the coupling, the inequality holds.

    Args:
        transforms: What was chosen.
        reference: Reference sample.
        target: Target sample; classes may be empty.
        ground_cost: Which cost between features dominates the change of the loss.
        block_size: Largest number of samples on a side of one transport problem; see
            :func:`~lightning_transfer.relatedness.transport.couple`.

    Returns:
        The bound with its parts.

    Raises:
        ValueError: If a reference class that is used has no samples.
    """
    joint, head, label_map = transforms.joint(target.prior), transforms.head, transforms.label_map
    before, pair_losses = _reference_losses(transforms, reference)
    after, hits = target.features.new_zeros(len(target.labels)), 0
    for rows in row_blocks(len(after), head):
        log_p, labels = head.logits(transforms.feature_map(target.features[rows])).log_softmax(1), target.labels[rows]
        after[rows] = label_losses(log_p, labels, label_map)
        hits += int((_mapped(log_p, label_map).argmax(1) == labels).sum())
    if ground_cost == "loss":
        coupling = couple_losses(reference, target, before, after, transforms.conditional, label_map)
    else:
        coupling = _couple(transforms, reference, target, ground_cost, block_size)
    used, prior = joint > 0, joint.sum(0)
    terms = {
        "reweighted_reference_loss": float(prior @ class_averages(before, reference)),
        "label_mismatch": label_mismatch(joint, label_map),
        "distribution_mismatch": coupling.cost,
    }
    return Certificate(
        **terms,
        transformed_reference_loss=float((joint[used] * pair_losses[used]).sum()),
        target_loss=float(after.mean()),
        target_accuracy=hits / len(after),
        num_reference=int(reference.counts[prior > 0].sum()),
        num_target=len(target.labels),
        guessing=float(torch.special.entr(target.prior).sum()),
        rounding=rounding(transforms, reference, target) + 8 * EPS * sum(terms.values()),
        optimal=coupling.converged,
        of_losses=ground_cost == "loss",
    )


def _reference_losses(transforms: Transforms, reference: Sample) -> tuple[Tensor, Tensor]:
    """Loss of the head on each reference sample, and of ``B h`` for every pair of target and true reference class."""
    label_map = transforms.label_map
    several = ((label_map > 0).sum(1) > 1).nonzero()[:, 0]
    before = reference.features.new_zeros(len(reference.labels))
    sums = before.new_zeros(reference.num_classes, len(several))
    for rows in row_blocks(len(before), transforms.head):
        log_p, labels = transforms.head.logits(reference.features[rows]).log_softmax(1), reference.labels[rows]
        before[rows] = -log_p.gather(1, labels[:, None])[:, 0]
        if len(several):
            log_q = _mapped(log_p, label_map[several])
            sums.index_add_(0, labels, -log_q.clamp_min(torch.finfo(torch.float64).min))
    pair_losses = class_averages(before, reference) - label_map.log()  # where one reference class is sent to a target
    pair_losses[several] = sums.T / reference.counts.clamp_min(1)
    return before, pair_losses


def rounding(transforms: Transforms, reference: Sample, target: Sample) -> float:
    """How far errors of float64 can put the bound and the loss apart, in whatever order each is summed.

    A scalar product of ``d`` terms is off by at most about ``d eps`` times the sum of their magnitudes (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1), so every logit, cost and loss by a multiple of the
    magnitudes that went into the logits; a mean over ``n`` samples by ``n eps`` times its largest term. Marginals of
    transport plans are kept to that accuracy too.

    Args:
        transforms: What was chosen.
        reference: Reference sample.
        target: Target sample.

    Returns:
        The error in nats, small against the bound unless logits are huge.
    """
    head, feature_map = transforms.head, transforms.feature_map
    weight, bias = head.weight.abs().amax(0), float(head.bias.abs().max())
    tau = head.lipschitz_constant
    moved = feature_map.matrix.abs().T @ weight
    norm = torch.linalg.matrix_norm(feature_map.matrix) * tau  # not below the spectral norm
    shift = float(feature_map.offset.abs() @ weight + feature_map.offset.norm() * tau)
    here = target.features.abs() @ moved + target.features.norm(dim=1) * norm + shift + bias
    there = reference.features.abs() @ weight + reference.features.norm(dim=1) * tau + bias
    prior = transforms.joint(target.prior).sum(0)
    mean = float(here.mean() + there @ (prior / reference.counts.clamp_min(1))[reference.labels])
    peak = float(here.max() + there.max()) + math.log(reference.num_classes + target.num_classes)
    terms = reference.features.shape[1] + reference.num_classes + target.num_classes
    error = EPS * (8 * (terms + 16) * (mean + 1) + 8 * (len(reference.labels) + len(target.labels) + 16) * peak)
    return error if error == error else math.inf


def _couple(
    transforms: Transforms, reference: Sample, target: Sample, ground_cost: GroundCost, block_size: int
) -> Coupling:
    return couple(
        reference.with_features(embed(reference.features, transforms.head, ground_cost)),
        target.with_features(embed(transforms.feature_map(target.features), transforms.head, ground_cost)),
        transforms.conditional,
        transforms.label_map > 0,
        ground_cost,
        block_size,
    )
