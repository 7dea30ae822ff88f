from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image
from torch import nn

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone, Preprocessing
from lightning_transfer.data import Samples, Shards, as_datamodule
from lightning_transfer.data.shards import find_shards

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


def png(index):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[index]).save(buffer, "png")
    return buffer.getvalue()


def sample(index):
    return {"png": png(index), "cls": str(index % 3).encode(), "json": json.dumps({"kind": "abc"[index % 3]}).encode()}


def write(path, samples, mode="w"):
    with tarfile.open(path, mode) as archive:
        for stem, files in samples.items():
            for end, content in files.items():
                info = tarfile.TarInfo(f"{stem}.{end}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    for number in range(3):
        write(
            tmp_path / f"photos-{number:03}.tar", {f"deep/{i:04}": sample(i) for i in range(4 * number, 4 * number + 4)}
        )
    return tmp_path


def whole(path, **arguments):
    return Shards(path, **{"val_fraction": 0, "test_fraction": 0, **arguments})


@pytest.mark.parametrize(
    "given", ["", "photos-*.tar", "photos-00?.tar", "photos-{000..002}.tar", ["photos-000.tar", "*"]]
)
def test_pictures_and_classes(shards, given):
    if isinstance(given, list):
        given = [shards / "photos-000.tar", str(shards / "photos-{001..002}.tar")]
    else:
        given = str(shards / given)
    data = whole(given)
    assert (data.task, data.class_names, data.input_shape) == ("classification", ("0", "1", "2"), (3, 6, 8))
    batch = next(iter(data.predict_dataloader()))
    assert all(np.array_equal(found, pixels) for found, pixels in zip(batch["inputs"], PIXELS, strict=True))
    assert batch["labels"].tolist() == [i % 3 for i in range(12)]


def test_screened_like_arrays(shards):
    backbone = ModuleBackbone(nn.Flatten(), input_shape=(3, 6, 8), head=None, preprocessing=Preprocessing())
    found = screen({"pixels": backbone}, whole(shards, num_workers=1), ["h_score"])["pixels"]
    expected = screen({"pixels": backbone}, Samples((PIXELS, [i % 3 for i in range(12)])), ["h_score"])["pixels"]
    assert found.status == "ok"
    assert found.scores == pytest.approx(dict(expected.scores))


def test_other_labels(shards):
    assert whole(shards, label_key="json.kind").class_names == ("a", "b", "c")
    assert whole(shards, class_names=["ant", "bee", "cow"]).class_names == ("ant", "bee", "cow")
    three = Shards(shards / "photos-000.tar", val=shards / "photos-001.tar", test=[shards / "photos-002.tar"])
    assert [len(d) for d in (three.train_dataset, three.val_dataset, three.test_dataset)] == [4, 4, 4]
    assert isinstance(as_datamodule(shards), Shards)


def test_endings_of_several_parts(tmp_path):
    path = write(
        tmp_path / "a.tar",
        {str(i): {"in.png": png(i), "out.cls": b"%d" % (i % 2), "Meta.json": b'{"kind": "k%d"}' % i} for i in range(4)},
    )
    data = whole(path, input_key="in.png", label_key="out.cls")
    assert [int(sample["labels"]) for sample in data.train_dataset] == [0, 1, 0, 1]
    assert np.array_equal(data.train_dataset[2]["inputs"], PIXELS[2])
    with pytest.raises(ValueError, match=r"one entry of 0\.Meta\.json \(meta\.json\.kind\), but got 'meta\.json'"):
        whole(path, input_key="in.png", label_key="meta.json").setup()


def test_texts(tmp_path):
    path = write(
        tmp_path / "a.tar", {str(i): {"txt": f"text {i}".encode(), "cls": b"ab"[i % 2 :][:1]} for i in range(4)}
    )
    data = whole(path)
    assert (data.class_names, data.train_dataset[2]["inputs"]) == (("a", "b"), "text 2")


def test_pictures_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "a.tar", {f"{i}": {**sample(i), **({"png": b"none"} if i == 1 else {})} for i in range(5)})
    with pytest.raises(ValueError, match=r"Expected 1\.png in .*a\.tar to be a readable picture"):
        list(whole(path).train_dataloader())
    with pytest.warns(UserWarning, match=r"1 of 5 samples could not be read and were left out: 1\.png"):
        assert len(whole(path, on_error="skip").train_dataset) == 4


@pytest.mark.parametrize(
    "address",
    [
        "pipe:touch {}/ran",
        "pipe:curl -s http://127.0.0.1/a.tar",
        "http://127.0.0.1/a.tar",
        "s3://bucket/a.tar",
        "gs://b/*.tar",
    ],
)
def test_addresses_and_commands_are_refused(tmp_path, address):
    with pytest.raises(ValueError, match="`path` to name tar files on this machine"):
        Shards(address.format(tmp_path)).setup()
    assert not list(tmp_path.iterdir())


class Loaded:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("end", ["pyd", "pkl", "pickle", "pth", "pt", "npy", "cls", "txt", "json", "png"])
def test_pickles_are_never_opened(tmp_path, end):
    content = pickle.dumps(Loaded(tmp_path / "ran"))
    path = write(tmp_path / "a.tar", {str(i): {**sample(i), end: content} for i in range(4)})
    for keys in ({}, {"input_key": end}, {"label_key": end}):
        with contextlib.suppress(ValueError):
            list(whole(path, **keys).predict_dataloader())
    assert not (tmp_path / "ran").exists()


def test_links_and_special_files_are_passed_over(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(0))
    path = write(tmp_path / "a.tar", {str(i): sample(i) for i in range(4)})
    with tarfile.open(path, "a") as archive:
        for kind, name in ((tarfile.SYMTYPE, "9.png"), (tarfile.LNKTYPE, "9.cls"), (tarfile.FIFOTYPE, "9.json")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret.png")
            archive.addfile(info)
    assert len(whole(path).train_dataset) == 4


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda files: {"png": files["png"]}, {}, r"all have \['png'\]; argument `label_key` says which"),
        (lambda files: {"cls": files["cls"]}, {}, r"all have \['cls'\]; argument `input_key` says which"),
        (lambda files: {**files, "jpg": files["png"]}, {}, "argument `input_key` says which"),
        (lambda files: {**files, "pyd": b""}, {"label_key": "pyd"}, "but got 'png' and 'pyd'"),
        (lambda files: files, {"label_key": "json"}, r"one entry of 0\.json \(json\.kind\), but got 'json'"),
        (lambda files: files, {"input_key": "png.x", "label_key": "json.kind"}, "but got 'png.x' and 'json.kind'"),
        (lambda files: files, {"label_key": "json.genus"}, r"0\.json in .* to hold an entry 'genus'"),
        (lambda files: {**files, "json": b"[" * 10**5}, {"label_key": "json.kind"}, "to hold an entry 'kind'"),
        (lambda files: {**files, "cls": b"\xff\xfe"}, {}, r"0\.cls in .* to be text"),
        (lambda files: {**files, "cls": bytes(2**21)}, {}, "to be short text, but got 2097152 bytes"),
        (lambda files: {**files, "PNG": files["png"]}, {}, "to hold one PNG file for '0', but got several"),
    ],
)
def test_bad_samples(tmp_path, change, arguments, message):
    path = write(tmp_path / "a.tar", {str(i): change(sample(i)) for i in range(4)})
    with pytest.raises(ValueError, match=message):
        whole(path, **arguments).setup()


def test_bad_files(tmp_path):
    path = write(tmp_path / "a.tar", {str(i): sample(i) for i in range(4)})
    content = path.read_bytes()
    huge = bytearray(content)
    huge[124:136] = b"77777777777\0"
    huge[148:156] = f"{sum(huge[:148]) + 8 * 32 + sum(huge[156:512]):06o}\0 ".encode()
    for name, damaged, message in (
        ("zipped.tar", gzip.compress(content), "an uncompressed tar file"),
        ("empty.tar", b"", "an uncompressed tar file|to hold samples"),
        ("text.tar", b"no tar file" * 100, "an uncompressed tar file"),
        ("cut.tar", content[:600], r"to hold 0\.png whole|an uncompressed tar file"),
        ("huge.tar", bytes(huge), r"to hold 0\.png whole"),
        ("blank.tar", bytes(10240), "to hold samples, but got none"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=message) as error:
            whole(tmp_path / name).setup()
        assert name in str(error.value)
    for pattern, message in (
        ("missing-*.tar", "to name tar files or a folder"),
        ("a-{0..999999}.tar", "at most 100000"),
    ):
        with pytest.raises(ValueError, match=message):
            find_shards(str(tmp_path / pattern))


def header(name: str, size: int, kind: bytes) -> bytes:
    """A header of a tar file whose size is as claimed, negative too."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(record: bytes) -> bytes:
    """A file without an ending, after a header that extends its own."""
    text = record + bytes(-len(record) % 512)
    return header("x", len(record), tarfile.XHDTYPE) + text + header("x", 1, tarfile.REGTYPE) + bytes(512)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        extended(b"14 size=-1536\n"),  # the next header would be the first one again
        extended(b"23 GNU.sparse.size=-99\n"),
        header("x", -512, b"Z"),  # the next header would be this one again
        header("x.cls", -512, tarfile.REGTYPE),
        header("x", -1024, tarfile.DIRTYPE) * 3,
        header("x", -512, tarfile.XHDTYPE),
        header("x", 2**21, tarfile.XHDTYPE) + b"1" * 2**21,  # digits in which a pattern would be searched for hours
        header("x", 2**21, tarfile.XGLTYPE) + b"1" * 2**21,
        header("x", 2**40, tarfile.GNUTYPE_LONGNAME),
        header("x.png", 2**60, tarfile.REGTYPE),
        header("x.png", 4, tarfile.GNUTYPE_SPARSE) + b"abcd",
        header("x", 100, tarfile.XHDTYPE) * 2000,
    ],
)
def test_headers_that_lie(tmp_path, content):
    path = tmp_path / "shard.tar"
    path.write_bytes(content + bytes(1024))
    with pytest.raises(ValueError, match=r"shard\.tar"):
        whole(path).setup("fit")


def test_ranges_of_ranges(tmp_path):
    with pytest.raises(ValueError, match="at most 100000 shards"):
        find_shards(str(tmp_path / "{0000..9999}-{0000..9999}-{0000..9999}.tar"))
    write(tmp_path / "1-2.tar", {"a": sample(0)})
    assert find_shards(str(tmp_path / "{0..2}-{1..3}.tar")) == [tmp_path / "1-2.tar"]
