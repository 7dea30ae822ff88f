from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from lightning_transfer.data import Digits


def test_pixels_and_labels_are_those_of_scikit_learn():
    data, raw = Digits(), load_digits()
    assert data.class_names == tuple("0123456789")
    splits = (data.train_dataset, data.val_dataset, data.test_dataset)
    images = torch.cat([split.inputs for split in splits])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert torch.equal(
        images.double().sum((1, 2, 3)).sort().values,
        torch.from_numpy(raw.images * (255 / 16)).round().sum((1, 2)).sort().values,
    )
    assert torch.cat([split.truth for split in splits]).bincount().tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]


def test_splits_are_disjoint_and_stratified():
    data = Digits(image_size=None, seed=1)
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [1018, 180, 599]
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        share = dataset.truth.bincount() / torch.tensor([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
        assert share.max() - share.min() < 0.01


def test_enlarged():
    small, large = Digits(), Digits(image_size=16)
    assert large.input_shape == (1, 16, 16)
    assert torch.equal(small.train_dataset.truth, large.train_dataset.truth)
    difference = small.train_dataset.inputs.float().mean((1, 2, 3)) - large.train_dataset.inputs.float().mean((1, 2, 3))
    assert difference.abs().max() < 1


@pytest.mark.parametrize("size", [0, 7, 2.5])
def test_bad_size(size):
    with pytest.raises(ValueError, match="`image_size`"):
        Digits(image_size=size)
