from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris

from lightning_transfer.data import BundledTable, Table
from lightning_transfer.utilities import imports

GENERATOR = np.random.default_rng(0)


def frame(n=40):
    x = GENERATOR.normal(3, 2, size=n)
    return pd.DataFrame(
        {
            "x": x,
            "count": np.arange(n),
            "flag": np.arange(n) % 2 == 0,
            "kind": pd.Series(["dog", "ant", "cat", "cat"] * (n // 4)),
            "y": 2 * x,
            "part": ["train"] * (n - 15) + ["val"] * 5 + ["test"] * 10,
        }
    )


def write(table, tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    if suffix in (".parquet", ".pq"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in suffix else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq"])
def test_formats(tmp_path, suffix):
    table = frame()
    path = write(table, tmp_path, suffix)
    data = Table(path, label="kind", features=["x", "flag"], standardize=False, val_fraction=0, test_fraction=0)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.train_dataset.inputs.dtype == torch.float32
    np.testing.assert_allclose(data.train_dataset.inputs, table[["x", "flag"]].to_numpy(float), rtol=1e-6)
    assert [data.class_names[i] for i in data.train_dataset.answers] == table["kind"].tolist()


def test_regression_with_a_split_column(tmp_path):
    path = write(frame(), tmp_path, ".csv")
    data = Table(path, targets=["y", "count"], features=["x"], split_column="part", standardize=False)
    assert (data.task, data.target_names) == ("regression", ("y", "count"))
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [25, 5, 10]
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        torch.testing.assert_close(dataset.answers[:, 0], 2 * dataset.inputs[:, 0])
    assert data.test_dataset.answers[:, 1].tolist() == list(range(30, 40))
    assert Table(path, targets="y", features=["x"]).train_dataset.answers.shape == (28, 1)


def test_default_features_are_all_other_columns(tmp_path):
    path = write(frame().drop(columns="part"), tmp_path, ".csv")
    assert Table(path, label="kind").input_shape == (4,)
    assert Table(path, label="kind", features="count").input_shape == (1,)
    with pytest.raises(ValueError, match=r"column 'kind' of .* to hold numbers, but got .*`features` chooses"):
        Table(path, targets="y").setup()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 9, 2, 9], ("2", "9", "10")),
        ([True, False, True, True], ("False", "True")),
        (["b", "a", "b", "c"], ("a", "b", "c")),
    ],
)
def test_class_names_are_the_sorted_values(tmp_path, values, names):
    table = pd.DataFrame({"x": range(40), "label": values * 10})
    for suffix in (".csv", ".parquet"):
        data = Table(write(table, tmp_path, suffix), label="label", val_fraction=0, test_fraction=0)
        assert data.class_names == names
        assert [names[i] for i in data.train_dataset.answers[:4]] == [str(value) for value in values]
    categorical = table.assign(label=table["label"].astype("category"))
    assert Table(write(categorical, tmp_path, ".parquet"), label="label").class_names == names


def test_standardised_by_the_training_split(tmp_path):
    table = frame().assign(constant=0.1)
    data = Table(write(table, tmp_path, ".csv"), label="kind", features=["x", "count", "constant"], split_column="part")
    train = data.train_dataset.inputs
    torch.testing.assert_close(train.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    raw = table[["x", "count"]].to_numpy(float)
    expected = (raw[30:] - raw[:25].mean(0)) / raw[:25].std(0)
    np.testing.assert_allclose(data.test_dataset.inputs[:, :2], expected, rtol=1e-5, atol=1e-6)


def test_scikit_learn_tables():
    diabetes = BundledTable("diabetes", val_fraction=0, test_fraction=0, standardize=False)
    raw = load_diabetes()
    np.testing.assert_allclose(diabetes.train_dataset.inputs, raw.data, rtol=1e-6)
    np.testing.assert_allclose(diabetes.train_dataset.answers[:, 0], raw.target)
    iris = BundledTable("iris", val_fraction=0, test_fraction=0, standardize=False)
    assert (iris.name, iris.class_names) == ("iris", ("setosa", "versicolor", "virginica"))
    np.testing.assert_allclose(iris.train_dataset.inputs, load_iris().data, rtol=1e-6)
    assert iris.train_dataset.answers.tolist() == load_iris().target.tolist()
    assert BundledTable("linnerud").target_names == ("Weight", "Waist", "Pulse")
    assert [BundledTable(name).num_classes for name in ("wine", "breast_cancer")] == [3, 2]
    with pytest.raises(ValueError, match="`table` to be one of"):
        BundledTable("boston")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"label": "sort"}, "'sort' to be one column of .*; it has: x, count"),
        ({}, {"label": "kind", "features": ["x", "x"]}, "'x' to be one column of .* used once"),
        ({}, {"label": "x", "features": ["x"]}, "used once"),
        ({}, {"label": "kind", "features": ["part"]}, "column 'part' of .* to hold numbers"),
        ({}, {"targets": "kind", "features": ["x"]}, "column 'kind' of .* to hold numbers"),
        ({}, {"label": "kind", "features": []}, "`features` to hold samples, but got shape"),
        ({"x": [1.0] * 39 + [None]}, {"label": "kind", "features": ["x"]}, "column 'x' of .* no gaps"),
        ({"kind": ["a"] * 39 + [None]}, {"label": "kind", "features": ["x"]}, "column 'kind' of .* no gaps"),
        ({"x": [1.0] * 39 + [np.inf]}, {"label": "kind", "features": ["x"]}, "column 'x' of .* finite .*, but got inf"),
        ({"x": [1.0] * 39 + [1e300]}, {"label": "kind", "features": ["x"]}, "column 'x' of .* but got 1e.300"),
        ({"y": [1.0] * 39 + [np.inf]}, {"targets": "y", "features": ["x"]}, "column 'y' of .* finite"),
        ({}, {"label": "y", "features": ["x"]}, "column 'y' of .* to hold classes .*float64; argument `targets`"),
        ({"kind": "a"}, {"label": "kind", "features": ["x"]}, "at least two classes"),
        ({"part": "dev"}, {"label": "kind", "features": ["x"], "split_column": "part"}, "but got 'dev'"),
        ({"part": "test"}, {"label": "kind", "features": ["x"], "split_column": "part"}, "training split"),
    ],
)
def test_bad_columns(tmp_path, change, arguments, message):
    path = write(frame().assign(**change), tmp_path, ".csv")
    with pytest.raises(ValueError, match=message):
        Table(path, **arguments).setup()


def test_bad_files(tmp_path):
    for name, content in (
        ("missing.csv", None),
        ("empty.csv", b""),
        ("text.parquet", b"a,b\n1,2\n"),
        ("b.csv", b"\xff\xfe\x00"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="`path` to be a readable table, but got"):
            Table(tmp_path / name, label="b").setup()
    (tmp_path / "header.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="table with rows, but got none"):
        Table(tmp_path / "header.csv", label="b").setup()
    for arguments in ({}, {"label": "a", "targets": "b"}):
        with pytest.raises(ValueError, match="one of arguments `label` and `targets`"):
            Table("a.csv", **arguments)


def test_parquet_needs_the_extra(tmp_path, monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(imports.importlib, "import_module", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lightning-transfer\[parquet\]"):
        Table(tmp_path / "table.parquet", label="a").setup()
