from __future__ import annotations

import os
import shutil

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import ImageFolder


def write(path, colour=(0, 0, 0), size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(colour)).save(path)


@pytest.fixture
def root(tmp_path):
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


def test_split_folders(root):
    data = ImageFolder(root, image_size=8, val_fraction=0.2)
    assert data.class_names == ("ant", "bee")
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [16, 4, 6]
    assert data.val_dataset.truth.bincount().tolist() == [2, 2]
    for sample in data.test_dataset:
        assert sample["inputs"].dtype == torch.uint8
        assert sample["inputs"].shape == (3, 8, 8) == data.input_shape
        assert sample["inputs"][0, 0, 0] == 100 * sample["labels"]
        assert sample["inputs"][2, 0, 0] == 200


def test_pictures_that_are_passed_over_are_said(root, tmp_path):
    (root / "train" / "ant" / "x.HEIC").write_bytes(b"")
    (root / "train" / "bee" / "y.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match="not read were left out: 2 .heic; save them as JPEG or PNG"):
        assert len(ImageFolder(root).train_dataset) == 18
    for i in range(3):
        write(tmp_path / "flat" / f"{i}.png")
    with pytest.raises(ValueError, match="3 pictures lie in it directly, and each class needs a folder of its own"):
        ImageFolder(tmp_path / "flat").setup()
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.zip', which is a file: unpack it first\."):
        ImageFolder(tmp_path / "a.zip").setup()


def test_a_folder_is_called_by_its_own_name_and_leaderboards_are_read_on(root, tmp_path, monkeypatch):
    assert ImageFolder(root).name == ImageFolder(root / "train").name == root.name
    assert ImageFolder(root, name="animals").name == "animals"
    monkeypatch.chdir(root / "train")
    assert ImageFolder(".").name == root.name
    pixels = ModuleBackbone(nn.Flatten(), input_shape=(3, 8, 8), head=None)
    board = screen({"pixels": pixels}, root, "logme", cache=False)
    assert board.info["target"] == root.name
    assert board.settings["target"]["name"] == "image_folder"  # what leaderboards were written with before


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_folder(root, name):
    for animal in ("ant", "bee"):
        write(root / name / animal / "only.png", (7, 7, 7))
    data = ImageFolder(root, image_size=8)
    assert len(data.train_dataset) == 20
    assert [int(sample["inputs"].max()) for sample in data.val_dataset] == [7, 7]


def test_drawn_splits(root):
    data = ImageFolder(root / "train", image_size=8)
    paths = [set(d.inputs.paths) for d in (data.train_dataset, data.val_dataset, data.test_dataset)]
    assert [len(p) for p in paths] == [14, 2, 4]
    assert len(set.union(*paths)) == 20
    alone = root / "alone"
    shutil.copytree(root / "train", alone / "train")
    assert len(ImageFolder(alone, image_size=8).test_dataset) == 4


def test_workers_and_memory(root):
    kwargs = {"image_size": 8, "batch_size": 5, "classes": ["bee", "ant"], "max_samples": 9}
    on_disk, in_memory = ImageFolder(root, num_workers=1, **kwargs), ImageFolder(root, in_memory=True, **kwargs)
    for one, two in zip(on_disk.predict_dataloader(), in_memory.predict_dataloader(), strict=True):
        assert torch.equal(one["inputs"], two["inputs"])
        assert torch.equal(one["labels"], two["labels"])


def test_bad_folders(root, tmp_path):
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


@pytest.fixture
def plain(tmp_path):
    """Two classes of four pictures, without folders for splits."""
    for animal in ("ant", "bee"):
        for i in range(4):
            write(tmp_path / animal / f"{i}.png", (50 * i, 0, 0))
    return tmp_path


def paths_of(data):
    return {
        str(path.relative_to(data.root))
        for split in (data.train_dataset, data.val_dataset, data.test_dataset)
        if split is not None
        for path in split.inputs.paths
    }


EIGHT = {f"{animal}/{i}.png" for animal in ("ant", "bee") for i in range(4)}


@pytest.mark.parametrize(
    "litter",
    [
        "ant/.ipynb_checkpoints/0-checkpoint.png", "ant/deep/.cache/0.png", "__MACOSX/ant/._0.png",
        "ant/__MACOSX/0.png", "ant/._0.png", "ant/deep/._0.png", ".trash/0.png", "@eaDir/0.png", "ant/@eaDir/0.png",
    ],
)  # fmt: skip
def test_what_archives_and_editors_leave_is_no_picture(plain, litter):
    write(plain / litter)
    data = ImageFolder(plain, image_size=8)
    assert (data.class_names, paths_of(data), data.remarks) == (("ant", "bee"), EIGHT, ())


def test_links_are_followed(plain):
    elsewhere = plain.parent / f"{plain.name}-elsewhere"
    write(elsewhere / "pictures" / "4.png")
    write(elsewhere / "cow" / "0.png")
    (plain / "ant" / "more").symlink_to(elsewhere / "pictures", target_is_directory=True)
    (plain / "ant" / "again").symlink_to(plain / "ant", target_is_directory=True)  # a circle
    (plain / "bee" / "5.png").symlink_to(elsewhere / "pictures" / "4.png")
    (plain / "cow").symlink_to(elsewhere / "cow", target_is_directory=True)
    data = ImageFolder(plain, image_size=8)
    assert paths_of(data) == {*EIGHT, "ant/more/4.png", "bee/5.png", "cow/0.png"}


def test_pipes_are_no_pictures_and_broken_links_are_unreadable_ones(plain):
    os.mkfifo(plain / "ant" / "pipe.png")
    (plain / "ant" / "gone.png").symlink_to(plain / "nowhere.png")
    data = ImageFolder(plain, image_size=8, val_fraction=0, test_fraction=0)
    assert paths_of(data) == {*EIGHT, "ant/gone.png"}
    with pytest.raises(ValueError, match=r"gone\.png to be a readable picture, but got: .*No such file"):
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("Training", "Testing"), ("train", "Test"), ("TRAIN", "test"), ("training_set", "test_set")],
)
def test_folders_of_splits_in_any_case(tmp_path, train, test):
    for folder in (train, test, "Valid"):
        for animal in ("ant", "bee"):
            write(tmp_path / folder / animal / "0.png")
    data = ImageFolder(tmp_path, image_size=8)
    assert data.class_names == ("ant", "bee")
    splits = {train: data.train_dataset, test: data.test_dataset, "Valid": data.val_dataset}
    for folder, dataset in splits.items():
        assert [str(path.relative_to(tmp_path)) for path in dataset.inputs.paths] == [
            f"{folder}/ant/0.png", f"{folder}/bee/0.png"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a", "train/b", "valid/a", "validation/a"], r"got \['train', 'valid', 'validation'\]"),
        (["train/a", "train/b", "Training/a"], r"got \['Training', 'train'\]"),
        (["val/a", "val/b", "test/a"], r"got \['test', 'val'\]"),
        (["train/a", "train/b", "bus", "car"], r"got \['bus', 'car', 'train'\]"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path, folders, message):
    for folder in folders:
        write(tmp_path / folder / "0.png")
    with pytest.raises(ValueError, match=f"either classes or one a split .* {message}; argument `split_folders`"):
        ImageFolder(tmp_path).setup()


def test_a_class_called_train(tmp_path):
    for vehicle in ("bus", "car", "train"):
        write(tmp_path / vehicle / "0.png")
    assert ImageFolder(tmp_path, val_fraction=0, test_fraction=0).class_names == ("bus", "car", "train")


def test_split_folders_are_chosen(tmp_path):
    for folder in ("train/a", "train/b", "valid/a", "validation/b", "old/a"):
        write(tmp_path / folder / "0.png")
    chosen = ImageFolder(tmp_path, split_folders={"train": "train", "val": "validation"})
    assert (len(chosen.train_dataset), chosen.val_dataset.truth.tolist()) == (2, [1])
    everything = ImageFolder(tmp_path, split_folders={}, val_fraction=0, test_fraction=0)
    assert everything.class_names == ("old", "train", "valid", "validation")
    for wrong in ({"val": "valid"}, {"train": "train", "dev": "valid"}):
        with pytest.raises(ValueError, match="`split_folders` to have `train`"):
            ImageFolder(tmp_path, split_folders=wrong)
    with pytest.raises(ValueError, match="`split_folders` to be a dict of folders, but got 'x'"):
        ImageFolder(tmp_path, split_folders="x")
    with pytest.raises(ValueError, match="to be a folder with one folder a class"):
        ImageFolder(tmp_path, split_folders={"train": "missing"}).setup()


def test_folders_beside_the_splits_are_named(tmp_path):
    for folder in ("train/a", "train/b", "test/a", "unlabelled", "notes/deep"):
        write(tmp_path / folder / "0.png")
    (tmp_path / "notes" / "deep" / "0.png").unlink()
    data = ImageFolder(tmp_path)
    with pytest.warns(UserWarning, match=f"{tmp_path.name}: passed over beside the folders of the splits: unlabelled$"):
        assert data.class_names == ("a", "b")


def test_classes_without_pictures_are_left_out_and_named(plain):
    (plain / "cow").mkdir()
    (plain / "dog").mkdir()
    (plain / "dog" / "notes.txt").write_text("none yet")
    data = ImageFolder(plain, image_size=8)
    with pytest.warns(UserWarning, match=r"classes without pictures in .* were left out: cow, dog$"):
        assert (data.class_names, data.num_classes) == (("ant", "bee"), 2)


class TestOnError:
    @pytest.fixture
    def damaged(self, plain):
        for number, content in enumerate([b"", b"no picture", (plain / "bee" / "1.png").read_bytes()[:50]]):
            (plain / "ant" / f"bad{number}.png").write_bytes(content)
        write(plain / "cow" / "0.png")
        (plain / "cow" / "0.png").write_bytes(b"")
        return plain

    def test_skip(self, damaged):
        data = ImageFolder(damaged, image_size=8, on_error="skip", val_fraction=0, test_fraction=0)
        with pytest.warns(UserWarning, match="were left out"):
            assert paths_of(data) == EIGHT
        assert data.class_names == ("ant", "bee")
        assert data.remarks == (
            "4 of 12 pictures could not be read and were left out: ant/bad0.png, ant/bad1.png, ant/bad2.png, cow/0.png",
            f"classes without pictures in {damaged.name} were left out: cow",
        )
        assert sum(len(batch["labels"]) for batch in data.train_dataloader()) == 8

    def test_a_screen_says_what_was_left_out(self, damaged):
        pixels = ModuleBackbone(nn.Flatten(), input_shape=(3, 8, 8), head=None)
        kwargs = {"image_size": 8, "val_fraction": 0, "test_fraction": 0}
        with pytest.warns(UserWarning, match="4 of 12"):
            board = screen({"pixels": pixels}, ImageFolder(damaged, on_error="skip", **kwargs), "knn_accuracy")
        row = board["pixels"]
        assert row.status == "ok"
        assert row.remarks[0].startswith("target: 4 of 12 pictures could not be read and were left out: ant/bad0.png")
        assert board.info["num_samples"] == 8
        with pytest.raises(ValueError, match=r"bad0\.png to be a readable picture.*on_error=skip"):
            screen({"pixels": pixels}, ImageFolder(damaged, **kwargs), "h_score")

    def test_nothing_left(self, plain):
        for path in plain.rglob("*.png"):
            path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"but got none: 8 of 8 pictures .* ant/3\.png, bee/0\.png and 3 more"):
            ImageFolder(plain, on_error="skip").setup()
        with pytest.raises(ValueError, match="`on_error` to be one of"):
            ImageFolder(plain, on_error="ignore")
