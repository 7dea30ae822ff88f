from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone, Preprocessing
from lightning_transfer.data import Samples
from lightning_transfer.data.samples import as_input

FEATURES = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 6, 8, 3), dtype=np.uint8)


class Rows(Dataset):
    """A data set like many: samples are what ``make`` says."""

    def __init__(self, make, n=30, **attributes):
        self.make, self.n, self.read = make, n, []
        vars(self).update(attributes)

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read.append(index)
        return self.make(index)


def picture(index):
    return Image.fromarray(PIXELS[index])


@pytest.mark.parametrize(
    "inputs",
    [FEATURES, FEATURES.double(), FEATURES.numpy(), FEATURES.tolist(), [row.numpy() for row in FEATURES]],
    ids=["tensor", "float64", "array", "lists", "list of arrays"],
)
def test_pairs_of_numbers(inputs):
    data = Samples((inputs, LABELS))
    assert (data.task, data.num_classes, len(data.train_dataset), data.input_shape) == ("classification", 3, 30, (4,))
    batch = next(iter(data.predict_dataloader()))
    assert batch["inputs"].dtype == torch.float32
    torch.testing.assert_close(batch["inputs"], FEATURES)
    assert torch.equal(batch["labels"], LABELS)
    assert data.val_dataset is None


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (PIXELS, (3, 6, 8)),
        (PIXELS[:, :, :, 0], (1, 6, 8)),
        (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), (3, 6, 8)),
    ],
)
def test_pairs_of_images(inputs, shape):
    data = Samples((inputs, LABELS))
    assert data.input_shape == shape
    assert data.train_dataset[0]["inputs"].dtype == torch.uint8


def test_lists_of_pictures_and_texts(tmp_path):
    picture(0).save(tmp_path / "0.png")
    for kind in (picture(0), tmp_path / "0.png", (tmp_path / "0.png").read_bytes(), PIXELS[0]):
        data = Samples(([kind, kind], ["a", "b"]), batch_size=2)
        batch = next(iter(data.train_dataloader()))
        assert [np.array_equal(found, PIXELS[0]) for found in batch["inputs"]] == [True, True]
        assert data.input_shape == (3, 6, 8)
    data = Samples((["good", "bad"], [1.0, -1.0]))
    assert (data.task, data.input_shape) == ("regression", ())
    assert next(iter(data.predict_dataloader()))["inputs"] == ["good", "bad"]


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda i: (FEATURES[i], int(LABELS[i])), {}),
        (lambda i: [FEATURES[i], LABELS[i]], {}),
        (lambda i: {"image": FEATURES[i], "label": int(LABELS[i])}, {}),
        (lambda i: {"a": FEATURES[i], "b": str(int(LABELS[i])), "label": 7}, {"input_key": "a", "label_key": "b"}),
        (lambda i: (i, FEATURES[i], LABELS[i]), {"input_key": 1, "label_key": 2}),
        (lambda i: (FEATURES[i], {"label": int(LABELS[i])}), {}),
    ],
)
def test_data_sets(make, keys):
    data = Samples(Rows(make), Rows(make, 6), val_fraction=0.5, num_workers=0, **keys)
    assert (data.class_names, len(data.train_dataset), len(data.val_dataset)) == (("0", "1", "2"), 30, 6)
    batch = next(iter(data.predict_dataloader()))
    assert torch.equal(batch["inputs"], FEATURES)
    assert torch.equal(batch["labels"], LABELS)


def test_labels_at_hand_open_no_picture():
    rows = Rows(lambda i: (picture(i), int(LABELS[i])), targets=LABELS.tolist(), classes=["ant", "bee", "cow"])
    data = Samples(rows, max_samples=9, classes=["cow", "ant"])
    assert (data.class_names, rows.read) == (("cow", "ant"), [])
    assert data.train_dataset.truth.bincount().tolist() == [5, 4] or data.train_dataset.truth.bincount().tolist() == [
        4,
        5,
    ]
    rows = Rows(lambda i: (picture(i), int(LABELS[i]) % 2), targets=LABELS.tolist(), target_transform=lambda y: y % 2)
    assert Samples(rows).num_classes == 2  # what the data set gives, not what it keeps


def test_tensor_data_sets():
    data = Samples(TensorDataset(FEATURES, LABELS), test=TensorDataset(FEATURES[:6], LABELS[:6]))
    assert torch.equal(data.train_dataset.inputs, FEATURES)
    assert len(data.test_dataset) == 6


def test_splits_are_drawn_on_request():
    data = Samples((FEATURES, LABELS), val_fraction=0.1, test_fraction=0.2)
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [21, 3, 6]


def test_pictures_reach_a_backbone_as_they_are():
    backbone = ModuleBackbone(nn.Flatten(), input_shape=(3, 6, 8), head=None, preprocessing=Preprocessing())
    rows = Rows(lambda i: (picture(i), int(LABELS[i])))
    board = screen({"pixels": backbone}, Samples(rows), ["h_score"])
    arrays = screen({"pixels": backbone}, Samples((PIXELS, LABELS)), ["h_score"])
    assert board["pixels"].status == "ok"
    assert board["pixels"].scores == pytest.approx(dict(arrays["pixels"].scores))


class TestOnError:
    def rows(self):
        def make(index):
            if index in (3, 17):
                raise OSError("damaged")
            return FEATURES[index], int(LABELS[index])

        return Rows(make)

    def test_raise(self):
        with pytest.raises(ValueError, match="Expected sample 3 of samples to be readable, but got: damaged"):
            Samples(self.rows()).setup()

    def test_skip(self):
        data = Samples(self.rows(), on_error="skip")
        with pytest.warns(
            UserWarning, match="2 of 30 samples could not be read and were left out: sample 3, sample 17"
        ):
            data.setup()
        assert len(data.train_dataset) == 28
        torch.testing.assert_close(data.train_dataset[3]["inputs"], FEATURES[4])

    @pytest.mark.parametrize("at_hand", [True, False])
    def test_groups_of_samples_that_cannot_be_read(self, at_hand):
        def make(index):
            if index in (3, 17):
                raise OSError("damaged")
            return {"input": FEATURES[index], "label": int(LABELS[index]), "patient": f"p{index // 2}"}

        rows = Rows(make)
        if at_hand:
            rows.targets = LABELS
        with pytest.raises(ValueError, match="Expected sample 3 of samples to be readable, but got: damaged"):
            Samples(rows, group_key="patient").setup()
        data = Samples(rows, on_error="skip", group_key="patient")
        with pytest.warns(UserWarning, match="2 of 30 samples could not be read"):
            data.setup()
        kept = [index for index in range(30) if index not in (3, 17)]
        assert data.train_dataset.truth.tolist() == LABELS[kept].tolist()
        patients = data.train_dataset.groups
        same = patients[:, None] == patients
        assert torch.equal(same, torch.tensor(kept)[:, None] // 2 == torch.tensor(kept) // 2)
        with pytest.raises(ValueError, match="`group_key`"):
            Samples(Rows(lambda i: (FEATURES[i], int(LABELS[i]))), group_key="patient").setup()

    def test_labels_and_groups_are_no_part_of_tokens(self):
        rows = [{"input_ids": torch.arange(5) + i, "mood": torch.tensor(i % 2), "patient": i // 2} for i in range(8)]
        data = Samples(rows, label_key="mood", group_key="patient")
        assert data.train_dataset.truth.tolist() == [0, 1] * 4
        assert data.train_dataset.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert set(data.train_dataset[3]["inputs"]) == {"input_ids"}

    def test_skip_with_labels_at_hand(self):
        pictures = [b"no picture" if i == 5 else PIXELS[i] for i in range(30)]
        with pytest.warns(UserWarning, match="1 of 30 samples .*: sample 5"):
            assert len(Samples((pictures, LABELS), on_error="skip").train_dataset) == 29
        assert len(Samples((pictures, LABELS)).train_dataset) == 30
        with pytest.raises(ValueError, match=r"to be a readable picture, but got: .* \(sample 5\)"):
            Samples((pictures, LABELS)).train_dataset[5]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "`train` to hold samples, but got None"),
        ((FEATURES, LABELS[:9]), r"pair of as many inputs as labels, but got \[30, 9\]"),
        ((FEATURES,), r"a pair \(inputs, labels\), but got 1 entries"),
        (5, "a pair .* or a data set with a length, but got int"),
        (TensorDataset(FEATURES[:0], LABELS[:0]), "`train` to hold samples, but got none"),
        (
            type("Stream", (IterableDataset,), {"__iter__": lambda self: iter(())})(),
            "a data set with a length, but got Stream",
        ),
    ],
)
def test_bad_arguments(train, message):
    with pytest.raises(ValueError, match=message):
        Samples(train)


def test_tensors_that_are_not_dense_are_refused():
    with pytest.raises(ValueError, match=r"Expected dense inputs, but got .*sparse_coo: `.to_dense\(\)`"):
        Samples((FEATURES.to_sparse(), LABELS)).setup()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i: FEATURES[i], "it has no label; argument `label_key` says where one is"),
        (lambda i: {"inputs": FEATURES[i]}, "it has no label"),
        (lambda i: {"foo": FEATURES[i], "label": 1}, r"but got the keys \['foo', 'label'\]; `input_key`"),
        (lambda i: (picture(i), torch.zeros(6, 8).long()), "dense outputs"),
        (lambda i: (picture(i), {"boxes": torch.zeros(2, 4), "labels": [1, 2]}), "dense outputs|one shape"),
        (lambda i: (FEATURES[i], 0), "at least two classes"),
    ],
)
def test_bad_samples(make, message):
    with pytest.raises(ValueError, match=message) as error:
        [*Samples(Rows(make)).train_dataloader()]
    assert "\n" not in str(error.value)


def test_inputs_one_by_one():
    assert torch.equal(as_input([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    assert torch.equal(as_input(np.float64(1.5)), torch.tensor([1.5]))
    assert as_input({"input_ids": [1, 2]})["input_ids"].tolist() == [1, 2]
    assert as_input(np.zeros((3, 2, 1), np.uint8)).size == (2, 3)
    with pytest.raises(ValueError, match="audio is not supported"):
        as_input({"array": np.zeros(9), "sampling_rate": 16000, "path": None})
    with pytest.raises(ValueError, match="pictures, numbers or text, but got object"):
        as_input(object())


@pytest.mark.parametrize("kind", ["pictures", "texts", "vectors"])
def test_fingerprints_tell_inputs_and_labels_apart(kind):
    inputs = {"pictures": [picture(i) for i in range(6)], "texts": list("abcdef"), "vectors": FEATURES[:6]}[kind]
    other = {"pictures": [picture(i) for i in range(1, 7)], "texts": list("abcdeg"), "vectors": FEATURES[1:7]}[kind]
    marks = [Samples((given, labels)).fingerprint("train") for given, labels in (
        (inputs, [0, 1] * 3), (inputs, [0, 1] * 3), (other, [0, 1] * 3), (inputs, [1, 0] * 3),
    )]  # fmt: skip
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


@pytest.mark.parametrize(("key", "values", "task"), [
    ("labels", [3, 5, 3, 5], "classification"),
    ("target", [3, 5, 3, 5], "classification"),
    ("targets", [3, 5, 3, 5], "regression"),  # as in batches
    ("targets", [torch.tensor(3), torch.tensor(5)] * 2, "regression"),
    ("target", [0.5, 1.5, 0.5, 1.5], "regression"),
    ("targets", [[0, 1], [1, 1], [1, 0], [0, 1]], "multilabel"),
    ("targets", ["cat", "dog", "cat", "dog"], "classification"),
])  # fmt: skip
def test_a_list_of_dicts(key, values, task):
    rows = [{"x": torch.full((3,), float(index)), key: value} for index, value in enumerate(values)]
    data = Samples(rows)
    assert data.task == task
    assert torch.equal(data.train_dataset[2]["inputs"], torch.full((3,), 2.0))
    if task != "classification":
        assert Samples(rows[:1] + rows, task=task).task == task
    elif key == "labels":
        assert Samples(rows, task="regression").train_dataset[1]["targets"].item() == 5


def test_lists_that_are_no_pairs():
    with pytest.raises(ValueError, match=r"`train` to be a pair \(inputs, labels\), but got 3 entries"):
        Samples([torch.eye(3), [0, 1, 0], [1, 1, 1]])
