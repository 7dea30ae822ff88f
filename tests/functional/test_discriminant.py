"""The discriminant analysis that SFDA, ETran and NCTI share."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_transfer.functional._discriminant import (
    SMALLEST_SHRINKAGE,
    adaptive_shrinkage,
    class_residuals,
    log_posterior,
    shrink,
    shrinkage_strength,
    true_class,
    whiten,
    within_spectrum,
)
from lightning_transfer.functional._rows import labelled_rows


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 4
    features = torch.eye(4, 5, dtype=torch.float64)[labels] + torch.randn(
        60, 5, dtype=torch.float64, generator=generator
    )
    return labelled_rows(features, labels, rotate=True)


def test_the_spectrum_is_that_of_the_covariance_about_the_means(data):
    spectrum = within_spectrum(data)
    residuals = class_residuals(data)
    covariance = residuals.T @ residuals / len(residuals)
    torch.testing.assert_close(spectrum.vectors @ torch.diag(spectrum.values) @ spectrum.vectors.T, covariance)
    assert float(class_residuals(data)[data.classes == 2].mean(0).abs().max()) < 1e-12


@pytest.mark.parametrize("shrinkage", [1e-3, 0.5, 1.0])
def test_whitened_samples_have_the_shrunk_covariance_of_one(data, shrinkage):
    spectrum = within_spectrum(data)
    white = whiten(data, spectrum, shrinkage)
    shrunk = shrink(spectrum.values, data.total_variance, 5, shrinkage)
    assert float(shrunk.sum()) == pytest.approx(float(spectrum.values.sum()))  # the trace stays
    residuals = class_residuals(data._replace(rows=white))
    expected = torch.diag(spectrum.values / shrunk)
    torch.testing.assert_close(residuals.T @ residuals / 60, expected, rtol=0, atol=1e-12)


def test_samples_on_the_means_have_a_round_covariance_that_vanishes():
    flat = shrink(torch.zeros(3, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64), 3, 0.1)
    assert len(flat.unique()) == 1
    assert 0 < float(flat[0]) < 1e-14
    assert shrink(torch.zeros(3), torch.tensor(0.0), 3, 0.1).tolist() == [1, 1, 1]


def test_strength():
    assert shrinkage_strength(0.0) == 1
    assert shrinkage_strength(1e4) == SMALLEST_SHRINKAGE
    assert adaptive_shrinkage(torch.tensor([0.1, 0.3])) == pytest.approx(math.exp(-1.5), rel=1e-6)


def test_posterior_is_bayes_rule(data):
    posterior = log_posterior(data)
    assert float(posterior.exp().sum(1).sub(1).abs().max()) < 1e-12
    means, priors = data.class_means, data.counts / data.counts.sum()
    likelihood = torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), torch.eye(5).double())
    joint = torch.stack([likelihood.log_prob(data.rows - mean) for mean in means], 1) + priors.log()
    torch.testing.assert_close(posterior, joint.log_softmax(1))
    assert torch.equal(true_class(posterior, data), posterior[torch.arange(60), data.classes])
