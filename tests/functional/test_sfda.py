"""SFDA: limits and invariances."""

from __future__ import annotations

import torch
from _helpers import make_inputs

from lightning_transfer.functional.etran import etran_parts
from lightning_transfer.functional.moments import ClassMoments
from lightning_transfer.functional.sfda import sfda, sfda_first_step
from tests.functional._inputs import pair, random_rotation


def test_sfda_of_wide_separable_features_keeps_the_order_that_probabilities_lose():
    # with more features than samples every published score is 1: the logarithm still says which is nearer to it
    features, labels = pair(make_inputs(n=60, d=6))
    good, bad = (torch.cat([scale * features, 0.05 * random_rotation(60)], dim=1) for scale in (3.0, 0.1))
    assert sfda(good, labels) >= sfda(bad, labels)


def test_step_one_of_sfda_follows_exactly_from_moments():
    features, labels = pair(make_inputs(n=300))
    streamed = sfda_first_step(ClassMoments.from_samples(features, labels)).log_posterior(features)
    expected = etran_parts(features, labels)["fit"]  # the mean probability of the same classifier
    own = streamed.exp().gather(1, labels[:, None]).mean()
    torch.testing.assert_close(own, expected)
