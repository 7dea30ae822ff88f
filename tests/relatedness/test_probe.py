"""Classifiers whose strength is chosen on samples that they were not fitted to."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_transfer.relatedness.probe import scaled, scaled_losses, validated
from lightning_transfer.relatedness.sample import Sample


def draw(generator, n, width, gap):
    labels = torch.randint(4, (n,), generator=generator)
    features = torch.randn(n, width, generator=generator, dtype=torch.float64)
    features[:, :4] += gap * torch.nn.functional.one_hot(labels, 4)
    return Sample(features, labels, 4)


@pytest.mark.parametrize(("n", "width", "gap"), [(60, 50, 3.0), (400, 10, 2.0), (60, 50, 0.0)])
def test_loss_on_other_samples_is_below_guessing_or_near_it(n, width, gap):
    generator = torch.Generator().manual_seed(0)
    train, test = draw(generator, n, width, gap), draw(generator, 4000, width, gap)
    chosen = validated(train, train.prior)
    loss = float(cross_entropy(chosen.head.logits(test.features), test.labels))
    guess = torch.tensor(4.0).log()
    assert loss < guess - 0.2 if gap else loss < guess + 0.05
    assert set(chosen.rest.labels.tolist()) <= {0, 1, 2, 3}
    assert 0 < len(chosen.rest.labels) < n / 2


def test_a_handful_of_held_out_samples_that_are_all_told_apart_does_not_make_it_sure():
    losses = []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        train, test = draw(generator, 20, 100, 4.0), draw(generator, 500, 100, 4.0)
        losses.append(float(cross_entropy(validated(train, train.prior).head.logits(test.features), test.labels)))
    assert max(losses) < 1.5  # guessing costs 1.39


def test_classes_without_samples_and_single_samples():
    features = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sample = Sample(features, torch.tensor([0, 2, 3, 4, 5]), 6)
    prior = torch.tensor([0.2, 0, 0.2, 0.2, 0.2, 0.2]).double()
    chosen = validated(sample, prior)
    assert len(chosen.rest.labels) == 0
    p = chosen.head.logits(features).softmax(1)
    assert bool(p.isfinite().all())
    assert float(p[:, 1].max()) < 1e-3


@pytest.mark.parametrize("features", [torch.zeros(40, 3), torch.full((40, 3), 1e8), torch.eye(3).repeat(14, 1)[:40]])
def test_degenerate_features_give_finite_classifiers(features):
    sample = Sample(features.double(), torch.arange(40) % 3, 3)
    head = validated(sample, sample.prior).head
    assert bool(head.weight.isfinite().all() and head.bias.isfinite().all())


def test_a_share_of_a_head_lies_between_guessing_and_the_head():
    sample = draw(torch.Generator().manual_seed(0), 60, 5, 2.0)
    head = validated(sample, sample.prior).head
    torch.testing.assert_close(scaled(head, 1.0, sample.prior).bias, head.bias)
    nothing = scaled(head, 0.0, sample.prior)
    torch.testing.assert_close(nothing.logits(sample.features).softmax(1), sample.prior.expand(60, 4))


def test_losses_of_all_shares_are_those_of_the_scaled_heads():
    sample = draw(torch.Generator().manual_seed(0), 60, 5, 2.0)
    head, shares = validated(sample, sample.prior).head, (1.0, 0.3, 0.0)
    label_map = torch.tensor([[1.0, 0.25, 0.0, 0.0], [0.0, 0.75, 1.0, 1.0]]).double()
    coarse = Sample(sample.features, sample.labels // 2, 2)
    own = scaled_losses(head, shares, sample.prior, sample)
    mapped = scaled_losses(head, shares, sample.prior, coarse, label_map)
    for share in shares:
        p = scaled(head, share, sample.prior).logits(sample.features).softmax(1)
        torch.testing.assert_close(own[share], -p.gather(1, sample.labels[:, None])[:, 0].log())
        q = p @ label_map.T
        torch.testing.assert_close(mapped[share], -q.gather(1, coarse.labels[:, None])[:, 0].log())
