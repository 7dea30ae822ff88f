"""The certificate: evaluate the bound for given transforms on given samples."""

from __future__ import annotations

import math
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
        return self.log_probabilities(target_features).argmax(1)


def label_log_probabilities(logits: Tensor, label_map: Tensor) -> Tensor:
    """Logarithm of ``B softmax(logits)``, without underflow.

    Args:
        logits: Shape ``(n, K_R)``.
        label_map: Shape ``(K_T, K_R)``.

    Returns:
        Shape ``(n, K_T)``.
    """
    log_p = torch.log_softmax(logits, dim=1)
    mapped = log_p.new_full((len(log_p), len(label_map)), -torch.inf)
    counts = (label_map > 0).sum(1)
    single = counts == 1
    only = label_map[single].argmax(1)
    mapped[:, single] = log_p[:, only] + label_map[single, only].log()
    for k in (counts > 1).nonzero()[:, 0].tolist():
        used = label_map[k] > 0
        mapped[:, k] = torch.logsumexp(log_p[:, used] + label_map[k, used].log(), dim=1)
    return mapped


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
    p = head.logits(features).softmax(1)
    posterior = p * label_map[labels]
    posterior = posterior / posterior.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    return float(((p - posterior) @ head.weight).norm(dim=1).max())


def sample_losses(head: SoftmaxHead, sample: Sample) -> Tensor:
    """Cross-entropy of the head on each sample, shape ``(n,)``."""
    return cross_entropy(head.logits(sample.features), sample.labels, reduction="none")


def class_losses(head: SoftmaxHead, sample: Sample) -> Tensor:
    """Mean cross-entropy of the head on each class, shape ``(K,)``; zero for an empty class."""
    sums = sample.features.new_zeros(sample.num_classes).index_add_(0, sample.labels, sample_losses(head, sample))
    return sums / sample.counts.clamp_min(1)


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
    coupling = _couple(transforms, reference, target, ground_cost, block_size)
    joint = transforms.joint(target.prior)
    loss = float(joint.sum(0) @ class_losses(transforms.head, reference))
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
    coupling = _couple(transforms, reference, target, ground_cost, block_size)
    joint = transforms.joint(target.prior)
    log_p = transforms.log_probabilities(target.features)
    reference_log_p = label_log_probabilities(transforms.head.logits(reference.features), transforms.label_map)
    # expected loss of B h for every pair of target class and true reference class
    sums = reference_log_p.new_zeros(reference.num_classes, target.num_classes)
    sums.index_add_(0, reference.labels, -reference_log_p.clamp_min(torch.finfo(torch.float64).min))
    pair_losses = (sums / reference.counts.clamp_min(1)[:, None]).T
    used, prior = joint > 0, joint.sum(0)
    terms = {
        "reweighted_reference_loss": float(prior @ class_losses(transforms.head, reference)),
        "label_mismatch": label_mismatch(joint, transforms.label_map),
        "distribution_mismatch": coupling.cost,
    }
    return Certificate(
        **terms,
        transformed_reference_loss=float((joint[used] * pair_losses[used]).sum()),
        target_loss=float(-log_p.gather(1, target.labels[:, None]).mean()),
        target_accuracy=float((log_p.argmax(1) == target.labels).double().mean()),
        num_reference=int(reference.counts[prior > 0].sum()),
        num_target=len(target.labels),
        guessing=float(torch.special.entr(target.prior).sum()),
        rounding=rounding(transforms, reference, target) + 8 * EPS * sum(terms.values()),
        optimal=coupling.converged,
        of_losses=ground_cost == "loss",
    )


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
    if ground_cost == "loss":
        log_p = transforms.log_probabilities(target.features)
        return couple_losses(
            reference,
            target,
            sample_losses(transforms.head, reference),
            -log_p.gather(1, target.labels[:, None])[:, 0],
            transforms.conditional,
            transforms.label_map,
        )
    return couple(
        reference.with_features(embed(reference.features, transforms.head, ground_cost)),
        target.with_features(embed(transforms.feature_map(target.features), transforms.head, ground_cost)),
        transforms.conditional,
        transforms.label_map > 0,
        ground_cost,
        block_size,
    )
