"""Heads: the certified constant against gradients, directions, scaling, training against an independent solver."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from lightning_transfer.relatedness.head import SoftmaxHead, certified_constant, train_head
from lightning_transfer.relatedness.sample import Sample


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def sample_of_blobs(n=40, width=3, classes=3):
    labels = torch.arange(n) % classes
    return Sample(draw(n, width) + draw(classes, width, seed=1)[labels], labels, classes)


def test_constant_is_the_widest_pair_and_no_gradient_exceeds_it():
    weight = draw(4, 3)
    rows = weight.numpy()
    assert certified_constant(weight) == pytest.approx(
        max(np.linalg.norm(rows[i] - rows[j]) for i in range(4) for j in range(4)), rel=1e-12
    )
    assert certified_constant(weight[:1]) == 0
    head, points = SoftmaxHead(weight, draw(4, seed=2)), (5 * draw(200, 3, seed=3)).requires_grad_()
    for label_map in (torch.eye(4).double(), draw(2, 4, seed=4).softmax(0)):
        loss = -(label_map @ head.logits(points).softmax(1).T).log()
        for of_class in loss:
            (gradient,) = torch.autograd.grad(of_class.sum(), points, retain_graph=True)
            assert float(gradient.norm(dim=1).max()) <= head.lipschitz_constant * (1 + 1e-12)


def test_what_is_orthogonal_to_the_directions_changes_no_loss():
    weight = torch.cat([draw(3, 2), torch.full((3, 2), 5.0, dtype=torch.float64)], dim=1)
    head, points = SoftmaxHead(weight, draw(3, seed=1)), draw(10, 4, seed=2)
    basis = head.directions
    assert basis.shape == (2, 4)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2).double())
    torch.testing.assert_close(
        head.logits(points @ basis.T @ basis).log_softmax(1), head.logits(points).log_softmax(1), rtol=1e-10, atol=1e-10
    )
    assert SoftmaxHead.constant(torch.tensor([0.5, 0.5]).double(), 4).directions.shape == (0, 4)


def test_limited_scales_the_weight_only_where_the_constant_is_larger():
    head = SoftmaxHead(draw(3, 2), draw(3, seed=1))
    assert head.limited(head.lipschitz_constant) is head
    small = head.limited(0.25)
    assert small.lipschitz_constant == pytest.approx(0.25, rel=1e-12)
    assert torch.equal(small.bias, head.bias)
    torch.testing.assert_close(small.weight / small.weight[0, 0], head.weight / head.weight[0, 0])


@pytest.mark.parametrize("tau", [0.1, 0.3])
def test_training_holds_the_constraint_and_gains_from_a_larger_one(tau):
    sample = sample_of_blobs()
    losses = []
    for limit in (0.0, tau, 2 * tau):
        head, _ = train_head(sample, sample.prior, limit)
        assert head.lipschitz_constant <= limit * (1 + 1e-12)
        losses.append(float(nn.functional.cross_entropy(head.logits(sample.features), sample.labels)))
    assert losses[0] > losses[1] > losses[2]
    entropy = -float((sample.prior * sample.prior.log()).sum())
    assert losses[0] == pytest.approx(entropy, rel=1e-9)


def test_training_without_a_constraint_reaches_the_minimum_of_scipy():
    sample, prior = sample_of_blobs(), torch.tensor([0.2, 0.3, 0.5]).double()
    features, labels = sample.features.numpy(), sample.labels.numpy()
    weights = prior.numpy()[labels] / np.bincount(labels)[labels]

    def loss(flat):
        logits = features @ flat[:9].reshape(3, 3).T + flat[9:]
        top = logits.max(1, keepdims=True)
        log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(1))
        return weights @ (log_sum - logits[np.arange(len(labels)), labels])

    expected = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-7}).fun
    head, _ = train_head(sample, prior, math.inf)
    assert loss(torch.cat([head.weight.flatten(), head.bias]).numpy()) == pytest.approx(expected, rel=1e-5)


def test_heads_of_the_user_are_taken_over_detached_in_double_precision():
    layer = nn.Linear(3, 2)
    head = SoftmaxHead.of(layer, 3, 2)
    assert head.weight.dtype == torch.float64
    assert not head.weight.requires_grad
    features = draw(5, 3)
    torch.testing.assert_close(head.logits(features).float(), layer(features.float()), rtol=1e-5, atol=1e-5)
    without = SoftmaxHead.of(nn.Linear(3, 2, bias=False), 3, 2)
    assert torch.equal(without.bias, torch.zeros(2).double())
    with pytest.raises(ValueError, match=r"3 features to 4 reference classes.*\(2, 3\)"):
        SoftmaxHead.of(layer, 3, 4)
    with pytest.raises(ValueError, match="finite"):
        SoftmaxHead.of((torch.full((2, 3), math.nan), torch.zeros(2)), 3, 2)
    with pytest.raises(ValueError, match="got str"):
        SoftmaxHead.of("head", 3, 2)
