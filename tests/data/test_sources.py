from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import (
    Batches,
    Digits,
    ImageFolder,
    NpzArrays,
    PictureTable,
    Samples,
    Table,
    TextTable,
    as_datamodule,
)
from lightning_transfer.extraction import extract
from lightning_transfer.passes import read_input_shape

FEATURES = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(FEATURES[i], LABELS[i]) for i in range(30)])


class Spring(IterableDataset):
    """Samples of one generator: what has been read is gone."""

    def __init__(self):
        self.samples = iter(list(zip(FEATURES, LABELS, strict=True)))

    def __iter__(self):
        yield from self.samples


class Drawn(IterableDataset):
    """Samples that are drawn anew whenever they are read."""

    def __iter__(self):
        for label in LABELS:
            yield torch.rand(4), label


class Pump:
    """Batches of one generator."""

    def __init__(self):
        self.batches = zip(FEATURES.split(7), LABELS.split(7), strict=True)

    def __iter__(self):
        return self.batches


class Batched(Pump, IterableDataset):
    """The same as a data set."""


ONCE = {
    "data set": lambda: DataLoader(Spring(), batch_size=7),
    "one worker": lambda: DataLoader(Spring(), batch_size=7, num_workers=1, multiprocessing_context="fork"),
    "data set of batches": lambda: DataLoader(Batched(), batch_size=None),
    "batches": Pump,
    "iterator": lambda: iter(Pump()),
}


class Own(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        return {"vector": FEATURES[index], "kind": "abc"[int(LABELS[index])]}


SOURCES = {
    "tensors": ((FEATURES, LABELS), {}),
    "arrays": ((FEATURES.numpy(), LABELS.numpy()), {}),
    "list": ([FEATURES, LABELS.tolist()], {}),
    "samples": ([{"inputs": x, "labels": int(y)} for x, y in zip(FEATURES, LABELS, strict=True)], {}),
    "columns": ((FEATURES, pd.Series(LABELS.tolist(), index=range(5, 35))), {}),
    "tensor data set": (TensorDataset(FEATURES, LABELS), {}),
    "data set": (Own(), {"input_key": "vector", "label_key": "kind"}),
    "stream": (Stream(), {"batch_size": 7}),
    "loader": (DataLoader(TensorDataset(FEATURES, LABELS), batch_size=7, shuffle=True), {}),
    "batches": ([(FEATURES[:20], LABELS[:20]), (FEATURES[20:], LABELS[20:])], {}),
    "splits": ({"train": (FEATURES, LABELS), "validation": (FEATURES[:3], LABELS[:3])}, {}),
    "datamodule": (Samples((FEATURES, LABELS)), {}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_scores(source):
    data, options = SOURCES[source]
    backbone = ModuleBackbone(nn.Identity(), input_shape=(4,), head=None)
    expected = screen({"own": backbone}, Samples((FEATURES, LABELS)), ["logme", "h_score"])["own"]
    found = screen({"own": backbone}, as_datamodule(data, **options), ["logme", "h_score"])["own"]
    assert found.status == "ok"
    assert found.scores == pytest.approx(dict(expected.scores), rel=1e-6)


def test_a_screen_takes_them_directly():
    backbone = ModuleBackbone(nn.Identity(), input_shape=(4,), head=None)
    for data in ((FEATURES, LABELS), SOURCES["loader"][0], TensorDataset(FEATURES, LABELS)):
        assert screen({"own": backbone}, data, ["h_score"])["own"].status == "ok"


def test_keys_reach_data_sets_and_batches():
    backbone = ModuleBackbone(nn.Identity(), input_shape=(4,), head=None)
    expected = screen({"own": backbone}, (FEATURES, LABELS), ["h_score"])["own"].scores
    batches = [{"vector": FEATURES, "kind": LABELS}]
    for data in (Own(), batches):
        found = screen({"own": backbone}, data, ["h_score"], input_key="vector", label_key="kind")["own"]
        assert found.status == "ok"
        assert found.scores == pytest.approx(dict(expected))


def test_paths(tmp_path):
    for animal in ("ant", "bee"):
        (tmp_path / "pictures" / animal).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / animal / "0.png")
    np.savez(tmp_path / "a.npz", inputs=FEATURES.numpy(), labels=LABELS.numpy())
    (tmp_path / "a.dat").write_text("a,b\n1,2\n")
    assert isinstance(as_datamodule(tmp_path / "pictures"), ImageFolder)
    assert isinstance(as_datamodule(str(tmp_path / "a.npz"), name="own"), NpzArrays)
    backbone = ModuleBackbone(nn.Identity(), input_shape=(4,), head=None)
    assert screen({"own": backbone}, str(tmp_path / "a.npz"), ["h_score"])["own"].status == "ok"
    with pytest.raises(ValueError, match="a table by another name is read by"):
        as_datamodule(tmp_path / "a.dat")
    with pytest.raises(ValueError, match=r"there is no '.*missing'"):
        as_datamodule(tmp_path / "missing")


ROWS = [
    f"{i},a text with many words {'x' * 300},{i % 5}.png,{'pn'[i % 2]},{i % 2},{i / 3},p{i // 4}" for i in range(20)
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["number,words,file,kind,flag,price,patient", *ROWS]))
    for i in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    return path


@pytest.mark.parametrize(
    ("keys", "kind", "task", "first"),
    [
        ({"input_key": "words", "label_key": "kind"}, TextTable, "classification", None),
        ({"input_key": "words", "label_key": "price"}, TextTable, "regression", None),
        ({"input_key": "file", "label_key": "flag"}, PictureTable, "classification", None),
        ({"input_key": "number", "label_key": "kind"}, Table, "classification", 1),
    ],
)
def test_columns_of_a_table_say_what_it_holds(table, keys, kind, task, first):
    data = as_datamodule(table, group_key="patient", val_fraction=0.0, test_fraction=0.0, **keys)
    assert type(data) is kind
    assert data.task == task
    sample = data.train_dataset[4]
    assert {"inputs", "groups"} < set(sample)
    assert first is None or sample["inputs"].shape == (first,)


def test_a_table_is_screened_by_its_path(table, tmp_path):
    numbers = tmp_path / "numbers.tsv"
    numbers.write_text("\n".join(["a\tb\tkind", *(f"{i}\t{i * i % 7}\t{'pn'[i % 2]}" for i in range(20))]))
    backbone = ModuleBackbone(nn.Identity(), input_shape=(2,), head=None)
    board = screen({"own": backbone}, str(numbers), ["h_score"], label_key="kind")
    expected = screen({"own": backbone}, Table(numbers, label="kind"), ["h_score"])
    assert board["own"].scores == expected["own"].scores


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "`label_key` to be a column of .*none was given; it has: number, words, file, kind"),
        ({"label_key": "kinds"}, "`label_key` to be a column of .*got 'kinds'; it has: number"),
        ({"label_key": "kind", "input_key": 3}, "`input_key` to be a column of .*got 3; it has: number"),
        (
            {"label_key": "kind"},
            "`input_key` to name the column .*one of words, file, patient; for numbers and categories",
        ),
        ({"label_key": "kind", "input_key": "kind"}, "column 'kind' of .* used once"),
    ],
)
def test_columns_of_a_table_are_asked_for(table, keys, message):
    with pytest.raises(ValueError, match=message):
        as_datamodule(table, **keys).setup("fit")


@pytest.mark.parametrize("data", [5, object(), torch.zeros(3), {"a": 1}, b"bytes"])
def test_other_things_are_refused(data):
    with pytest.raises(ValueError, match=r"a pair of columns, .* or a file, but got a DataFrame"):
        as_datamodule(pd.DataFrame({"text": ["a"], "label": [0]}))
    with pytest.raises(ValueError, match="Expected data to be a datamodule, a loader, "):
        as_datamodule(data)


class TestBatches:
    def test_the_task_is_what_the_first_batch_looks_like(self):
        marks = torch.nn.functional.one_hot(LABELS, 3)
        for labels, task in (
            (LABELS, "classification"),
            (marks, "multilabel"),
            (marks.float(), "multilabel"),
            (FEATURES[:, 0], "regression"),
            (FEATURES, "regression"),
        ):
            loader = DataLoader(TensorDataset(FEATURES, labels), batch_size=5)
            assert Batches(loader).task == task
            assert Batches(loader, task="regression").task == "regression"

    def test_the_global_random_state_stays(self):
        loader = DataLoader(TensorDataset(FEATURES, LABELS), batch_size=5, shuffle=True)
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        Batches(loader)
        assert torch.equal(torch.rand(2), expected)

    def test_the_key_targets_means_regression(self):
        whole = torch.randint(0, 9, (30, 2), generator=torch.Generator().manual_seed(0))
        inputs = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
        for batch in ({"inputs": inputs, "targets": whole}, (inputs, {"targets": whole[:, 0]})):
            assert Batches([batch]).task == "regression"
            board = screen(ModuleBackbone(nn.Identity(), input_shape=(4,), head=None), [batch], ["logme", "linear_mse"])
            assert not board.rows[0].failed
            assert set(board.columns) == {"logme", "linear_mse"}
        assert Batches([{"inputs": inputs, "targets": whole}], task="classification").task == "classification"
        assert Batches([{"inputs": inputs, "labels": whole[:, 0]}]).task == "classification"

    @pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
    def test_what_is_read_once_loses_nothing_to_a_look_at_it(self, make):
        data = Batches(make())
        assert data.task == "classification"
        assert read_input_shape(data) == (4,)
        result = extract(ModuleBackbone(nn.Identity(), input_shape=(4,), head=None), data, keep=("features", "labels"))
        assert torch.equal(result.kept["features"], FEATURES)
        assert torch.equal(result.kept["labels"], LABELS)

    def test_a_module_without_a_shape_sees_all_of_a_stream(self):
        expected = screen({"own": nn.Linear(4, 4)}, (FEATURES, LABELS), ["h_score"], cache=False).info["num_samples"]
        board = screen({"own": nn.Linear(4, 4)}, DataLoader(Spring(), 7), ["h_score"], cache=False)
        assert board.info["num_samples"] == expected == 30

    def test_what_can_be_read_again_is_read_from_the_beginning(self):
        data = Batches(DataLoader(Drawn(), batch_size=7))
        again = [torch.cat([batch[0] for batch in data.train_dataloader()]) for _ in range(2) if torch.manual_seed(0)]
        assert len(again[0]) == 30
        assert torch.equal(*again)

    def test_wrong_arguments(self):
        with pytest.raises(ValueError, match="`task` to be one of"):
            Batches([], task="ranking")
        assert Batches(iter([]), task="classification").num_classes is None
        assert Batches(iter([])).task == "classification"

    def test_datamodules_stay(self):
        data = Digits()
        assert as_datamodule(data) is data
