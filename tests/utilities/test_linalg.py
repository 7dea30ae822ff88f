from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import lapack

from lightning_transfer.utilities.linalg import Spectrum


def matrices(d: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(d)
    rows = torch.randn(2 * d, d, dtype=torch.float64, generator=generator)
    scales = torch.logspace(0, -6, d, dtype=torch.float64)
    return {
        "full rank": rows.T @ rows,
        "deficient": rows[: d // 3].T @ rows[: d // 3],
        "graded": (rows * scales).T @ (rows * scales),
        "one value": 3 * torch.eye(d, dtype=torch.float64),
        "zero": torch.zeros(d, d, dtype=torch.float64),
    }


@pytest.mark.parametrize("kind", matrices(2))
@pytest.mark.parametrize("d", [1, 2, 40, 300])  # the last is wide enough to be left in factors
def test_spectrum_is_that_of_the_matrix(d, kind):
    matrix = matrices(d)[kind]
    columns = torch.randn(d, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before = matrix.clone(), columns.clone()
    spectrum = Spectrum.of(matrix)
    expected = np.linalg.eigvalsh(matrix.numpy())
    np.testing.assert_allclose(spectrum.values, expected, rtol=0, atol=1e-13 * max(1, expected[-1]))
    along = spectrum.along(columns)
    resolvent = np.linalg.solve(matrix.numpy() + np.eye(d), columns.numpy())
    found = along.T @ (along / (1 + spectrum.values[:, None]))
    np.testing.assert_allclose(found, columns.numpy().T @ resolvent, rtol=0, atol=1e-13 * d * 10)
    assert torch.equal(matrix, before[0])
    assert torch.equal(columns, before[1])
    rest = spectrum.without_first(d // 2)
    assert torch.equal(rest.values, spectrum.values[d // 2 :])
    assert torch.equal(rest.along(columns), along[d // 2 :])


def test_wide_spectra_are_left_in_factors_on_a_cpu_and_agree_with_the_product():
    matrix = matrices(300)["full rank"]
    factored, whole = Spectrum.of(matrix), Spectrum.of(matrix.clone().requires_grad_())
    assert (factored.reflectors is not None) == hasattr(lapack, "dstevd")  # from SciPy 1.16 on
    assert whole.reflectors is None
    columns = torch.eye(300, dtype=torch.float64)[:, :7]
    np.testing.assert_allclose(factored.along(columns).abs(), whole.along(columns).abs().detach(), atol=1e-10)
    assert Spectrum.of(matrix.float()).values.dtype == torch.float32


def test_a_decomposition_that_fails_is_made_another_way(monkeypatch):
    matrix = matrices(300)["full rank"]
    monkeypatch.setattr(lapack, "dstevd", lambda diagonal, off: (diagonal, np.eye(300), 1), raising=False)
    spectrum = Spectrum.of(matrix)
    assert spectrum.reflectors is None
    np.testing.assert_allclose(spectrum.values, np.linalg.eigvalsh(matrix.numpy()), rtol=1e-12)
