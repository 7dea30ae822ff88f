"""The working space: standardisation, common scale, projection, and rounding, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_transfer.relatedness.frame import Frame


@pytest.fixture
def data():
    draw = np.random.default_rng(0)
    mixing = np.diag([4.0, 3.0, 2.0, 1.0, 0.2])
    reference, target = draw.normal(size=(50, 5)) @ mixing + 3, 10 * draw.normal(size=(40, 5)) @ mixing
    return torch.from_numpy(reference), torch.from_numpy(target)


def fitted(data, standardize=True, common_scale=True, dimension=None):
    return Frame.fit(*data, standardize, common_scale, dimension)


def test_each_side_is_standardised_by_its_own_statistics_with_a_floor(data):
    frame = fitted(data)
    for side, features in zip((frame.reference, frame.target), data, strict=True):
        values = features.numpy()
        deviation = values.std(0)
        scale = np.maximum(deviation, 0.05 * np.sqrt((deviation**2).mean()))
        np.testing.assert_allclose(side(features).numpy(), (values - values.mean(0)) / scale, atol=2**-24)
    silent = data[0].clone()
    silent[:, 0] = 7 + 1e-3 * silent[:, 0]
    rows = fitted((silent, data[1])).reference(silent)
    assert float(rows[:, 0].std()) < 0.1 < float(rows[:, 1].std())


def test_features_without_spread_are_centred_only(data):
    same = data[0][:1].repeat(6, 1)
    assert torch.equal(fitted((same, data[1])).reference(same), torch.zeros(6, 5).double())


def test_common_scale_divides_both_sides_by_that_of_the_reference(data):
    frame = fitted(data, standardize=False)
    unit = np.sqrt((data[0].numpy() ** 2).mean())
    for side, features in zip((frame.reference, frame.target), data, strict=True):
        np.testing.assert_allclose(side(features).numpy(), features.numpy() / unit, atol=2**-24)
    raw = fitted(data, standardize=False, common_scale=False)
    np.testing.assert_allclose(raw.target(data[1]).numpy(), data[1].numpy(), atol=2**-24)


@pytest.mark.parametrize("standardize", [True, False])
def test_basis_spans_the_leading_directions_of_both_sides(data, standardize):
    frame = fitted(data, standardize, dimension=2)
    whole = replace(frame, basis=None)
    rows = [side(features).numpy() for side, features in zip((whole.reference, whole.target), data, strict=True)]
    moment = sum(part.T @ part / len(part) for part in rows)
    basis = frame.basis.numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-12)
    assert np.trace(basis @ moment @ basis.T) == pytest.approx(np.linalg.eigvalsh(moment)[-2:].sum(), rel=1e-5)
    np.testing.assert_allclose(frame.target(data[1]).numpy(), rows[1] @ basis.T, atol=1e-12)
    assert fitted(data, standardize, dimension=5).basis is None


def test_the_last_bit_of_an_input_decides_nothing(data):
    frame = fitted(data)
    moved = torch.nextafter(data[0], data[0] + 1)
    assert not torch.equal(moved, data[0])
    different = (frame.reference(moved) != frame.reference(data[0])).sum()
    assert int(different) == 0
    assert torch.equal(frame.reference(data[0]) * 2**24, (frame.reference(data[0]) * 2**24).round())


def test_push_is_applied_to_the_reference_last(data):
    frame = fitted(data)
    matrix, offset = torch.arange(25).reshape(5, 5).double() / 25, torch.arange(5).double()
    pushed = replace(frame, push_matrix=matrix, push_offset=offset)
    expected = frame.reference(data[0]).numpy() @ matrix.numpy().T + offset.numpy()
    np.testing.assert_allclose(pushed.reference(data[0]).numpy(), expected, atol=1e-12)
    assert torch.equal(pushed.target(data[1]), frame.target(data[1]))
