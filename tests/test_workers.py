"""A screen reads each picture once, with the same workers, and nobody can tell from the values."""

from __future__ import annotations

import multiprocessing
import os
import random
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import ImageFolder, Samples, images
from lightning_transfer.extraction import extract
from lightning_transfer.pictures import KeptPictures
from lightning_transfer.workers import SharedReading

SIZES = ((40, 30), (24, 50), (33, 33), (60, 20), (31, 47), (28, 28))


def workers() -> list[multiprocessing.Process]:
    """The processes of loaders that are alive; joblib's of other tests stay for a while."""
    return [child for child in multiprocessing.active_children() if "Loky" not in child.name]


class Shrink:
    """A transform of some library, with a size of its own."""

    def __init__(self, side):
        self.side = side

    def __call__(self, picture):
        return torch.from_numpy(np.array(picture.resize((self.side, self.side)))).permute(2, 0, 1) / 255


def pixels(side, transform=None):
    return ModuleBackbone(
        nn.Flatten(), (3, side, side), head=None, preprocessing=None, transform=transform or Shrink(side)
    )


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES * 2):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Writes down which process opens a picture, in whichever process that is."""
    log, open_rgb = tmp_path / "opened", images.open_rgb

    def write_down(source, name=None):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {source}\n")
        return open_rgb(source, name)

    monkeypatch.setattr(images, "open_rgb", write_down)
    # only files count: a transform opens pictures that are decoded already
    return lambda: [line.split()[:2] for line in log.read_text().splitlines() if line.endswith(".png")]


def features_of(backbones, data, reading=None):
    return [extract(backbone, data, keep=("features", "labels"), reading=reading).kept for backbone in backbones]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_picture_is_decoded_once_and_values_are_those_of_separate_passes(folder, opened, num_workers):
    data = ImageFolder(
        folder, image_size=16, val_fraction=0, test_fraction=0, num_workers=num_workers, batch_size=3
    )  # fmt: skip
    own = ModuleBackbone(nn.Flatten(), (3, 16, 16), head=None)  # takes the squares of the folder
    backbones = [pixels(8), pixels(12), own]
    alone = features_of(backbones, data)
    assert len(opened()) == 3 * 12
    with closing(SharedReading(picture_memory=1)) as reading:
        shared = features_of(backbones, data, reading)
        read = opened()[36:]
        assert len(read) == 12
        assert len({process for process, _ in read}) == max(1, num_workers)
        assert len(workers()) == num_workers
    assert not workers()
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["features"], other["features"])
        assert torch.equal(one["labels"], other["labels"])


def test_pictures_beyond_the_memory_are_decoded_each_time(folder, opened):
    data = ImageFolder(folder, image_size=16, val_fraction=0, test_fraction=0)
    sizes = [4 * width * height for width, height in SIZES[0::2] * 2 + SIZES[1::2] * 2]
    reading = SharedReading(picture_memory=1)
    reading.bytes = sum(sizes[:5])
    features_of([pixels(8), pixels(8)], data, reading)
    assert 12 + 7 - 2 <= len(opened()) <= 12 + 7  # a smaller one later on may fit where a larger one did not
    assert next(iter(reading._readers.values())).loader.dataset._kept.inputs._pictures.kept.room >= 0


class Turned(Dataset):
    """Draws an angle for each picture, from a generator of its own and from two global ones; some are not drawn."""

    def __init__(self):
        self.generator = np.random.default_rng(3)
        self.targets = [0, 1] * 5

    def __len__(self):
        return 10

    def __getitem__(self, index):
        picture = Image.fromarray(np.arange(20 * 16 * 3, dtype=np.uint8).reshape(20, 16, 3) * (index + 1))
        if index % 5:
            draw = [self.generator.random, lambda: float(torch.rand(1)), random.random, lambda: 0.5][index % 4]
            picture = picture.rotate(90 * draw())
        return picture, index % 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_drawn_at_random_is_drawn_anew_from_the_same_state(num_workers):
    data = Samples(Turned(), num_workers=num_workers, batch_size=2)
    alone = features_of([pixels(8), pixels(8)], data)
    with closing(SharedReading(picture_memory=1)) as reading:
        shared = features_of([pixels(8), pixels(8)], data, reading)
    for kept in (alone[1], *shared):
        assert torch.equal(alone[0]["features"], kept["features"])


def test_pictures_that_are_drawn_are_not_kept():
    kept, dataset = KeptPictures(10**6, [generator := np.random.default_rng(0)]), Turned()
    dataset.generator = generator
    for index in range(10):
        kept.get(index, lambda place: dataset[place][0])
    assert sorted(kept._pictures) == [0, 3, 5, 7]  # the others advanced a generator


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_backbone_that_fails_leaves_the_others_and_their_values(folder, opened, num_workers):
    def broken(picture):
        raise ValueError("too dark")

    def build():
        return {
            "a": pixels(8), "broken": pixels(8, broken), "local": pixels(8, lambda picture: Shrink(8)(picture)),
            "b": pixels(12),
        }  # fmt: skip

    data = ImageFolder(folder, image_size=16, val_fraction=0, test_fraction=0, num_workers=num_workers, batch_size=3)
    together = screen(build(), data, "h_score")
    for name, backbone in build().items():
        alone = screen({name: backbone}, data, "h_score", picture_memory=0)
        assert together[name].scores == alone[name].scores
        assert (together[name].failure is None) == (alone[name].failure is None)
    assert together["broken"].status.endswith("too dark")
    assert "Traceback" not in together["broken"].status
    assert together["local"].scores == together["a"].scores
    assert not workers()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_picture_that_cannot_be_read_fails_every_row_alike(folder, num_workers):
    (folder / "a" / "0.png").write_bytes(b"no picture")
    data = ImageFolder(folder, image_size=16, val_fraction=0, test_fraction=0, num_workers=num_workers)
    with closing(SharedReading(picture_memory=1)) as reading:
        for backbone in (pixels(8), pixels(12)):
            with pytest.raises(ValueError, match=r"^Expected .*0\.png to be a readable picture, but got: [^\n]*$"):
                extract(backbone, data, reading=reading)
    data = ImageFolder(folder, image_size=16, val_fraction=0, test_fraction=0, on_error="skip")
    board = screen({"a": pixels(8), "b": pixels(12)}, data, "h_score")
    assert all("1 of 12 pictures could not be read" in row.remarks[0] for row in board.rows)


def test_other_data_at_the_same_place_get_a_reader_of_their_own():
    loaders = [DataLoader(Turned(), 5, collate_fn=list) for _ in range(2)]
    reading = SharedReading(picture_memory=1)
    for loader in loaders:
        loader.dataset.keeping = lambda kept: None  # any data set may offer it
        batches = reading.at("place")(loader, [[0]], None)
        assert reading._readers["place"].dataset is loader.dataset
        assert batches is not None
    plain = DataLoader(range(4), 2)
    assert reading.at("other")(plain, [[0]], None) is None  # nothing to share


def test_memory_that_is_no_number_is_refused(folder):
    with pytest.raises(ValueError, match="`picture_memory`"):
        screen({"a": pixels(8), "b": pixels(8)}, ImageFolder(folder), "h_score", picture_memory=-1)
