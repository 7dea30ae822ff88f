from __future__ import annotations

import bz2
import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lightning_transfer.data import EMNIST, KMNIST, MNIST, USPS, FashionMNIST, IDXImages
from lightning_transfer.data.idx import read_idx

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
GENERATOR = np.random.default_rng(0)


def idx_bytes(array):
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_set(root, train="train", test="t10k", classes=10, size=(28, 28), first=0, gz=True, mark="-"):
    root.mkdir(exist_ok=True)
    arrays = {}
    for prefix, n in ((train, 40), (test, 20)):
        images = GENERATOR.integers(0, 256, (n, *size), dtype=np.uint8)
        labels = (np.arange(n) % classes + first).astype(np.uint8)
        images[:, 0, 0] = labels
        arrays[prefix] = images
        for kind, array, dimensions in (("images", images, 3), ("labels", labels, 1)):
            content = idx_bytes(array)
            name = f"{prefix}-{kind}{mark}idx{dimensions}-ubyte" + (".gz" if gz else "")
            (root / name).write_bytes(gzip.compress(content, mtime=0) if gz else content)
    return arrays


class TestReadIdx:
    @settings(deadline=None, max_examples=25)
    @given(st.data(), st.booleans())
    def test_round_trip(self, tmp_path_factory, draw, zipped):
        dtype = np.dtype(draw.draw(st.sampled_from(sorted(CODES))))
        shape = draw.draw(npst.array_shapes(min_dims=1, max_dims=4, max_side=5))
        array = draw.draw(npst.arrays(dtype, shape))
        path = tmp_path_factory.mktemp("idx") / "array"
        path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if zipped else idx_bytes(array))
        read = read_idx(path)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "to start like an IDX file"),
            (b"\x00\x00\x08", "to start like an IDX file"),
            (b"PK\x03\x04 and more", "to start like an IDX file"),
            (b"\x00\x00\x07\x01\x00\x00\x00\x01\x00", "to start like an IDX file"),
            (b"\x00\x00\x08\x00", "to start like an IDX file"),
            (b"\x00\x00\x08\x03\x00\x00\x00\x02", "3 dimensions in its header"),
            (b"\x00\x00\x08\x01\x00\x00\x00\x04abc", r"hold 4 bytes for its shape \(4,\), but got 3"),
            (b"\x00\x00\x08\x01\x00\x00\x00\x02abc", r"hold 2 bytes .* but got 3"),
            (b"\x00\x00\x08\x04" + b"\xff" * 16, "bytes for its shape"),
            (b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"a", "readable IDX file"),
            (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02ab", mtime=0)[:-4], "readable IDX file"),
            (gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x02ab", mtime=0)[:12], "readable IDX file"),
            (b"\x1f\x8bnot gzip at all", "readable IDX file"),
        ],
    )
    def test_malformed(self, tmp_path, content, message):
        path = tmp_path / "broken"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(path)

    def test_no_more_is_read_than_is_declared(self, tmp_path):
        path = tmp_path / "bomb.gz"
        path.write_bytes(gzip.compress(b"\x00\x00\x08\x01\x00\x00\x00\x07" + bytes(2**26), mtime=0))
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"bomb\.gz to hold 7 bytes for its shape \(7,\), but got 8 or more"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
        tracemalloc.stop()

    @pytest.mark.parametrize("zipped", [False, True])
    def test_no_memory_is_made_for_what_is_not_there(self, tmp_path, zipped):
        content = b"\x00\x00\x0e\x03" + b"\x7f\xff\xff\xff" * 3 + bytes(2**20)
        (tmp_path / "lie").write_bytes(gzip.compress(content, mtime=0) if zipped else content)
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"lie to hold 7.* bytes for its shape .*, but got 1048576"):
            read_idx(tmp_path / "lie")
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()

    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"readable IDX file, but got: .*No such file"):
            read_idx(tmp_path / "missing")


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("mark", ["-", "."])
def test_four_files(tmp_path, gz, mark):
    arrays = write_set(tmp_path, gz=gz, mark=mark)
    data = MNIST(tmp_path, val_fraction=0.25)
    assert data.class_names == tuple("0123456789")
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [30, 10, 20]
    assert data.val_dataset.truth.sort().values.tolist() == list(range(10))
    assert torch.equal(data.test_dataset.inputs, torch.from_numpy(arrays["t10k"])[:, None])
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        assert dataset.inputs.dtype == torch.uint8
        assert torch.equal(dataset.inputs[:, 0, 0, 0].long(), dataset.truth)


def test_named_sets(tmp_path):
    write_set(tmp_path)
    for cls, name in ((FashionMNIST, "Ankle boot"), (KMNIST, "wo")):
        data = cls(tmp_path, classes=[name, 0])
        assert data.class_names[0] == name
        assert data.name == {"Ankle boot": "fashion_mnist", "wo": "kmnist"}[name]
    assert IDXImages(tmp_path, class_names=list("abcdefghij"), name="mine").class_names[:2] == ("a", "b")
    assert IDXImages(tmp_path).class_names == tuple("0123456789")


@pytest.mark.parametrize(
    ("variant", "classes", "names"),
    [
        ("balanced", 47, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        ("letters", 26, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("byclass", 62, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
        ("digits", 10, "0123456789"),
    ],
)
def test_emnist_is_stored_transposed(tmp_path, variant, classes, names):
    first = int(variant == "letters")
    prefix = f"emnist-{variant}-"
    arrays = write_set(tmp_path, f"{prefix}train", f"{prefix}test", classes, first=first)
    data = EMNIST(tmp_path, variant)
    assert data.class_names == tuple(names)
    expected = torch.from_numpy(arrays[f"{prefix}test"]).transpose(1, 2)[:, None]
    assert torch.equal(data.test_dataset.inputs, expected)
    assert data.test_dataset.truth.tolist() == [i % classes for i in range(20)]
    with pytest.raises(ValueError, match="`variant` to be one of"):
        EMNIST(tmp_path, "words")


def test_usps_from_idx_and_from_libsvm(tmp_path):
    write_set(tmp_path / "idx", size=(16, 16))
    assert USPS(tmp_path / "idx").input_shape == (1, 16, 16)
    folder = tmp_path / "libsvm"
    folder.mkdir()
    pixels = GENERATOR.integers(0, 256, (20, 256))
    lines = [
        f"{i % 10 + 1} " + " ".join(f"{j + 1}:{value / 127.5 - 1:.6f}" for j, value in enumerate(row))
        for i, row in enumerate(pixels)
    ]
    (folder / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    (folder / "usps.t").write_text("\n".join(lines[:10]))
    data = USPS(folder, val_fraction=0.0)
    assert torch.equal(data.train_dataset.inputs, torch.from_numpy(pixels).to(torch.uint8).reshape(20, 1, 16, 16))
    assert data.train_dataset.truth.tolist() == list(range(10)) * 2
    assert len(data.test_dataset) == 10
    (folder / "usps.t").write_text("1\n" * 10**5)  # a row each, of which none has a pixel
    with pytest.raises(ValueError, match=r"to be a LIBSVM file .* but got 102400000"):
        USPS(folder).setup()
    (folder / "usps.t").write_text("no numbers here")
    with pytest.raises(ValueError, match="to be a LIBSVM file"):
        USPS(folder).setup()


def test_without_test_files(tmp_path):
    write_set(tmp_path)
    for path in tmp_path.glob("t10k*"):
        path.unlink()
    data = MNIST(tmp_path)
    assert len(data.train_dataset) == 36
    assert data.test_dataset is None


def replaced(root, name, content):
    write_set(root, gz=False)
    (root / name).write_bytes(content) if content is not None else (root / name).unlink()
    return MNIST(root)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", None, "images and labels for 'train'"),
        ("train-images-idx3-ubyte", np.zeros((40, 784), np.uint8), "uint8 images, but got uint8"),
        ("train-images-idx3-ubyte", np.zeros((40, 28, 28), np.int16), "uint8 images, but got int16"),
        ("train-labels-idx1-ubyte", np.zeros(39, np.uint8), "to hold 40 integers"),
        ("train-labels-idx1-ubyte", np.zeros(40, np.float32), "to hold 40 integers, but got float32"),
        ("train-labels-idx1-ubyte", np.arange(40, dtype=np.uint8), "labels of 10 classes from 0 on, but got 0 to 39"),
        ("train-labels-idx1-ubyte", np.arange(40, dtype=np.int8) % 3 - 1, "but got -1 to 9"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, array, message):
    with pytest.raises(ValueError, match=message):
        replaced(tmp_path, name, None if array is None else idx_bytes(array)).setup()


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(ValueError, match="`root` to be a folder with IDX files, but got '/no/such'"):
        MNIST("/no/such").setup()
    with pytest.raises(ValueError, match=r"folder with train-images-idx3-ubyte\[.gz\], but got"):
        MNIST(tmp_path).setup()


def test_ids_that_are_no_classes(tmp_path):
    write_set(tmp_path, gz=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(40, 2**31 - 1, np.int32)))
    with pytest.raises(ValueError, match="ids of classes, but got ids up to 2147483647 for 60 samples"):
        IDXImages(tmp_path).setup()
