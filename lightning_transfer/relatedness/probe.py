"""Linear classifiers whose strength is chosen on samples that they were not fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.bound import label_losses, row_blocks
from lightning_transfer.relatedness.head import SoftmaxHead, lbfgs
from lightning_transfer.relatedness.sample import Sample

_SHRINKAGES = (0.9, 0.5, 0.2, 0.05, 0.01, 1e-3)
_TEMPERATURES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.5)
_STEPS = (5, 5, 10, 20)  # iterations of L-BFGS after the discriminant, stopped where they no longer pay
_VALIDATION = 4000  # samples
_FEW = 30
_RARE = 1e-6  # probability of what never occurs
_WORK = 3e8  # multiplications of one pass, above which the discriminant is left as it is


@dataclass(frozen=True)
class Validated:
    """A classifier, and what it was chosen by.

    Attributes:
        head: Fitted on all samples.
        part: The same fitted without ``rest``.
        rest: Held-out samples, a quarter of each class that has several; may be empty.
    """

    head: SoftmaxHead
    part: SoftmaxHead
    rest: Sample


def validated(sample: Sample, prior: Tensor) -> Validated:
    """Fit a linear classifier that does well on other samples of the same classes.

    A discriminant with a shrunken pooled covariance, then some steps of L-BFGS on the cross-entropy. Shrinkage,
    temperature and number of steps are those with the least loss on a held-out quarter of each class; a temperature of
    0, which guesses by the prior, is among them. Where fewer than 30 are held out, one sample more is reckoned with,
    whose class follows the prior: a handful that is all told apart is no reason to be sure. The fit is then repeated on
    all samples.

    Args:
        sample: Features and classes; classes without samples are never predicted.
        prior: Weight of each class in the loss, shape ``(K,)``, sums to one.

    Returns:
        The classifier, with what it was chosen by.

    Example:
        >>> import torch
        >>> from lightning_transfer.relatedness.probe import validated
        >>> from lightning_transfer.relatedness.sample import Sample
        >>> labels = torch.arange(40) % 2
        >>> features = labels[:, None].double() + torch.linspace(-0.4, 0.4, 40).double()[:, None]
        >>> head = validated(Sample(features, labels, 2), torch.tensor([0.5, 0.5]).double()).head
        >>> bool((head.logits(features).argmax(1) == labels).all())
        True
    """
    fit, rest = sample.split(4)
    if not len(rest.labels):
        whole = _Pooled.of(sample, prior).head(_SHRINKAGES[1], _TEMPERATURES[6])
        return Validated(whole, whole, rest)
    if len(rest.labels) > _VALIDATION:
        rest = rest.rows(torch.arange(0, len(rest.labels), -(-len(rest.labels) // _VALIDATION)))
    weights, pooled = _weights(rest, prior), _Pooled.of(fit, prior)
    lowest, shrinkage, temperature = math.inf, _SHRINKAGES[0], 0.0
    for trial in _SHRINKAGES:
        head = pooled.head(trial, 1.0)
        guess = prior.clamp_min(_RARE).log()
        scores = rest.features @ head.weight.T + (head.bias - guess)
        losses = [_held_out(t * scores + guess, rest.labels, weights, prior) for t in _TEMPERATURES]
        best = min(range(len(losses)), key=losses.__getitem__)
        if losses[best] < lowest:
            lowest, shrinkage, temperature = losses[best], trial, _TEMPERATURES[best]
    whole = _Pooled.of(sample, prior).head(shrinkage, temperature)
    current, rounds = pooled.head(shrinkage, temperature), 0
    few = temperature > 0 and sample.features.numel() * sample.num_classes <= _WORK
    for steps in _STEPS if few else ():
        before = current
        current = _polish(fit, prior, current, steps)
        loss = _held_out(current.logits(rest.features), rest.labels, weights, prior)
        if loss >= lowest:
            current = before
            break
        lowest, rounds = loss, rounds + 1
    for steps in _STEPS[:rounds]:
        whole = _polish(sample, prior, whole, steps)
    return Validated(whole, current, rest)


def scaled(head: SoftmaxHead, share: float, prior: Tensor) -> SoftmaxHead:
    """Between guessing by the prior (0) and the head (1)."""
    guess = prior.clamp_min(_RARE).log()
    return SoftmaxHead(share * head.weight, torch.lerp(guess, head.bias, share))


def scaled_losses(
    head: SoftmaxHead, shares: Sequence[float], prior: Tensor, sample: Sample, label_map: Tensor | None = None
) -> dict[float, Tensor]:
    """Losses of each sample under :func:`scaled` heads; the scores are computed once for all shares.

    Args:
        head: The head.
        shares: How much to keep of it.
        prior: Class prior, shape ``(K,)``.
        sample: Features in the space of the head, and classes.
        label_map: ``B``, of which the classes of the sample are the rows; None for the classes of the head.

    Returns:
        Losses of shape ``(n,)`` by share.
    """
    guess = prior.clamp_min(_RARE).log()
    losses = {share: sample.features.new_zeros(len(sample.labels)) for share in shares}
    for rows in row_blocks(len(sample.labels), head):
        scores, labels = sample.features[rows] @ head.weight.T, sample.labels[rows]
        for share in shares:
            log_p = torch.add(torch.lerp(guess, head.bias, share), scores, alpha=share).log_softmax(1)
            if label_map is None:
                losses[share][rows] = -log_p.gather(1, labels[:, None])[:, 0]
            else:
                losses[share][rows] = label_losses(log_p, labels, label_map)
    return losses


def _weights(sample: Sample, prior: Tensor) -> Tensor:
    """Weight of each sample, such that classes weigh what the prior says."""
    weights = (prior / sample.counts.clamp_min(1))[sample.labels]
    return weights / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


def _loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="none") @ weights


def _held_out(logits: Tensor, labels: Tensor, weights: Tensor, prior: Tensor) -> float:
    """Loss on samples that were held out, and where these are few, on one more of unknown class."""
    own = _loss(logits, labels, weights)
    if len(labels) >= _FEW:
        return float(own)
    unknown = -(logits.log_softmax(1) @ prior) @ weights
    return float(len(labels) * own + unknown) / (len(labels) + 1)


@dataclass(frozen=True)
class _Pooled:
    """Class means and the pooled covariance: all that a linear discriminant looks at, whatever its shrinkage.

    Attributes:
        means: Shape ``(K, d)``.
        covariance: Shape ``(d, d)``.
        level: Mean of its diagonal, kept away from zero.
        present: Which classes have samples, shape ``(K,)``.
        prior: Shape ``(K,)``.
    """

    means: Tensor
    covariance: Tensor
    level: float
    present: Tensor
    prior: Tensor

    @staticmethod
    def of(sample: Sample, prior: Tensor) -> _Pooled:
        means, weights, present = sample.class_means, _weights(sample, prior), sample.counts > 0
        centred = sample.features - means[sample.labels]
        covariance = centred.T @ (centred * weights[:, None])
        # what one sample a class leaves of a variance is made up for, so that few samples do not look precise
        covariance *= len(sample.labels) / max(len(sample.labels) - int(present.sum()), 1)
        level = float(covariance.trace()) / len(covariance)
        overall = (weights @ sample.features.square().sum(1) / len(covariance)).clamp_min(
            torch.finfo(torch.float64).tiny
        )
        return _Pooled(means, covariance, max(level, 1e-6 * float(overall)), present, prior)

    def head(self, shrinkage: float, temperature: float) -> SoftmaxHead:
        """Discriminant whose covariance is pulled towards a multiple of the identity."""
        covariance = (1 - shrinkage) * self.covariance
        covariance.diagonal().add_(shrinkage * self.level)
        offset = self.prior @ self.means
        weight = torch.cholesky_solve((self.means - offset).T, torch.linalg.cholesky(covariance)).T
        bias = -0.5 * ((self.means + offset) * weight).sum(1)
        weight = torch.where(self.present[:, None], weight, 0)
        guess = self.prior.clamp_min(_RARE).log()
        return SoftmaxHead(temperature * weight, torch.where(self.present, temperature * bias, 0) + guess)


def _polish(sample: Sample, prior: Tensor, head: SoftmaxHead, steps: int) -> SoftmaxHead:
    """Some steps of L-BFGS on the cross-entropy; few of them are a regularisation."""
    weights = _weights(sample, prior)
    weight, bias = head.weight.clone().requires_grad_(), head.bias.clone().requires_grad_()
    solver = lbfgs([weight, bias], steps)

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _loss(sample.features @ weight.T + bias, sample.labels, weights)
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    polished = SoftmaxHead(weight.detach(), bias.detach())
    return polished if bool(polished.weight.isfinite().all() and polished.bias.isfinite().all()) else head
