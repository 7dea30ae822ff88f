from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from lightning_transfer.data import NpzArrays

GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.normal(size=(30, 5))
LABELS = np.arange(30) % 3


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return write


def all_splits(data):
    return [data.train_dataset, data.val_dataset, data.test_dataset]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_with_drawn_splits(save, dtype):
    data = NpzArrays(save(inputs=FEATURES.astype(dtype), labels=LABELS.astype(np.uint8)))
    assert [len(split) for split in all_splits(data)] == [21, 3, 6]
    assert (data.task, data.input_shape, data.class_names) == ("classification", (5,), ("0", "1", "2"))
    rows = {tuple(row): label for row, label in zip(FEATURES.astype(dtype).astype(np.float32), LABELS, strict=True)}
    for split in all_splits(data):
        assert split.inputs.dtype == torch.float32
        assert split.answers.dtype == torch.int64
        for sample in split:
            assert rows.pop(tuple(sample["inputs"].numpy())) == sample["labels"]
    assert not rows


def test_one_array_a_split(save):
    path = save(x_train=FEATURES, y_train=LABELS, x_test=FEATURES[:4] + 1, y_test=LABELS[:4], other=FEATURES)
    data = NpzArrays(path, inputs="x_{split}", labels="y_{split}", val_fraction=0.2)
    assert [len(split) for split in all_splits(data)] == [24, 6, 4]
    assert torch.equal(data.test_dataset.inputs, torch.from_numpy(FEATURES[:4] + 1).float())
    path = save(train=FEATURES, val=FEATURES[:9], train_y=LABELS, val_y=LABELS[:9])
    data = NpzArrays(path, inputs="{split}", labels="{split}_y")
    assert (len(data.train_dataset), len(data.val_dataset), data.test_dataset) == (30, 9, None)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((30, 4, 6), "auto", (1, 4, 6)),
        ((30, 4, 6, 3), "auto", (3, 4, 6)),
        ((30, 4, 6, 1), "auto", (1, 4, 6)),
        ((30, 3, 4, 6), "auto", (3, 4, 6)),
        ((30, 3, 6, 3), "nchw", (3, 6, 3)),
        ((30, 3, 6, 3), "nhwc", (3, 3, 6)),
    ],
)
def test_images(save, shape, layout, expected):
    images = GENERATOR.integers(0, 256, shape, dtype=np.uint8)
    data = NpzArrays(save(inputs=images, labels=LABELS), layout=layout, val_fraction=0, test_fraction=0)
    assert data.input_shape == expected
    channel_first = torch.from_numpy(images)
    if len(shape) == 3:
        channel_first = channel_first[:, None]
    elif expected != shape[1:]:
        channel_first = channel_first.permute(0, 3, 1, 2)
    assert torch.equal(data.train_dataset.inputs, channel_first)


def test_names(save):
    names = np.array(["rose", "daisy", "tulip"])
    path = save(inputs=FEATURES, labels=LABELS, text=names[LABELS], names=names)
    assert NpzArrays(path, class_names="names").class_names == tuple(names)
    assert NpzArrays(path, class_names=list("abcd")).num_classes == 4  # a class may have no samples
    sorted_names = NpzArrays(path, labels="text", val_fraction=0, test_fraction=0)
    assert sorted_names.class_names == ("daisy", "rose", "tulip")
    assert sorted_names.train_dataset.answers[:3].tolist() == [1, 0, 2]
    given = NpzArrays(path, labels="text", class_names="names", val_fraction=0, test_fraction=0)
    assert given.train_dataset.answers.tolist() == LABELS.tolist()


def test_gaps_in_the_ids_are_kept(save):
    data = NpzArrays(save(inputs=FEATURES, labels=LABELS * 4))
    assert data.num_classes == 9
    assert NpzArrays(save(inputs=FEATURES, labels=LABELS * 4), classes=[8, "4"]).class_names == ("8", "4")


def test_several_labels_and_regression(save):
    path = save(inputs=FEATURES, labels=LABELS[:, None] == np.arange(3), y=FEATURES[:, 0], z=FEATURES[:, :2])
    several = NpzArrays(path)
    assert (several.task, several.num_classes) == ("multilabel", 3)
    assert next(iter(several.predict_dataloader()))["labels"].shape == (21, 3)
    one, two = NpzArrays(path, targets="y"), NpzArrays(path, targets="z", class_names=["left", "right"])
    assert (one.task, one.target_names, two.target_names) == ("regression", ("target_0",), ("left", "right"))
    for split in all_splits(two):
        assert split.answers.dtype == torch.float32
        assert torch.equal(split.answers, split.inputs[:, :2])


class Loaded:
    def __reduce__(self):
        return (print, ("a pickle was executed",))


def test_pickles_are_refused(tmp_path, save, capsys):
    objects = np.empty(30, dtype=object)
    objects[:] = Loaded()
    with pytest.raises(ValueError, match=r"array 'inputs' of .* to be readable, but got: Object arrays"):
        NpzArrays(save(inputs=objects, labels=LABELS)).setup()
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Loaded()))
    with pytest.raises(ValueError, match=r"readable \.npz file"):
        NpzArrays(tmp_path / "pickle.npz").setup()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ({}, {"inputs": "x"}, "hold an array 'x', but it holds: inputs, labels"),
        ({}, {"labels": "y"}, "hold an array 'y', but it holds: inputs, labels"),
        ({}, {"inputs": "{split}", "labels": "{split}_y"}, "hold an array 'train'"),
        ({}, {"class_names": ["a", "b"]}, "`labels` to hold ids from 0 to 1, but got 0 to 2"),
        ({}, {"class_names": ["a", "b", "b"]}, "3 different names"),
        ({"labels": LABELS - 1}, {}, "from 0 to 1, but got -1 to 1"),
        ({"labels": LABELS[:9]}, {}, "as many `labels` as inputs"),
        ({"labels": LABELS.astype(float)}, {}, "`labels` to name .* but got float64"),
        ({"labels": np.full((30, 2), 2)}, {}, "from 0 to 1, but got 2 to 2"),
        ({"labels": np.array(["a", "b", "c"])[LABELS]}, {"class_names": ["a", "b"]}, r"but got \['c'\]"),
        ({"labels": LABELS * 0}, {}, "at least two classes"),
        ({"inputs": FEATURES[:0], "labels": LABELS[:0]}, {}, "to hold samples"),
        ({"inputs": np.where(FEATURES > 2, np.nan, FEATURES)}, {}, "`inputs` to be finite"),
        ({"inputs": FEATURES.astype(int)}, {}, "`inputs` to name uint8 images or"),
        ({"inputs": FEATURES[:, 0]}, {}, r"but got float64 of shape \(30,\)"),
        ({"inputs": np.zeros((30, 4, 4, 3))}, {}, "but got float64"),
        ({"inputs": np.zeros((30, 4, 4, 4), np.uint8)}, {}, "one axis of 1 or 3 channels"),
        ({"inputs": np.zeros((30, 3, 4, 3), np.uint8)}, {}, "`layout` chooses"),
        ({"inputs": np.zeros((30, 3, 4, 4), np.uint8)}, {"layout": "nhwc"}, "layout 'nhwc'"),
        ({"y": np.full(30, np.inf)}, {"targets": "y"}, "`targets` to be finite"),
        ({"y": np.array(["a"] * 30)}, {"targets": "y"}, "array of numbers"),
    ],
)
def test_bad_arrays(save, arrays, arguments, message):
    path = save(**{"inputs": FEATURES, "labels": LABELS, **arrays})
    with pytest.raises(ValueError, match=message):
        NpzArrays(path, **arguments).setup()


def test_bad_files_and_arguments(tmp_path):
    np.save(tmp_path / "one.npy", FEATURES)
    (tmp_path / "text.npz").write_text("not a zip file")
    buffer = io.BytesIO()
    np.savez(buffer, inputs=FEATURES, labels=LABELS)
    (tmp_path / "cut.npz").write_bytes(buffer.getvalue()[:300])
    for name, message in (
        ("missing.npz", "No such file"),
        ("one.npy", "no archive of arrays"),
        ("text.npz", "text.npz, which is no archive"),
        ("cut.npz", r"readable \.npz file"),
    ):
        with pytest.raises(ValueError, match=message):
            NpzArrays(tmp_path / name).setup()
    with pytest.raises(ValueError, match="`layout` to be one of"):
        NpzArrays("x.npz", layout="chw")
    for arguments, message in (
        ({"path": 5}, "`path` to be a path, but got 5"),
        ({"path": "x.npz", "labels": 5}, "`labels` to be the name of an array, but got 5"),
        ({"path": "x.npz", "class_names": 5}, "`class_names` to be names or the name of an array, but got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            NpzArrays(**arguments)
    with pytest.raises(ValueError, match="in the names of both"):
        NpzArrays("x.npz", inputs="x_{split}")
