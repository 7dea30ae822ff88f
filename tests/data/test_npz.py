from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from lightning_transfer.data import NpzArrays, reading

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
        assert split.truth.dtype == torch.int64
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
    assert sorted_names.train_dataset.truth[:3].tolist() == [1, 0, 2]
    given = NpzArrays(path, labels="text", class_names="names", val_fraction=0, test_fraction=0)
    assert given.train_dataset.truth.tolist() == LABELS.tolist()


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
        assert split.truth.dtype == torch.float32
        assert torch.equal(split.truth, split.inputs[:, :2])


@pytest.mark.parametrize("labels", [LABELS, LABELS % 2, np.array(["rose", "daisy", "tulip"])[LABELS], LABELS % 2 == 1])
def test_a_column_of_labels_is_class_ids(save, labels):
    flat, column = (
        NpzArrays(save(inputs=FEATURES, labels=given), val_fraction=0, test_fraction=0)
        for given in (labels, labels[:, None])
    )
    assert column.task == "classification"
    assert column.class_names == flat.class_names
    assert torch.equal(column.train_dataset.truth, flat.train_dataset.truth)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_zeros_and_ones_of_any_type(save, dtype):
    marks = LABELS[:, None] == np.arange(3)
    data = NpzArrays(save(inputs=FEATURES, labels=marks.astype(dtype)), val_fraction=0, test_fraction=0)
    assert (data.task, data.train_dataset.truth.dtype) == ("multilabel", torch.int64)
    assert data.train_dataset.truth.tolist() == marks.astype(int).tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_targets_far_from_zero_keep_their_differences(save, dtype):
    seconds = 1_700_000_000 + np.arange(30)
    data = NpzArrays(save(inputs=FEATURES, t=seconds.astype(dtype)), targets="t", val_fraction=0.2, test_fraction=0)
    assert data.train_dataset.truth.dtype == data.val_dataset.truth.dtype == torch.float64
    found = torch.cat([data.train_dataset.truth, data.val_dataset.truth])[:, 0]
    assert sorted(found.tolist()) == seconds.tolist()


def test_features_far_from_zero_are_remarked_upon(save):
    data = NpzArrays(save(inputs=FEATURES + np.array([0, 0, 0, 1e7, 1e8]), labels=LABELS))
    with pytest.warns(UserWarning, match="float32 rounds too much away of 2 of 5 features"):
        data.setup()


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
        ({"labels": LABELS * 10**12}, {}, "ids of classes, but got ids up to 2000000000000 for 30 samples"),
        ({"labels": LABELS[:9]}, {}, "as many `labels` as inputs"),
        ({"labels": np.full((30, 2), 0.5)}, {}, r"`labels` to name .* zeros and ones \(n, l\), but got float64"),
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


class TestLies:
    """Headers that claim what the archive does not hold are refused before memory is made for it."""

    def write(self, path, header_shape, content, dtype="<f8", version=1):
        header = (
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {header_shape}, }}".encode().ljust(117) + b"\n"
        )
        size = struct.pack("<H" if version == 1 else "<I", len(header))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inputs.npy", b"\x93NUMPY" + bytes([version, 0]) + size + header + content)
            buffer = io.BytesIO()
            np.save(buffer, LABELS)
            archive.writestr("labels.npy", buffer.getvalue())
        return path

    def test_as_claimed(self, tmp_path):
        for version in (1, 2):
            path = self.write(tmp_path / "a.npz", FEATURES.shape, FEATURES.tobytes(), version=version)
            assert NpzArrays(path).input_shape == (5,)

    @pytest.mark.parametrize(
        ("shape", "content", "message"),
        [
            ((30, 10**10), b"", r"2400000000000 bytes claimed for shape \(30, 10000000000\), but 0 held"),
            ((30, 5), bytes(10**7), "1200 bytes claimed for shape .*, but 10000000 held"),
            ((2**15, 8), bytes(2**21), "array to hold at most 524288 bytes .* but got 2097152"),
            ("(30, 5", FEATURES.tobytes(), "to be readable, but got"),
            ("__import__('os').getcwd()", FEATURES.tobytes(), "to be readable, but got"),
        ],
        ids=["huge", "more than claimed", "bomb", "unclosed", "code"],
    )
    def test_lies(self, tmp_path, shape, content, message, monkeypatch):
        monkeypatch.setattr(reading, "_FREE", 2**19)
        path = self.write(tmp_path / "a.npz", shape, content)
        tracemalloc.start()
        with pytest.raises(ValueError, match=rf"array 'inputs' of .*a\.npz to be readable, .*{message}|{message}"):
            NpzArrays(path).setup()
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()
