from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

datasets = pytest.importorskip("datasets")

from lightning_transfer import screen  # noqa: E402
from lightning_transfer.backbones import ModuleBackbone, Preprocessing  # noqa: E402
from lightning_transfer.data import HuggingFace, as_datamodule  # noqa: E402
from lightning_transfer.data.hugging_face import find_columns  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
SPECIES = ["ant", "bee", "cow"]


def pictures(n=12):
    features = datasets.Features({"photo": datasets.Image(), "species": datasets.ClassLabel(names=SPECIES)})
    columns = {"photo": [Image.fromarray(pixels) for pixels in PIXELS[:n]], "species": [i % 3 for i in range(n)]}
    return datasets.Dataset.from_dict(columns, features=features)


def texts(n=12):
    return datasets.Dataset.from_dict(
        {"id": [str(i) for i in range(n)], "text": [f"text {i}" for i in range(n)], "mood": ["good", "bad"] * (n // 2)}
    )


def test_pictures_in_memory():
    data = HuggingFace(pictures(), val_fraction=0, test_fraction=0)
    assert (data.task, data.class_names, data.input_shape) == ("classification", tuple(SPECIES), (3, 6, 8))
    batch = next(iter(data.predict_dataloader()))
    assert all(np.array_equal(picture, pixels) for picture, pixels in zip(batch["inputs"], PIXELS, strict=True))
    assert batch["labels"].tolist() == [i % 3 for i in range(12)]


def test_splits_and_folders(tmp_path):
    parts = datasets.DatasetDict({"train": pictures(), "validation": pictures(3), "unsupervised": pictures(2)})
    parts.save_to_disk(tmp_path / "all")
    pictures().save_to_disk(tmp_path / "one")
    for data in (HuggingFace(parts), HuggingFace(tmp_path / "all"), as_datamodule(str(tmp_path / "all"))):
        assert [len(data.train_dataset), len(data.val_dataset), data.test_dataset] == [12, 3, None]
    assert len(HuggingFace(tmp_path / "one", val_fraction=0.25, test_fraction=0.25).train_dataset) == 6
    assert len(as_datamodule(pictures()).train_dataset) == 12


def test_text_columns():
    data = HuggingFace(texts(), input_key="text", label_key="mood", val_fraction=0, test_fraction=0)
    assert data.class_names == ("bad", "good")
    assert next(iter(data.predict_dataloader()))["inputs"][:2] == ["text 0", "text 1"]
    usual = HuggingFace(texts().rename_column("mood", "label"), val_fraction=0, test_fraction=0)
    assert usual.train_dataset[1]["inputs"] == "text 1"


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_vectors_in_any_format(kind):
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    table = datasets.Dataset.from_dict({"x": rows.tolist(), "y": [0.5 * i for i in range(12)]}).with_format(kind)
    data = HuggingFace(table, val_fraction=0, test_fraction=0)
    assert (data.task, data.input_shape) == ("regression", (4,))
    batch = next(iter(data.predict_dataloader()))
    np.testing.assert_allclose(batch["inputs"], rows)
    assert batch["targets"][:, 0].tolist() == [0.5 * i for i in range(12)]


def test_several_labels():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Sequence(datasets.ClassLabel(names=SPECIES))}
    )
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [[0, 2], [], [1]]}, features=features)
    data = HuggingFace(table, val_fraction=0, test_fraction=0)
    assert (data.task, data.class_names) == ("multilabel", tuple(SPECIES))
    assert data.train_dataset.truth.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_pictures_that_cannot_be_read_are_skipped():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=SPECIES)})
    bad = [{"bytes": b"no picture", "path": None}]
    good = [{"bytes": datasets.Image().encode_example(Image.fromarray(p))["bytes"], "path": None} for p in PIXELS[:5]]
    table = datasets.Dataset.from_dict({"image": bad + good, "label": [0, 1, 2, 0, 1, 2]}, features=features)
    with pytest.warns(UserWarning, match="1 of 6 samples could not be read and were left out: sample 0"):
        assert len(HuggingFace(table, on_error="skip", val_fraction=0, test_fraction=0).train_dataset) == 5


def test_own_transforms_are_kept():
    table = pictures().with_transform(
        lambda rows: {"photo": [torch.full((4,), 7.0) for _ in rows["photo"]], "species": rows["species"]}
    )
    data = HuggingFace(table, val_fraction=0, test_fraction=0)
    assert data.train_dataset[0]["inputs"].tolist() == [7.0] * 4


def test_streams():
    backbone = ModuleBackbone(nn.Flatten(), input_shape=(3, 6, 8), head=None, preprocessing=Preprocessing())
    stream = as_datamodule(pictures().to_iterable_dataset(), name="photos", batch_size=5)
    assert (stream.task, stream.num_classes, stream.name) == ("classification", 3, "photos")
    streamed = screen({"pixels": backbone}, stream, ["h_score"])["pixels"]
    whole = screen({"pixels": backbone}, as_datamodule(pictures()), ["h_score"])["pixels"]
    assert streamed.status == "ok"
    assert streamed.scores == pytest.approx(dict(whole.scores))
    moods = texts().to_iterable_dataset()
    with pytest.raises(ValueError, match="`class_names` numbers the classes"):
        as_datamodule(moods, input_key="text", label_key="mood")
    named = as_datamodule(moods, input_key="text", label_key="mood", class_names=["good", "bad"])
    batch = next(iter(named.train_dataloader()))
    assert (batch["inputs"][0], batch["labels"][:2].tolist()) == ("text 0", [0, 1])


@pytest.mark.parametrize(
    ("columns", "keys", "message"),
    [
        (
            {"a": "string", "b": "string", "label": "int64"},
            {},
            r"`input_key` to say which .*: a \(string\), b \(string\), l",
        ),
        ({"text": "string", "genre": "string"}, {}, r"`label_key` to say which .*: text \(string\), genre \(string\)"),
        ({"text": "string", "label": "int64"}, {"input_key": "body"}, r"`input_key` to name one of .* but got 'body'"),
        ({"text": "string", "label": "int64"}, {"label_key": "y"}, r"`label_key` to name one of .* but got 'y'"),
    ],
)
def test_columns_that_are_not_clear(columns, keys, message):
    features = {name: datasets.Value(kind) for name, kind in columns.items()}
    with pytest.raises(ValueError, match=message):
        find_columns(features, keys.get("input_key"), keys.get("label_key"))


def test_audio_is_refused():
    features = {"sound": datasets.Audio(), "label": datasets.ClassLabel(names=SPECIES)}
    for key in (None, "sound"):
        with pytest.raises(ValueError, match="audio is not supported"):
            find_columns(features, key, None)


def test_bad_sources(tmp_path):
    for data, message in (
        (tmp_path / "missing", "a folder that `save_to_disk` wrote, but got '.*missing'"),
        (tmp_path, "a folder that `save_to_disk` wrote, but got: "),
        ({"validation": pictures()}, r"`train` among them, but got \['validation'\]"),
        ({"train": pictures(), "Training": pictures()}, "one data set a split"),
        (5, "a `Dataset` of datasets, but got int"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            HuggingFace(data).setup()
        assert "\n" not in str(error.value)
