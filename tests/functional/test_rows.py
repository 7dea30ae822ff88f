"""Centred rows, rotated where that is exact, and their principal axes."""

from __future__ import annotations

import pytest
import torch

from lightning_transfer.functional._rows import centred_rows, labelled_rows, principal_components


def samples(n, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, dtype=dtype, generator=generator) + 3


def test_rotation_keeps_all_inner_products():
    features = samples(7, 30)
    plain, rotated = (centred_rows(features, rotate=rotate) for rotate in (False, True))
    assert (plain.shape, rotated.shape) == ((7, 30), (7, 7))
    torch.testing.assert_close(rotated @ rotated.T, plain @ plain.T)
    assert centred_rows(features.T, rotate=True).shape == (30, 7)


def test_classes_are_compact_and_keep_their_rows():
    features, labels = samples(8, 3), torch.tensor([40, 7, 7, 40, 900, 7, 40, 900])
    data = labelled_rows(features, labels, rotate=True)
    assert data.classes.tolist() == [1, 0, 0, 1, 2, 0, 1, 2]
    assert data.counts.tolist() == [3, 3, 2]
    assert (data.num_features, data.noise) == (3, 0.0)
    assert labelled_rows(features.float(), labels, rotate=True).noise > 0
    centred = features - features.mean(0)
    for part, mean, label in zip(data.by_class(), data.class_means, (7, 40, 900), strict=True):
        torch.testing.assert_close(part, centred[labels == label])
        torch.testing.assert_close(mean, centred[labels == label].mean(0))
    torch.testing.assert_close(data.total_variance, features.var(0, correction=0).sum())
    with pytest.raises(ValueError, match="at least 2 classes, but got 1"):
        labelled_rows(features, torch.zeros(8, dtype=torch.long), rotate=True)


@pytest.mark.parametrize("shrink", [1.0, 1e-5])
def test_principal_components_are_those_of_the_singular_values(shrink):
    rows = samples(40, 6) * torch.tensor([1, 1, 1, shrink, shrink, shrink])
    rows = rows - rows.mean(0)
    projected, values = principal_components(rows, 5)
    lengths = torch.linalg.svdvals(rows)[:5]
    torch.testing.assert_close(values, lengths.square(), rtol=1e-9, atol=0)
    torch.testing.assert_close(projected.norm(dim=0), lengths, rtol=1e-9, atol=0)
    torch.testing.assert_close(principal_components(-rows, 5)[0].abs(), projected.abs())


def test_components_without_variance_are_left_out():
    rows = samples(30, 2) @ samples(2, 9, seed=1)
    rows = rows - rows.mean(0)
    assert principal_components(rows, 9)[0].shape == (30, 2)
    assert principal_components(torch.zeros(5, 3, dtype=torch.float64), 3)[0].shape == (5, 1)
