from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_transfer.data import DrawnTriangles


def whole(truth, **arguments):
    return DrawnTriangles(truth, samples=40, val_fraction=0, test_fraction=0, **arguments)


def test_corners_are_where_they_are_said_to_be():
    corners, attributes = whole("corners").train_dataset, whole("attributes").train_dataset
    assert torch.equal(corners.inputs, attributes.inputs)
    for picture, places, marks in zip(corners.inputs, corners.truth, attributes.truth, strict=True):
        filled, red, _, striped = map(bool, marks)
        pixels = picture.float()
        drawn = (pixels[0] - pixels[2]) * (1 if red else -1) > 60
        rows, columns = (axis.float() for axis in drawn.nonzero(as_tuple=True))
        top, bottom = places[1] * 64, places[5] * 64
        assert abs(float(rows.min()) - float(top)) < 3
        assert abs(float(rows.max() + 1) - float(bottom)) < 3
        assert abs(float(columns.min()) - float(places[::2].min() * 64)) < 3
        middle = (places.view(3, 2).mean(dim=0) * 64).long()
        assert bool(drawn[middle[1], middle[0]]) == filled
        assert (float(pixels[1, 2].std()) > 20) == striped


def test_task_names_and_seed():
    data = whole("corners")
    assert (data.task, data.name, data.target_names[:2]) == ("regression", "drawn_corners", ("top_x", "top_y"))
    assert data.train_dataset.truth.dtype == torch.float32
    assert bool(((data.train_dataset.truth > 0) & (data.train_dataset.truth < 1)).all())
    assert torch.equal(data.train_dataset.inputs, whole("corners").train_dataset.inputs)
    assert not torch.equal(data.train_dataset.inputs, whole("corners", seed=1).train_dataset.inputs)
    shares = whole("attributes").train_dataset.truth.float().mean(dim=0)
    assert bool(((shares > 0.2) & (shares < 0.8)).all())
    assert [len(DrawnTriangles(samples=50).val_dataset), len(DrawnTriangles(samples=50).test_dataset)] == [5, 10]
    assert np.array_equal(DrawnTriangles(samples=3, image_size=32).train_dataset.inputs.shape[1:], (3, 32, 32))


def test_bad_arguments():
    for arguments, message in (
        ({"truth": "edges"}, "`truth` to be one of"),
        ({"samples": 1}, "`samples`"),
        ({"image_size": 8}, "`image_size`"),
    ):
        with pytest.raises(ValueError, match=message):
            DrawnTriangles(**arguments)
