from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data import ImageFolder, PhotoPatches
from lightning_transfer.data.images import ImageFiles, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def write(path, colour=(0, 0, 0), size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)


class TestReadImage:
    def test_pixels_as_they_are(self, tmp_path):
        Image.fromarray(PIXELS).save(tmp_path / "a.png")
        assert torch.equal(read_image(tmp_path / "a.png"), torch.from_numpy(PIXELS).permute(2, 0, 1))

    def test_modes_become_rgb(self, tmp_path):
        Image.fromarray(PIXELS[:, :, 0]).save(tmp_path / "grey.png")
        grey = read_image(tmp_path / "grey.png")
        assert torch.equal(grey, torch.from_numpy(PIXELS[:, :, 0]).expand(3, -1, -1))
        Image.fromarray(PIXELS).convert("P").save(tmp_path / "palette.gif")
        assert read_image(tmp_path / "palette.gif").shape == (3, 6, 9)

    def test_transparency_is_shown_on_white(self, tmp_path):
        rgba = np.dstack([PIXELS, np.where(np.arange(9) < 4, 0, 255)[None].repeat(6, 0).astype(np.uint8)])
        Image.fromarray(rgba).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png")
        assert (image[:, :, :4] == 255).all()
        assert torch.equal(image[:, :, 4:], torch.from_numpy(PIXELS).permute(2, 0, 1)[:, :, 4:])

    def test_exif_orientation(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
        assert read_image(tmp_path / "a.png").shape == (3, 9, 6)

    def test_scaled_and_cropped_in_the_centre(self, tmp_path):
        wide = np.zeros((10, 30, 3), np.uint8)
        wide[:, 10:20] = 255
        Image.fromarray(wide).save(tmp_path / "a.png")
        image = read_image(tmp_path / "a.png", 10)
        assert image.shape == (3, 10, 10)
        assert (image == 255).all()

    @pytest.mark.parametrize("content", [b"", b"no picture", None])
    def test_unreadable(self, tmp_path, content):
        path = tmp_path / "a.png"
        if content is None:
            Image.fromarray(PIXELS.repeat(50, 0).repeat(50, 1)).save(path)
            content = path.read_bytes()[:400]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.png to be a readable picture"):
            read_image(path)
        with pytest.raises(ValueError, match="readable picture"):
            read_image(tmp_path / "missing.png")

    def test_sequence_reads_when_asked(self, tmp_path):
        for i in range(3):
            write(tmp_path / f"{i}.png", (i, i, i))
        images = ImageFiles([tmp_path / f"{i}.png" for i in range(3)], 8)
        picked = images[torch.tensor([2, 0])]
        assert (len(images), len(picked)) == (3, 2)
        assert [int(picked[i].max()) for i in range(2)] == [2, 0]
        assert picked[0].shape == (3, 8, 8)


class TestImageFolder:
    @pytest.fixture
    def root(self, tmp_path):
        for label, animal in enumerate(["ant", "bee"]):
            for i in range(10):
                write(
                    tmp_path / "train" / animal / "deep" / f"{i}.JPEG"
                    if i % 2
                    else tmp_path / "train" / animal / f"{i}.png",
                    (100 * label, 10 * i, 0),
                )
            for i in range(3):
                write(tmp_path / "test" / animal / f"{i}.png", (100 * label, i, 200))
        (tmp_path / "train" / "ant" / "notes.txt").write_text("no picture")
        (tmp_path / "train" / ".hidden").mkdir()
        return tmp_path

    def test_split_folders(self, root):
        data = ImageFolder(root, image_size=8, val_fraction=0.2)
        assert data.class_names == ("ant", "bee")
        assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [16, 4, 6]
        assert data.val_dataset.answers.bincount().tolist() == [2, 2]
        for sample in data.test_dataset:
            assert sample["inputs"].dtype == torch.uint8
            assert sample["inputs"].shape == (3, 8, 8) == data.input_shape
            assert sample["inputs"][0, 0, 0] == 100 * sample["labels"]
            assert sample["inputs"][2, 0, 0] == 200

    @pytest.mark.parametrize("name", ["val", "valid", "validation"])
    def test_validation_folder(self, root, name):
        for animal in ("ant", "bee"):
            write(root / name / animal / "only.png", (7, 7, 7))
        data = ImageFolder(root, image_size=8)
        assert len(data.train_dataset) == 20
        assert [int(sample["inputs"].max()) for sample in data.val_dataset] == [7, 7]

    def test_drawn_splits(self, root):
        data = ImageFolder(root / "train", image_size=8)
        paths = [set(d.inputs.paths) for d in (data.train_dataset, data.val_dataset, data.test_dataset)]
        assert [len(p) for p in paths] == [14, 2, 4]
        assert len(set.union(*paths)) == 20
        alone = root / "alone"
        shutil.copytree(root / "train", alone / "train")
        assert len(ImageFolder(alone, image_size=8).test_dataset) == 4

    def test_workers_and_memory(self, root):
        kwargs = {"image_size": 8, "batch_size": 5, "classes": ["bee", "ant"], "max_samples": 9}
        on_disk, in_memory = ImageFolder(root, num_workers=1, **kwargs), ImageFolder(root, in_memory=True, **kwargs)
        for one, two in zip(on_disk.predict_dataloader(), in_memory.predict_dataloader(), strict=True):
            assert torch.equal(one["inputs"], two["inputs"])
            assert torch.equal(one["labels"], two["labels"])

    def test_bad_folders(self, root, tmp_path):
        with pytest.raises(ValueError, match="`root` to be a folder with one folder a class, but got '/no/such'"):
            ImageFolder("/no/such").setup()
        (tmp_path / "empty" / "cat").mkdir(parents=True)
        with pytest.raises(ValueError, match="to hold folders with pictures, but got none"):
            ImageFolder(tmp_path / "empty").setup()
        write(root / "test" / "wasp" / "0.png")
        with pytest.raises(ValueError, match="to be among \\('ant', 'bee'\\), but got 'wasp'"):
            ImageFolder(root).setup()
        with pytest.raises(ValueError, match="`image_size`"):
            ImageFolder(root, image_size=0)


class TestPhotoPatches:
    def test_default(self):
        data = PhotoPatches()
        assert (data.num_classes, len(data.class_names), data.input_shape) == (20, 20, (3, 48, 48))
        for dataset, patches in ((data.train_dataset, 80), (data.val_dataset, 20), (data.test_dataset, 40)):
            assert dataset.answers.bincount().tolist() == [patches] * 20
            assert dataset.inputs.dtype == torch.uint8
        assert data.train_dataset.answers[:20].tolist() == list(range(20))  # pictures take turns

    @pytest.mark.parametrize("size", [16, 48, 64])
    @pytest.mark.parametrize(("height", "width"), [(172, 448), (191, 384), (303, 384), (300, 451), (1411, 1411)])
    def test_no_pixel_is_in_two_splits(self, size, height, width):
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

    def test_seed_and_class_choice(self):
        kwargs = {"train_patches": 4, "val_patches": 0, "test_patches": 2}
        first, again, other = (PhotoPatches(seed=seed, **kwargs) for seed in (5, 5, 6))
        assert torch.equal(first.train_dataset.inputs, again.train_dataset.inputs)
        assert not torch.equal(first.train_dataset.inputs, other.train_dataset.inputs)
        assert first.val_dataset is None
        chosen = PhotoPatches(seed=5, classes=["moon", "coffee"], **kwargs)
        coffee = first.class_names.index("coffee")
        expected = first.train_dataset.inputs[first.train_dataset.answers == coffee]
        assert torch.equal(chosen.train_dataset.inputs[chosen.train_dataset.answers == 1], expected)

    def test_too_large_patches(self):
        with pytest.raises(ValueError, match=r"`patch_size` to leave room for 80 train patches in .* but got 180"):
            PhotoPatches(180).setup()
        with pytest.raises(ValueError, match="`gap`"):
            PhotoPatches(gap=-1)
