"""The record of the bound: outward rounding, means over parts, plain values."""

import math

import numpy as np
import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import Certificate, TaskRelatednessResult
from lightning_transfer.relatedness.bound import Transforms, certify
from lightning_transfer.relatedness.head import SoftmaxHead
from lightning_transfer.relatedness.sample import Sample
from lightning_transfer.relatedness.transforms import FeatureMap

VALUES = {
    "reweighted_reference_loss": 0.5,
    "label_mismatch": 0.125,
    "distribution_mismatch": 0.25,
    "transformed_reference_loss": 0.5,
    "target_loss": 0.75,
    "target_accuracy": 0.5,
    "num_reference": 10,
    "num_target": 30,
    "guessing": 1.0,
}


def test_bounds_and_vacuity():
    certificate = Certificate(**VALUES)
    assert (certificate.bound, certificate.tighter_bound, certificate.vacuous) == (0.875, 0.75, False)
    assert Certificate(**{**VALUES, "guessing": 0.8}).vacuous
    assert Certificate(**{**VALUES, "transformed_reference_loss": 0.7}).tighter_bound == certificate.bound
    assert Certificate(**VALUES, of_losses=True).tighter_bound == certificate.bound
    assert Certificate.from_dict(certificate.to_dict()) == certificate
    with pytest.raises(TypeError):
        Certificate.from_dict({"bound": 1.0})


def test_mean_is_weighted_by_the_target_samples():
    one = Certificate(**VALUES)
    other = Certificate(**{**VALUES, "label_mismatch": 0.5, "num_target": 10, "optimal": False})
    mean = Certificate.mean([one, other])
    assert mean.label_mismatch == pytest.approx(0.125 * 0.75 + 0.5 * 0.25)
    assert mean.bound == pytest.approx(0.75 * one.bound + 0.25 * other.bound)
    assert mean.bound >= math.fsum([0.75 * one.bound, 0.25 * other.bound])
    assert (mean.num_target, mean.num_reference, mean.optimal) == (40, 20, False)


@pytest.mark.parametrize("ground_cost", ["feature", "logit_range", "logit_margin"])
def test_identical_tasks_are_where_rounding_decides(ground_cost):
    """Nothing but rounding stands between the bound and the loss; whatever the order and precision of the sums."""
    rng = np.random.default_rng(0)
    for n, width, scale in ((7, 2, 1.0), (60, 5, 1e3), (500, 40, 1e-3)):
        labels = rng.permutation(np.arange(n) % 3)
        features, weight = scale * rng.normal(size=(n, width)), rng.normal(size=(3, width)) / scale
        sample = Sample(torch.from_numpy(features), torch.from_numpy(labels), 3)
        head = SoftmaxHead(torch.from_numpy(weight), torch.from_numpy(rng.normal(size=3)))
        identity = torch.eye(3).double()
        transforms = Transforms(head, FeatureMap.identity(sample.features), identity, identity)
        certificate = certify(transforms, sample, sample, ground_cost, 1000)
        assert certificate.label_mismatch == 0
        assert certificate.distribution_mismatch < 1e-15
        logits = features.astype(np.longdouble) @ weight.T.astype(np.longdouble) + head.bias.numpy()
        exact = np.log(np.exp(logits).sum(1)) - logits[np.arange(n), labels]
        for losses in (exact, exact.astype(np.float64)):
            assert certificate.bound >= losses.mean()
            assert certificate.bound >= losses[::-1].mean()
            assert certificate.bound >= float(np.add.accumulate(losses)[-1] / n)
        assert 0 < certificate.rounding < 1e-9 * max(1, certificate.bound)


@pytest.mark.parametrize("seed", range(4))
def test_bound_is_not_below_the_loss_after_a_round_trip(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(60) % 3
    features = torch.eye(3)[labels] * 4 + torch.randn(60, 3, generator=generator)
    result = task_relatedness(features, labels, features, labels, tau=0.5, rounds=1, folds=1)
    assert result.label_mismatch == 0
    assert result.distribution_mismatch < 1e-12
    for each in (result, TaskRelatednessResult.from_state(result.state_dict())):
        log_p = each.log_probabilities(features)
        order = torch.randperm(60, generator=generator)
        losses = -log_p[order].gather(1, labels[order, None])
        assert each.bound >= max(each.target_loss, float(losses.mean()), math.fsum(losses[:, 0].tolist()) / 60)
    written = result.to_dict()
    assert written["bound"] == result.bound >= written["target_loss"]
