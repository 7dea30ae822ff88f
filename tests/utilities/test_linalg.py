"""Linear algebra with relative cut-offs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

from lightning_transfer.utilities.linalg import (
    _pools,
    add_gram_,
    centred,
    cholesky,
    eigh,
    gram,
    left_svd,
    mirror_upper_,
    rank_cutoff,
    thin_svd,
    whitened_square,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("d", [3, 256, 257, 700])
def test_gram_matrices_are_added_by_their_upper_triangles(d):
    rows, start = normal(40, d), normal(d, d, seed=1)
    start = start + start.T
    total = mirror_upper_(add_gram_(start.clone(), rows))
    torch.testing.assert_close(total, start + rows.T @ rows)
    assert torch.equal(total, total.T)
    copy, parts = rows.clone(), torch.stack([start, start])
    add_gram_(parts[1], rows[1::3])  # samples taken in turn, and one of several sums
    torch.testing.assert_close(mirror_upper_(parts[1]), start + rows[1::3].T @ rows[1::3])
    assert torch.equal(parts[0], start)
    assert torch.equal(rows, copy)
    beside = torch.cat([start, start], dim=1)[:, :d]  # no whole rows of memory
    torch.testing.assert_close(mirror_upper_(add_gram_(beside, rows.float().double())), total, rtol=1e-4, atol=1e-4)
    empty = add_gram_(start.clone(), rows[:0])
    assert torch.equal(empty, start)


@pytest.mark.parametrize("d", [3, 256, 257, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symmetric_matrices_are_taken_apart_as_by_pytorch(d, dtype):
    rows = normal(2 * d, d).to(dtype)
    copy, square = rows.clone(), rows.T @ rows
    found, precision = gram(rows), {torch.float32: 1e-3, torch.float64: 1e-9}[dtype]
    torch.testing.assert_close(found, square)
    torch.testing.assert_close(gram(rows.T), rows @ rows.T)  # a view in another order of memory
    kept = found.clone()
    values, vectors = eigh(found)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(square), rtol=precision, atol=0)
    torch.testing.assert_close(vectors * values @ vectors.T, square, rtol=precision, atol=precision * float(values[-1]))
    factor = cholesky(found)
    torch.testing.assert_close(factor, torch.linalg.cholesky(square), rtol=precision, atol=precision)
    assert torch.equal(factor, factor.tril())
    assert cholesky(found - 2 * values[0] * torch.eye(d, dtype=dtype)) is None
    assert torch.equal(found, kept)
    assert torch.equal(rows, copy)


@pytest.mark.parametrize(("d", "threads", "expected"), [(300, 2, 1), (1600, 1, 1), (1600, 2, 2)])
def test_threads_of_scipy_are_those_of_pytorch_and_one_for_what_is_small(monkeypatch, d, threads, expected):
    counts = []

    def decompose(matrix, driver):
        counts.extend(pool.num_threads for pool in _pools().lib_controllers)
        return np.zeros(len(matrix)), matrix

    monkeypatch.setattr("scipy.linalg.eigh", decompose)
    before = torch.get_num_threads()
    with ThreadpoolController().limit(limits=2):
        torch.set_num_threads(threads)
        try:
            allowed = [pool.num_threads for pool in _pools().lib_controllers]  # fewer than two on a machine of one core
            eigh(torch.zeros(d, d, dtype=torch.float64))
            assert [pool.num_threads for pool in _pools().lib_controllers] == allowed
        finally:
            torch.set_num_threads(before)
    assert counts == [min(expected, *allowed)] * len(counts)
    assert counts


def test_matrices_that_carry_a_graph_keep_it():
    rows = normal(300, 257).requires_grad_()
    values, _ = eigh(gram(rows))
    (values.sum() + cholesky(gram(rows)).diagonal().sum()).backward()
    assert bool(rows.grad.isfinite().all())


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e6, -1e12])
def test_centring_loses_no_digit_to_the_mean(mean):
    integers = torch.randint(-8, 8, (64, 5), generator=torch.Generator().manual_seed(0)).double()
    rows, found = centred(integers + mean)
    torch.testing.assert_close(rows, integers - integers.mean(0), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found, integers.mean(0) + mean)


@pytest.mark.parametrize("value", [0.1, -1e8 / 3, 1e-300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_vary_is_exactly_zero(value, dtype):
    features = torch.full((37, 3), value, dtype=dtype)
    features[:, 1] = torch.arange(37)
    copy = features.clone()
    rows, _ = centred(features)
    assert not rows[:, [0, 2]].any()
    assert rows[:, 1].tolist() == [i - 18.0 for i in range(37)]
    assert torch.equal(features, copy)


def test_spread_of_a_millionth_of_the_mean_is_no_noise():
    rows, _ = centred(1 + 1e-6 * normal(50, 4))
    assert bool((rows.square().sum(0) > 0).all())


@pytest.mark.parametrize("shape", [(9, 4), (5, 5), (3, 8), (4, 1), (1, 4)])
def test_singular_values_of_any_shape(shape):
    rows = normal(*shape)
    left, values, right = thin_svd(rows)
    torch.testing.assert_close(left * values @ right.T, rows)
    for basis in (left, right):
        torch.testing.assert_close(basis.T @ basis, torch.eye(min(shape), dtype=rows.dtype))
    torch.testing.assert_close(values, torch.linalg.svdvals(rows))
    for part, same in zip(left_svd(rows), (left, values), strict=True):
        torch.testing.assert_close(part, same)


def test_cutoff_follows_the_scale():
    for scale in (1e-30, 1.0, 1e30):
        assert float(rank_cutoff(torch.tensor(scale, dtype=torch.float64), 10, 1000)) == pytest.approx(
            2.2e-13 * scale, rel=0.1
        )


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_whitened_squares_of_full_rank(scale):
    rows = normal(30, 6) * torch.logspace(0, 4, 6, dtype=torch.float64) * scale
    rhs = rows.T @ normal(30, 2, seed=1)
    square, rank, condition = whitened_square(rows.T @ rows, rhs, 30)
    torch.testing.assert_close(square, (rhs * torch.linalg.solve(rows.T @ rows, rhs)).sum(0), rtol=1e-8, atol=0)
    assert rank == 6
    assert 1 <= condition < 100  # of the features at one scale


def test_whitened_squares_of_dependent_dead_and_no_features():
    rows = normal(30, 4)
    dependent = torch.cat([rows, rows[:, :2] + rows[:, 2:], torch.zeros(30, 1)], dim=1)
    answers = normal(30, 2, seed=1)
    square, rank, condition = whitened_square(dependent.T @ dependent, dependent.T @ answers, 30)
    expected, _, _ = whitened_square(rows.T @ rows, rows.T @ answers, 30)
    torch.testing.assert_close(square, expected, rtol=1e-9, atol=0)
    assert rank == 4
    assert condition < 1e4
    square, rank, condition = whitened_square(torch.zeros(2, 2), torch.zeros(2, 3), 30)
    assert (square.tolist(), rank, condition) == ([0.0] * 3, 0, 1.0)
