"""The mixture of Gaussians that N-LEEP fits, beside scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.mixture import GaussianMixture

from lightning_transfer.functional import _mixture
from lightning_transfer.functional._mixture import fit_mixture


def _samples(n, r, classes, apart):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = apart * torch.randn(classes, r, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, r, generator=generator, dtype=torch.float64)
    return centres[labels] + noise * torch.linspace(1, 0.2, r, dtype=torch.float64)


# responsibilities that are soft, of all kinds, and one-hot; few coordinates and more than are looked at first
@pytest.mark.parametrize(
    ("n", "r", "classes", "apart", "components"),
    [
        (300, 3, 3, 0.1, 9), (300, 3, 3, 4.0, 9), (400, 40, 3, 0.5, 4), (300, 80, 5, 1.0, 15), (200, 100, 4, 1.0, 20),
    ],
)  # fmt: skip
def test_equals_scikit_learn(n, r, classes, apart, components):
    samples = _samples(n, r, classes, apart)
    mixture = GaussianMixture(components, random_state=3)
    expected = mixture.fit(samples.numpy()).predict_proba(samples.numpy())
    found, converged = fit_mixture(samples, components, 3)
    assert converged == mixture.converged_
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-9)
    assert torch.allclose(found.sum(1), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)


def test_pairs_that_are_dropped_do_not_matter(monkeypatch):
    samples = _samples(300, 40, 5, 0.6)
    monkeypatch.setattr(_mixture, "_FIRST", 16)
    some, _ = fit_mixture(samples, 5, 0)
    monkeypatch.setattr(_mixture, "_SOFT", -1.0)  # all pairs as a whole
    every, _ = fit_mixture(samples, 5, 0)
    assert int((some == 0).sum()) > int((every == 0).sum())
    torch.testing.assert_close(some, every, rtol=1e-6, atol=1e-38)


def test_few_distances_are_computed_where_nearly_all_is_settled(monkeypatch):
    samples = _samples(300, 80, 20, 3.0)
    looked_at, original = [], _mixture._squares

    def count(factor, samples, mean, places, farthest=None):
        looked_at.append(len(places))
        return original(factor, samples, mean, places, farthest)

    monkeypatch.setattr(_mixture, "_squares", count)
    fit_mixture(samples, 20, 0)
    rounds = len(looked_at) // 20
    assert sum(looked_at) <= 3 * 300 * max(rounds, 1)


def test_singular_covariances_are_refused(monkeypatch):
    monkeypatch.setattr(_mixture, "_REGULARISATION", 0.0)
    with pytest.raises(ValueError, match="covariance is singular"):
        fit_mixture(_samples(30, 8, 2, 1.0), 10, 0)
