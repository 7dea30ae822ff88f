from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lightning_transfer.data import PhotoPatches


def test_default():
    data = PhotoPatches()
    assert (data.num_classes, len(data.class_names), data.input_shape) == (20, 20, (3, 48, 48))
    for dataset, patches in ((data.train_dataset, 80), (data.val_dataset, 20), (data.test_dataset, 40)):
        assert dataset.truth.bincount().tolist() == [patches] * 20
        assert dataset.inputs.dtype == torch.uint8
    assert data.train_dataset.truth[:20].tolist() == list(range(20))  # pictures take turns


@pytest.mark.parametrize("size", [16, 48, 64])
@pytest.mark.parametrize(("height", "width"), [(172, 448), (191, 384), (303, 384), (300, 451), (1411, 1411)])
def test_no_pixel_is_in_two_splits(size, height, width):
    data = PhotoPatches(size)
    owner = np.full((height, width), -1)
    for number, corners in enumerate(data.corners(height, width, 0).values()):
        for row, column in corners:
            block = owner[row : row + size, column : column + size]
            assert block.shape == (size, size)
            assert np.isin(block, [-1, number]).all()
            block[:] = number
        assert len(np.unique(corners, axis=0)) == len(corners)
    strips = sorted(data.strips(width).values())
    assert all(later[0] - earlier[1] == 8 for earlier, later in itertools.pairwise(strips))
    columns = [np.flatnonzero((owner == number).any(axis=0)) for number in range(3)]
    assert columns[0].max() < width // 2
    assert columns[1].max() < width // 2 <= columns[2].min()


def test_seed_and_class_choice():
    kwargs = {"train_patches": 4, "val_patches": 0, "test_patches": 2}
    first, again, other = (PhotoPatches(seed=seed, **kwargs) for seed in (5, 5, 6))
    assert torch.equal(first.train_dataset.inputs, again.train_dataset.inputs)
    assert not torch.equal(first.train_dataset.inputs, other.train_dataset.inputs)
    assert first.val_dataset is None
    chosen = PhotoPatches(seed=5, classes=["moon", "coffee"], **kwargs)
    coffee = first.class_names.index("coffee")
    expected = first.train_dataset.inputs[first.train_dataset.truth == coffee]
    assert torch.equal(chosen.train_dataset.inputs[chosen.train_dataset.truth == 1], expected)


def test_too_large_patches():
    with pytest.raises(ValueError, match=r"`patch_size` to leave room for 80 train patches in .* but got 180"):
        PhotoPatches(180).setup()
    with pytest.raises(ValueError, match="`gap`"):
        PhotoPatches(gap=-1)
