"""The certificate: evaluate the bound for given transforms on given samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import FeatureMap
from lightning_transfer.relatedness.transport import Coupling, GroundCost, couple, embed


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
class Terms:
    """The three terms of the bound for one pair of samples, in nats.

    Attributes:
        reweighted_reference_loss: Loss of the head on the reference under the class prior.
        label_mismatch: Cost of the label map; the conditional entropy ``H(Y''|Y')`` where ``B = M / D``.
        distribution_mismatch: Transport cost between the transformed tasks.
        coupling: The transport plan behind the distribution mismatch.
    """

    reweighted_reference_loss: float
    label_mismatch: float
    distribution_mismatch: float
    coupling: Coupling

    @property
    def bound(self) -> float:
        """Sum of the three terms (Theorem 3 of the paper)."""
        return self.reweighted_reference_loss + self.label_mismatch + self.distribution_mismatch


@dataclass(frozen=True)
class Certificate(Terms):
    """The terms, and what they bound.

    Attributes:
        transformed_reference_loss: Loss of ``B h`` on the transformed reference; at most the first two terms.
        target_loss: Loss of the transformed classifier on the target sample: what the bound bounds.
        target_accuracy: Its accuracy.
        class_prior: ``D``, shape ``(K_R,)``.
        target_prior: ``P_T`` of the sample, shape ``(K_T,)``.
        joint: ``M``, shape ``(K_T, K_R)``.
        num_reference: Reference samples of the classes in use.
        num_target: Target samples.
    """

    transformed_reference_loss: float
    target_loss: float
    target_accuracy: float
    class_prior: Tensor
    target_prior: Tensor
    joint: Tensor
    num_reference: int
    num_target: int

    @property
    def tighter_bound(self) -> float:
        """Transformed reference loss plus distribution mismatch (Theorem 2); never above :attr:`bound`."""
        return self.transformed_reference_loss + self.distribution_mismatch


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


def class_losses(head: SoftmaxHead, sample: Sample) -> Tensor:
    """Mean cross-entropy of the head on each class, shape ``(K,)``; zero for an empty class."""
    losses = cross_entropy(head.logits(sample.features), sample.labels, reduction="none")
    sums = losses.new_zeros(sample.num_classes).index_add_(0, sample.labels, losses)
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


def three_terms(
    transforms: Transforms, reference: Sample, target: Sample, ground_cost: GroundCost, max_samples: int
) -> Terms:
    """Evaluate the bound: an upper bound of the target loss of ``B h(G z + g)`` on this very target sample.

    For every target class ``k`` and any coupling of the reference mixture ``conditional[k]`` with the class,
    ``E loss(target) <= E loss(reference) + E cost``, and ``-log (B h)_k <= -log B_kj - log h_j`` for every reference
    class ``j``. Summing over classes gives the three terms. Nothing is estimated: whatever the samples, the transforms
    and the coupling, the inequality holds.

    Args:
        transforms: What was chosen.
        reference: Reference sample.
        target: Target sample; classes may be empty.
        ground_cost: Which cost between features dominates the change of the loss.
        max_samples: Largest number of samples on a side of one transport problem; see
            :func:`~lightning_transfer.relatedness.transport.couple`.

    Returns:
        The terms.

    Raises:
        ValueError: If a reference class that is used has no samples.
    """
    joint = transforms.joint(target.prior)
    coupling = couple(
        reference.with_features(embed(reference.features, transforms.head, ground_cost)),
        target.with_features(embed(transforms.feature_map(target.features), transforms.head, ground_cost)),
        transforms.conditional,
        transforms.label_map > 0,
        ground_cost,
        max_samples,
    )
    return Terms(
        reweighted_reference_loss=float(joint.sum(0) @ class_losses(transforms.head, reference)),
        label_mismatch=label_mismatch(joint, transforms.label_map),
        distribution_mismatch=coupling.cost,
        coupling=coupling,
    )


def certify(
    transforms: Transforms, reference: Sample, target: Sample, ground_cost: GroundCost, max_samples: int
) -> Certificate:
    """Evaluate the bound and what it bounds; see :func:`three_terms`.

    Args:
        transforms: What was chosen.
        reference: Reference sample.
        target: Target sample; classes may be empty.
        ground_cost: Which cost between features dominates the change of the loss.
        max_samples: Largest number of samples on a side of one transport problem.

    Returns:
        The bound with its parts.

    Raises:
        ValueError: If a reference class that is used has no samples.
    """
    terms = three_terms(transforms, reference, target, ground_cost, max_samples)
    joint = transforms.joint(target.prior)
    log_p = transforms.log_probabilities(target.features)
    reference_log_p = label_log_probabilities(transforms.head.logits(reference.features), transforms.label_map)
    # expected loss of B h for every pair of target class and true reference class
    sums = reference_log_p.new_zeros(reference.num_classes, target.num_classes)
    sums.index_add_(0, reference.labels, -reference_log_p.clamp_min(torch.finfo(torch.float64).min))
    pair_losses = (sums / reference.counts.clamp_min(1)[:, None]).T
    used, prior = joint > 0, joint.sum(0)
    return Certificate(
        **vars(terms),
        transformed_reference_loss=float((joint[used] * pair_losses[used]).sum()),
        target_loss=float(-log_p.gather(1, target.labels[:, None]).mean()),
        target_accuracy=float((log_p.argmax(1) == target.labels).double().mean()),
        class_prior=prior,
        target_prior=target.prior,
        joint=joint,
        num_reference=int(reference.counts[prior > 0].sum()),
        num_target=len(target.labels),
    )
