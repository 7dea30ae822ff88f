"""Files that may lie about their size."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile

import pytest

from lightning_transfer.data import reading
from lightning_transfer.data.reading import check_size, largest_size, open_unzipped, read_at_most

CONTENT = b"a,y\n" + b"1,2\n" * 500
WRITERS = {"csv": open, "csv.gz": gzip.open, "csv.bz2": bz2.open, "csv.xz": lzma.open}


def zipped(path, *names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, CONTENT)
    return path


@pytest.mark.parametrize("ending", [*WRITERS, "CSV.GZ"])
def test_what_is_packed_comes_out(tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    with WRITERS[ending.lower()](path, "wb") as file:
        file.write(CONTENT)
    with open_unzipped(path) as stream:
        assert stream.read() == CONTENT


def test_an_archive_holds_one_file(tmp_path):
    with open_unzipped(zipped(tmp_path / "one.zip", "table.csv")) as stream:
        assert stream.read() == CONTENT
    for names in ((), ("a.csv", "b.csv")):
        with (
            pytest.raises(ValueError, match=f"to hold one file, but got {len(names)}"),
            open_unzipped(zipped(tmp_path / "some.zip", *names)),
        ):
            pass


@pytest.mark.parametrize("ending", ["gz", "zip"])
def test_nothing_grows_beyond_what_the_file_justifies(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(reading, "_FREE", 100)
    monkeypatch.setattr(reading, "_RATIO", 3)
    path = tmp_path / f"table.{ending}"
    if ending == "zip":
        zipped(path, "table.csv")
    else:
        path.write_bytes(gzip.compress(CONTENT))
    limit = largest_size(path)
    assert limit == max(100, 3 * path.stat().st_size) < len(CONTENT)
    with open_unzipped(path) as stream, pytest.raises(ValueError, match=f"unpacks to more than {limit} bytes"):
        stream.read()


def test_sizes():
    check_size(5, 5, "it")
    with pytest.raises(ValueError, match="Expected it to hold at most 5 bytes for the size of its file, but got 6"):
        check_size(6, 5, "it")


@pytest.mark.parametrize("size", [0, 7, len(CONTENT), 10**15])
def test_memory_grows_with_what_is_there(size):
    stream = io.BytesIO(CONTENT)
    assert read_at_most(stream, size) == CONTENT[:size]
    assert stream.tell() == min(size, len(CONTENT))
