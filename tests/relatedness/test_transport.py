"""Exact transport, and what happens when the solver gives up."""

import numpy as np
import ot
import pytest
import torch
from _reference.relatedness import transport_cost
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness.transport import exact_plan, feasible_plan, monotone_plan

many = settings(deadline=None, max_examples=60)


def problem(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.random((n, m)), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))


@many
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7))
def test_plan_is_optimal_and_feasible(seed, n, m):
    cost, a, b = problem(seed, n, m)
    plan, optimal = exact_plan(cost, a, b)
    assert optimal
    assert (plan * cost).sum() == pytest.approx(transport_cost(cost, a, b), abs=1e-9)
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-14)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-14)


@many
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7), st.floats(0, 2))
def test_any_plan_is_made_feasible(seed, n, m, scale):
    rng = np.random.default_rng(seed)
    _, a, b = problem(seed, n, m)
    plan = feasible_plan(scale * rng.random((n, m)) / (n * m), a, b)
    assert plan.min() >= 0
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-13)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-13)


def test_a_solver_that_gives_up_is_noticed_and_its_plan_made_feasible():
    cost, a, b = problem(0, 60, 60)
    plan, optimal = exact_plan(cost, a, b, max_iter=2)
    assert not optimal
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-13)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-13)
    best, _ = exact_plan(cost, a, b)
    assert (plan * cost).sum() >= (best * cost).sum()


def test_the_result_names_a_solver_that_gives_up(monkeypatch, blobs):
    solve = ot.emd
    monkeypatch.setattr(ot, "emd", lambda a, b, cost, **options: solve(a, b, cost, **{**options, "numItermax": 1}))
    result = task_relatedness(*blobs(), tau=0.5, ground_cost="feature")
    assert not result.converged
    assert any("not solved to optimality" in message for message in result.messages)
    assert result.bound >= result.target_loss
    assert "NOT converged" in str(result)


@many
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8))
def test_on_the_line_sorting_is_as_good_as_the_exact_solver(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b, weight = rng.normal(size=n).round(1), rng.normal(size=m), rng.dirichlet(np.ones(n))
    first, second, mass = monotone_plan(*map(torch.from_numpy, (a, weight, b)))
    assert len(mass) <= n + m
    on_source = torch.zeros(n).double().index_add_(0, first, mass)
    on_target = torch.zeros(m).double().index_add_(0, second, mass)
    np.testing.assert_allclose(on_source.numpy(), weight, atol=1e-14)
    np.testing.assert_allclose(on_target.numpy(), 1 / m, atol=1e-14)
    cost = np.maximum(b[None] - a[:, None], 0)
    plan, _ = exact_plan(cost, weight, np.full(m, 1 / m))
    assert float(mass @ torch.from_numpy(cost)[first, second]) == pytest.approx((plan * cost).sum(), abs=1e-12)


@many
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_groups_are_coupled_one_by_one(seed, groups):
    rng = np.random.default_rng(seed)
    of_source = np.concatenate([np.arange(groups), rng.integers(groups, size=9)])
    of_target = np.concatenate([np.arange(groups), rng.integers(groups, size=7)])
    a, b, weight = rng.normal(size=len(of_source)), rng.normal(size=len(of_target)), rng.random(len(of_source))
    for k in range(groups):
        weight[of_source == k] /= weight[of_source == k].sum()
    first, second, mass = monotone_plan(*map(torch.from_numpy, (a, weight, b, of_source, of_target)))
    assert (of_source[first.numpy()] == of_target[second.numpy()]).all()
    for k in range(groups):
        mine = torch.from_numpy(of_source)[first] == k
        parts = a[of_source == k], weight[of_source == k], b[of_target == k]
        alone = monotone_plan(*map(torch.from_numpy, parts))
        cost = (torch.from_numpy(b)[second] - torch.from_numpy(a)[first]).clamp_min(0)[mine] @ mass[mine]
        expected = (torch.from_numpy(parts[2])[alone[1]] - torch.from_numpy(parts[0])[alone[0]]).clamp_min(0) @ alone[2]
        assert float(cost) == pytest.approx(float(expected), abs=1e-12)
