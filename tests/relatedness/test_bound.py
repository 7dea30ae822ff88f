"""The certificate against independent versions, and the inequalities that must hold for any transforms."""

import numpy as np
import pytest
import torch
from _reference.relatedness import bound, golden_example, target_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.relatedness.bound import (
    Transforms,
    certify,
    class_losses,
    label_log_probabilities,
    label_mismatch,
    look,
)
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import FeatureMap

COSTS = ("feature", "logit_range", "logit_margin", "loss")
many = settings(deadline=None, max_examples=60)


def random_case(seed, num_reference=3, num_target=3, width=3, sparse=False, spread=1.0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(num_reference), rng.integers(num_reference, size=14)])
    t = np.concatenate([np.arange(num_target), rng.integers(num_target, size=11)])
    z, x = rng.normal(size=(len(y), width)), spread * rng.normal(size=(len(t), width))
    weight, bias = rng.normal(size=(num_reference, width)) * rng.uniform(0, 3), rng.normal(size=num_reference)
    matrix, offset = rng.normal(size=(width, width)), rng.normal(size=width)
    label_map = rng.dirichlet(np.ones(num_target), num_reference).T
    conditional = rng.dirichlet(np.ones(num_reference), num_target)
    if sparse:
        label_map = np.eye(num_target)[:, np.arange(num_reference) % num_target]
        conditional = label_map * rng.dirichlet(np.ones(num_reference))
        conditional /= conditional.sum(1, keepdims=True)
    return (z, y), (x, t), weight, bias, matrix, offset, label_map, conditional


def as_tensors(case):
    (z, y), (x, t), weight, bias, matrix, offset, label_map, conditional = case
    to = torch.from_numpy
    transforms = Transforms(
        SoftmaxHead(to(weight), to(bias)), FeatureMap(to(matrix), to(offset)), to(label_map), to(conditional)
    )
    return transforms, Sample(to(z), to(y), len(weight)), Sample(to(x), to(t), len(conditional))


@many
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from(COSTS))
def test_certificate_equals_the_independent_version(seed, num_reference, num_target, sparse, ground_cost):
    sparse = sparse and num_reference >= num_target
    case = random_case(seed, num_reference, num_target, sparse=sparse)
    certificate = certify(*as_tensors(case), ground_cost, 1000)
    expected = bound(*case, ground_cost)
    found = (certificate.reweighted_reference_loss, certificate.label_mismatch, certificate.distribution_mismatch)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)  # the linear program of the other side
    assert certificate.bound <= sum(bound(*case, "published")) + 1e-9
    (_, _), (x, t), weight, bias, matrix, offset, label_map, _ = case
    assert certificate.target_loss == pytest.approx(target_loss(x, t, matrix, offset, weight, bias, label_map))


@many
@given(
    st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5), st.floats(0.01, 30), st.sampled_from([2, 3, 5, 1000])
)
def test_bound_is_never_below_the_loss_it_bounds(seed, num_reference, num_target, spread, block_size):
    for sparse in (False, num_reference >= num_target):
        case = as_tensors(random_case(seed, num_reference, num_target, sparse=sparse, spread=spread))
        certificates = [certify(*case, ground_cost, block_size) for ground_cost in COSTS]
        for certificate in certificates:
            assert certificate.target_loss <= certificate.tighter_bound <= certificate.bound
        if block_size == 1000:  # blocks of different costs need not be comparable
            feature, logit_range, logit_margin, loss = (each.bound for each in certificates)
            assert loss <= logit_margin + 1e-9
            assert logit_margin <= logit_range + 1e-9
            assert logit_range <= feature + 1e-9


def test_rows_in_blocks_are_those_of_the_whole_sample(monkeypatch):
    for seed in range(6):
        transforms, reference, target = as_tensors(random_case(seed, 4, 3, sparse=seed % 2 == 1))
        whole = [certify(transforms, reference, target, cost, 1000) for cost in COSTS]
        mapped = label_log_probabilities(transforms.head.logits(reference.features), transforms.label_map)
        joint, counts = transforms.joint(target.prior), reference.counts
        pairs = -(mapped[:, :, None] * torch.nn.functional.one_hot(reference.labels)[:, None]).sum(0) / counts
        assert whole[0].transformed_reference_loss == pytest.approx(float((joint * pairs).nansum()))
        with monkeypatch.context() as patch:
            patch.setattr("lightning_transfer.relatedness.bound._ENTRIES", 12)
            parts = [certify(transforms, reference, target, cost, 1000) for cost in COSTS]
        for one, other in zip(whole, parts, strict=True):
            assert one.to_dict() == pytest.approx(other.to_dict())


@many
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4, 7]))
def test_blocks_have_the_marginals_of_the_whole_sample(seed, block_size):
    transforms, reference, target = as_tensors(random_case(seed, 3, 3))
    whole = certify(transforms, reference, target, "feature", 1000)
    blocks = certify(transforms, reference, target, "feature", block_size)
    assert blocks.distribution_mismatch >= whole.distribution_mismatch - 1e-12
    coupling, prior = look(transforms, reference, target, "feature", block_size).coupling, target.prior
    on_target = torch.zeros(len(target.labels), dtype=torch.float64).index_add_(0, coupling.target, coupling.mass)
    torch.testing.assert_close(on_target, torch.full_like(on_target, 1 / len(on_target)), rtol=0, atol=1e-12)
    on_reference = torch.zeros(len(reference.labels), dtype=torch.float64)
    on_reference.index_add_(0, coupling.source, coupling.mass)
    expected = (transforms.joint(prior).sum(0) / reference.counts)[reference.labels]
    torch.testing.assert_close(on_reference, expected, rtol=0, atol=1e-12)


def test_golden_example():
    features, labels, weight, bias, prior, label_map = map(torch.from_numpy, golden_example())
    sample, head = Sample(features, labels, 3), SoftmaxHead(weight, bias)
    losses = class_losses(head, sample)
    assert float(sample.prior @ losses) == pytest.approx(1.3099469853, abs=1e-9)
    assert float(prior @ losses) == pytest.approx(1.2948353881, abs=1e-9)
    joint = label_map * prior
    torch.testing.assert_close(joint.sum(1), torch.tensor([0.245, 0.33, 0.425], dtype=torch.float64))
    assert label_mismatch(joint, label_map) == pytest.approx(0.5167147755, abs=1e-9)
    # a target with exactly the prior B D, 245 + 330 + 425 copies of class representatives
    target = Sample(torch.zeros(1000, 2).double(), torch.repeat_interleave(torch.tensor([245, 330, 425])), 3)
    transforms = Transforms(head, FeatureMap.identity(features), label_map, joint / joint.sum(1, keepdim=True))
    certificate = certify(transforms, sample, target, "feature", 1000)
    assert certificate.reweighted_reference_loss == pytest.approx(1.2948353881, abs=1e-9)
    assert certificate.label_mismatch == pytest.approx(0.5167147755, abs=1e-9)
    assert certificate.transformed_reference_loss == pytest.approx(1.2307453652, abs=1e-9)
    assert certificate.tighter_bound < certificate.bound


def test_label_mismatch_of_a_second_golden_example():
    label_map = torch.tensor([[0.7, 0.2, 0.5], [0.3, 0.8, 0.5]], dtype=torch.float64)
    joint = label_map * torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert label_mismatch(joint, label_map) == pytest.approx(0.5941823142, abs=1e-9)


@many
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_lipschitz_constant_is_never_exceeded(seed, num_target):
    (z, _), _, weight, bias, _, _, label_map, _ = random_case(seed, 4, num_target)
    head = SoftmaxHead(torch.from_numpy(weight), torch.from_numpy(bias))
    points = torch.from_numpy(10 * z).requires_grad_()
    for row in torch.from_numpy(label_map):
        loss = -(head.logits(points).softmax(1) @ row).clamp_min(1e-300).log().sum()
        (gradient,) = torch.autograd.grad(loss, points)
        assert float(gradient.norm(dim=1).max()) <= head.lipschitz_constant + 1e-9


def test_a_reference_class_in_use_without_samples_is_an_error():
    transforms, reference, target = as_tensors(random_case(0))
    part = reference.rows((reference.labels != 1).nonzero()[:, 0])
    with pytest.raises(ValueError, match="Expected samples of every reference class"):
        certify(transforms, part, target, "feature", 1000)


def worst_of(problems):
    """The smallest distance of bound and loss over random problems, degenerate ones included, for every ground cost."""
    smallest = float("inf")
    for seed in problems:
        rng = np.random.default_rng(seed)
        case = list(random_case(seed, *rng.integers(1, 5, size=2), spread=float(10 ** rng.uniform(-3, 3))))
        kind = seed % 5
        if kind == 1:  # dead features
            case[0] = (np.zeros_like(case[0][0]), case[0][1])
        elif kind == 2:  # rows twice, also of different classes
            case[1] = (np.repeat(case[1][0][:1], len(case[1][0]), axis=0), case[1][1])
        elif kind == 3:  # a head of rank one
            case[2] = np.outer(rng.normal(size=len(case[2])), rng.normal(size=case[2].shape[1]))
        elif kind == 4:  # large logits
            case[2] = case[2] * 1e3
        for ground_cost in COSTS:
            certificate = certify(*as_tensors(tuple(case)), ground_cost, 1000)
            smallest = min(smallest, certificate.bound - certificate.target_loss)
    return smallest


def test_bound_holds_in_random_problems():
    assert worst_of(range(60)) >= 0


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_bound_holds_in_ten_thousand_random_problems():
    assert worst_of(range(10_000)) >= 0
