"""Class priors, label maps and feature maps against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lightning_transfer.relatedness.transforms import (
    assign_classes,
    conditional_of,
    fit_feature_map,
    fixed_label_map,
    label_map_of,
    match_marginals,
)

many = settings(deadline=None, max_examples=60)


def objective(joint, cost):
    prior = joint.sum(0)
    used = joint > 0
    mismatch = -(joint[used] * np.log((joint / np.maximum(prior, 1e-300))[used])).sum()
    return (joint * cost).sum() + mismatch


@many
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.floats(0.01, 2))
def test_assignment_is_close_to_the_best_of_all_choices(seed, targets, references, scale):
    rng = np.random.default_rng(seed)
    cost, prior = scale * rng.random((targets, references)), rng.dirichlet(np.ones(targets))
    conditional, settled = assign_classes(torch.from_numpy(cost), torch.from_numpy(prior))
    conditional = conditional.numpy()
    assert settled
    assert (conditional.sum(1) == 1).all()
    found = objective(prior[:, None] * conditional, cost)
    values = [
        objective(prior[:, None] * np.eye(references)[list(choice)], cost)
        for choice in itertools.product(range(references), repeat=targets)
    ]
    injective = [
        objective(prior[:, None] * np.eye(references)[list(choice)], cost)
        for choice in itertools.permutations(range(references), targets)
    ]
    assert found >= min(values) - 1e-12
    if injective:  # no worse than the best map that shares nothing
        assert found <= min(injective) + 1e-12
    assert found <= max(values) + 1e-12


@many
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_fixed_marginals_are_kept_exactly(seed, targets, references):
    rng = np.random.default_rng(seed)
    cost = rng.random((targets, references))
    prior, columns = rng.dirichlet(np.ones(targets)), rng.dirichlet(np.ones(references))
    conditional, settled = match_marginals(*map(torch.from_numpy, (cost, prior, columns)))
    conditional = conditional.numpy()
    assert settled
    joint = prior[:, None] * conditional
    np.testing.assert_allclose(joint.sum(0), columns, atol=1e-12)
    assert objective(joint, cost) <= objective(np.outer(prior, columns), cost) + 1e-9


@many
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_label_map_has_columns_that_sum_to_one(seed, targets, references):
    rng = np.random.default_rng(seed)
    joint = rng.random((targets, references)) * (rng.random((targets, references)) < 0.5)
    label_map = label_map_of(torch.from_numpy(joint), torch.from_numpy(rng.random((targets, references))))
    torch.testing.assert_close(label_map.sum(0), torch.ones(references).double())
    used = joint.sum(0) > 0
    np.testing.assert_allclose(label_map.numpy()[:, used], joint[:, used] / joint.sum(0)[used])


@pytest.mark.parametrize("kind", ["random", "matched"])
@pytest.mark.parametrize(("targets", "references"), [(1, 1), (3, 3), (3, 7)])
def test_fixed_label_maps_reach_every_target_class(kind, targets, references):
    costs = torch.rand(targets, references, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label_map = fixed_label_map(kind, costs, seed=1)
    assert (label_map.sum(0) == 1).all()
    assert (label_map.sum(1) >= 1).all()
    assert torch.equal(label_map, fixed_label_map(kind, costs, seed=1))
    with pytest.raises(ValueError, match="at least as many reference classes"):
        fixed_label_map(kind, torch.rand(3, 2), seed=0)


def test_a_target_class_that_is_not_reached_is_an_error():
    with pytest.raises(ValueError, match=r"missed \[1\]"):
        conditional_of(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_affine_map_minimises_the_weighted_squares(ridge):
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), rng.random(20)

    def loss(theta):
        matrix, offset = theta[:9].reshape(3, 3), theta[9:]
        return w / w.sum() @ ((x @ matrix.T + offset - y) ** 2).sum(1) + ridge * (matrix**2).sum()

    best = minimize(loss, np.zeros(12), tol=1e-12)
    found = fit_feature_map("affine", *map(torch.from_numpy, (x, y, w)), ridge, 0)
    assert loss(np.concatenate([found.matrix.numpy().ravel(), found.offset.numpy()])) <= best.fun + 1e-8


def test_families_of_maps():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    goals, weights = x @ turn.T + 2, torch.rand(50, generator=generator, dtype=torch.float64)
    for kind in ("orthogonal", "affine"):
        found = fit_feature_map(kind, x, goals, weights, 0.0, 4)
        torch.testing.assert_close(found(x), goals, rtol=0, atol=1e-6)
    low = fit_feature_map("low_rank", x, goals, weights, 0.0, 2)
    assert torch.linalg.matrix_rank(low.matrix, rtol=1e-8) == 2
    assert torch.equal(fit_feature_map("identity", x, goals, weights, 0.0, 4)(x), x)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e6, 1e12, 1e300])
def test_assignments_end_at_any_scale(scale):
    """An absolute tolerance is below the rounding of large costs: gains and losses of it took turns for ever."""
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        costs = scale * torch.rand(12, 9, generator=generator, dtype=torch.float64)
        prior = torch.rand(12, generator=generator, dtype=torch.float64)
        conditional, _ = assign_classes(costs, prior / prior.sum())
        assert bool((conditional.sum(1) == 1).all())
        match_marginals(costs, prior / prior.sum(), torch.full((9,), 1 / 9).double())


def test_solvers_that_are_cut_short_say_so(monkeypatch):
    rng = np.random.default_rng(0)
    cost, prior = torch.from_numpy(rng.random((12, 5))), torch.from_numpy(rng.dirichlet(np.ones(12)))
    columns = torch.full((5,), 0.2).double()
    assert assign_classes(cost, prior)[1]
    assert match_marginals(cost, prior, columns)[1]
    assert not match_marginals(cost, prior, columns, max_rounds=0)[1]
    monkeypatch.setattr("lightning_transfer.relatedness.transforms._SWEEPS", 1)
    assert not assign_classes(cost, prior)[1]
