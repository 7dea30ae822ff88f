from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zipfile
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_diabetes, load_iris

from lightning_transfer.data import BundledTable, PictureTable, Table, TextTable, as_datamodule, reading
from lightning_transfer.functional import linear_mse
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


def test_several_columns_of_zeros_and_ones_are_several_labels(tmp_path):
    path = tmp_path / "signs.csv"
    path.write_text("\n".join(["width,red,round,kind", *(f"{i},{i % 2},{i % 3 == 0},{i}" for i in range(40))]))
    for data in (
        Table(path, label=["red", "round"], features="width"),
        as_datamodule(path, input_key="width", label_key=["red", "round"]),
    ):
        assert (data.task, data.class_names, data.num_classes) == ("multilabel", ("red", "round"), 2)
        assert data.train_dataset[0]["labels"].dtype == torch.int64
        assert data.train_dataset.truth.sum(0).tolist() == pytest.approx([14, 10], abs=3)
    assert Table(path, label=["red"], features="width").task == "classification"
    with pytest.raises(ValueError, match=r"column 'kind' of .* zeros and ones, .* but got 2;"):
        Table(path, label=["red", "kind"], features="width").setup()
    with pytest.raises(ValueError, match=r"`label_key` to be a column of .* but got 'rond'"):
        as_datamodule(path, input_key="width", label_key=["red", "rond"])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq"])
def test_formats(tmp_path, suffix):
    table = frame()
    path = write(table, tmp_path, suffix)
    data = Table(path, label="kind", features=["x", "flag"], standardize=False, val_fraction=0, test_fraction=0)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.train_dataset.inputs.dtype == torch.float32
    np.testing.assert_allclose(data.train_dataset.inputs, table[["x", "flag"]].to_numpy(float), rtol=1e-6)
    assert [data.class_names[i] for i in data.train_dataset.truth] == table["kind"].tolist()


def test_numbers_of_databases(tmp_path):
    """Decimals, and types that may have gaps."""
    table = frame()
    data = Table(write(table, tmp_path, ".parquet"), targets="y", features=["x", "count", "flag"]).train_dataset
    columns = {"count": table["count"].astype("Int64"), "flag": table["flag"].astype("boolean")}
    for number, kinds in enumerate(
        [{"x": "Float64", "y": "Float64"}, {"x": "double[pyarrow]", "y": "double[pyarrow]"}]
    ):
        table.assign(**columns).astype(kinds).to_parquet(path := tmp_path / f"{number}.pq")
        found = Table(path, targets="y", features=["x", "count", "flag"]).train_dataset
        assert torch.equal(found.inputs, data.inputs)
        assert torch.equal(found.truth, data.truth)
    price = pa.array([Decimal(f"{n}.25") for n in range(40)])
    pq.write_table(pa.table({"price": price, "kind": ["a", "b"] * 20}), tmp_path / "prices.parquet")
    inputs = Table(tmp_path / "prices.parquet", label="kind", standardize=False, val_fraction=0, test_fraction=0)
    assert inputs.train_dataset.inputs[3] == 3.25
    assert as_datamodule(tmp_path / "prices.parquet", input_key="price", label_key="kind").input_shape == (1,)


def test_regression_with_a_split_column(tmp_path):
    path = write(frame(), tmp_path, ".csv")
    data = Table(path, targets=["y", "count"], features=["x"], split_column="part", standardize=False)
    assert (data.task, data.target_names) == ("regression", ("y", "count"))
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [25, 5, 10]
    for dataset in (data.train_dataset, data.val_dataset, data.test_dataset):
        torch.testing.assert_close(dataset.truth[:, 0], 2 * dataset.inputs[:, 0])
    assert data.test_dataset.truth[:, 1].tolist() == list(range(30, 40))
    assert Table(path, targets="y", features=["x"]).train_dataset.truth.shape == (28, 1)


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
        assert [names[i] for i in data.train_dataset.truth[:4]] == [str(value) for value in values]
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


class TestFarFromZero:
    """Columns whose differences float32 cannot hold: coordinates, times."""

    NORTHING = 5_400_000 + np.arange(400) / 256
    SECONDS = 1_700_000_000 + np.arange(400)

    def table(self, tmp_path, suffix=".csv"):
        kind = np.array(["left", "right"])[(np.arange(400) > 200).astype(int)]
        table = pd.DataFrame(
            {"northing": self.NORTHING, "seconds": self.SECONDS, "kind": kind, "x": np.arange(400) / 7}
        )
        return write(table, tmp_path, suffix)

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_features_are_standardised_before_they_are_rounded(self, tmp_path, suffix):
        path = self.table(tmp_path, suffix)
        data = Table(path, label="kind", features=["northing", "seconds"], val_fraction=0, test_fraction=0)
        inputs = data.train_dataset.inputs
        assert inputs.dtype == torch.float32
        expected = (np.arange(400) - 199.5) / np.arange(400).std()
        for column in range(2):
            np.testing.assert_allclose(inputs[:, column], expected, rtol=1e-5, atol=1e-5)

    def test_features_that_are_not_standardised_are_remarked_upon(self, tmp_path):
        data = Table(self.table(tmp_path), label="kind", standardize=False)
        with pytest.warns(UserWarning, match="float32 rounds too much away of 2 columns that are not standardised$"):
            data.setup()

    @pytest.mark.parametrize("first", [1_700_000_000_000_000_000, -(2**63), 2**63])
    def test_integers_that_float64_cannot_tell_apart(self, tmp_path, first):
        kind = np.uint64 if first > 0 else np.int64
        table = pd.DataFrame({"time": np.array([first + i for i in range(50)], kind), "kind": ["a", "b"] * 25})
        data = Table(write(table, tmp_path, ".parquet"), label="kind", val_fraction=0, test_fraction=0)
        expected = (np.arange(50) - 24.5) / np.arange(50).std()
        np.testing.assert_allclose(data.train_dataset.inputs[:, 0], expected, rtol=1e-5, atol=1e-5)

    def test_targets(self, tmp_path):
        path = self.table(tmp_path)
        far = Table(
            path, targets=["seconds", "x"], features="northing", split_column=None, val_fraction=0, test_fraction=0
        )
        assert far.train_dataset.truth.dtype == torch.float64
        assert far.train_dataset.truth[:, 0].tolist() == self.SECONDS.tolist()
        near = Table(path, targets="x", features="northing", val_fraction=0, test_fraction=0)
        assert near.train_dataset.truth.dtype == torch.float32

    def test_a_probe_finds_what_there_is(self, tmp_path):
        data = Table(self.table(tmp_path), targets="x", features=["seconds"], val_fraction=0, test_fraction=0)
        inputs, targets = data.train_dataset.inputs, data.train_dataset.truth
        assert float(linear_mse(inputs.double(), targets.double())) > -1e-9

    def test_constant_columns_stay_constant(self, tmp_path):
        table = pd.DataFrame({"x": [0.1 + 0.2, 0.3] * 20, "y": [1e9 / 3] * 40, "kind": ["a", "b"] * 20})
        data = Table(write(table, tmp_path, ".parquet"), label="kind", val_fraction=0, test_fraction=0)
        assert data.train_dataset.inputs.eq(0).all()


class TestWordsForGaps:
    WORDS = ("NA", "None", "null", "nan", "N/A", "other")

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".parquet"])
    def test_are_classes(self, tmp_path, suffix):
        table = pd.DataFrame({"x": np.arange(60.0), "kind": list(self.WORDS) * 10})
        data = Table(write(table, tmp_path, suffix), label="kind", val_fraction=0, test_fraction=0)
        assert data.class_names == tuple(sorted(self.WORDS))
        assert [data.class_names[i] for i in data.train_dataset.truth] == table["kind"].tolist()
        expected = () if suffix == ".parquet" else ("taken for words, not for gaps: N/A, NA, None, nan, null",)
        assert data.remarks == expected

    def test_are_classes_where_nothing_else_is(self, tmp_path):
        table = pd.DataFrame({"x": np.arange(40.0), "kind": ["NA", "null"] * 20})
        data = Table(write(table, tmp_path, ".csv"), label="kind", val_fraction=0, test_fraction=0)
        assert data.class_names == ("NA", "null")

    def test_stay_gaps_among_numbers(self, tmp_path):
        table = pd.DataFrame({"x": ["1.5", "NA"] * 20, "kind": ["a", "b"] * 20, "id": ["1", "2", "NA", "3"] * 10})
        path = write(table, tmp_path, ".csv")
        with pytest.raises(ValueError, match=r"column 'x' of .* no gaps"):
            Table(path, label="kind", features="x").setup()
        with pytest.raises(ValueError, match=r"column 'id' of .* no gaps"):
            Table(path, label="id", features=[]).setup()
        (tmp_path / "gap.csv").write_text("x,kind\n" + "1,NA\n2,\n" * 20)
        with pytest.raises(ValueError, match=r"column 'kind' of .* no gaps"):
            Table(tmp_path / "gap.csv", label="kind").setup()


@pytest.mark.parametrize("suffix", [".TSV", ".Tsv.gz", ".CSV", ".PARQUET"])
def test_endings_in_capitals(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    write(frame(), tmp_path, suffix.lower()).rename(path)
    assert Table(path, label="kind", features=["x", "flag"]).input_shape == (2,)


class TestColumnsWithoutAName:
    @pytest.mark.parametrize("start", [0, 1])
    def test_an_index_is_no_feature(self, tmp_path, start):
        table = frame().drop(columns="part")
        table.index += start
        table.to_csv(tmp_path / "a.csv")
        data = Table(tmp_path / "a.csv", label="kind")
        assert (data.input_shape, data.remarks) == ((4,), ())

    def test_others_are_named(self, tmp_path):
        table = frame().drop(columns="part").set_index(pd.Index(np.arange(40) % 7))
        table.to_csv(tmp_path / "a.csv")
        data = Table(tmp_path / "a.csv", label="kind")
        with pytest.warns(UserWarning, match="columns without a name are no features: Unnamed: 0"):
            assert data.input_shape == (4,)
        assert Table(tmp_path / "a.csv", label="kind", features=["Unnamed: 0", "x"]).input_shape == (2,)


def test_words_for_splits(tmp_path):
    table = frame().replace({"part": {"train": "Training", "val": "validation", "test": "TEST"}})
    data = Table(write(table, tmp_path, ".csv"), label="kind", features="x", split_column="part")
    assert [len(d) for d in (data.train_dataset, data.val_dataset, data.test_dataset)] == [25, 5, 10]


class TestCategories:
    def test_one_column_for_each_value(self, tmp_path):
        path = write(frame(), tmp_path, ".csv")
        arguments = {"features": ["x", "kind"], "categories": "kind", "split_column": "part"}
        data = Table(path, targets="y", standardize=False, **arguments)
        assert data.input_shape == (4,)
        expected = frame()["kind"][:25].map({"ant": [1, 0, 0], "cat": [0, 1, 0], "dog": [0, 0, 1]}).tolist()
        assert data.train_dataset.inputs[:, 1:].tolist() == expected
        scaled = Table(path, targets="y", **arguments).train_dataset.inputs
        torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(4))

    def test_words_for_gaps(self, tmp_path):
        table = frame().assign(kind=["NA", "a"] * 20)
        data = Table(write(table, tmp_path, ".csv"), targets="y", features="kind", categories=["kind"])
        with pytest.warns(UserWarning, match="taken for words, not for gaps: NA"):
            assert data.input_shape == (2,)


class TestTextTable:
    TEXTS = ("a fine film", "null", "a long evening, twice", "")

    def table(self, texts):
        return pd.DataFrame({"review": texts * 10, "stars": [5, 1, 2] * 10, "mood": ["good", "bad", "bad"] * 10})

    @pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".parquet"])
    def test_texts_and_labels(self, tmp_path, suffix):
        table = self.table(list(self.TEXTS[:3]))
        path = write(table, tmp_path, suffix)
        data = TextTable(path, text="review", label="stars", val_fraction=0, test_fraction=0, batch_size=30)
        assert (data.name, data.task, data.class_names, data.input_shape) == (
            "table",
            "classification",
            ("1", "2", "5"),
            (),
        )
        batch = next(iter(data.predict_dataloader()))
        assert batch["inputs"] == table["review"].tolist()
        assert [int(data.class_names[i]) for i in batch["labels"]] == table["stars"].tolist()
        targets = TextTable(path, text="review", targets="stars", val_fraction=0.5)
        assert (targets.task, targets.train_dataset.truth.shape[1]) == ("regression", 1)

    def test_bad_columns(self, tmp_path):
        path = write(self.table(["a", "b", ""]), tmp_path, ".csv")
        for arguments, message in (
            (
                {"text": "review", "label": "mood"},
                "column 'review' of .* no gaps, but got 10 missing values in 30 rows: fill",
            ),
            ({"text": "stars", "label": "mood"}, "column 'stars' of .* to hold text, but got 5"),
            ({"text": "body", "label": "mood"}, "'body' to be a column of .*; it has: review, stars, mood"),
        ):
            with pytest.raises(ValueError, match=message):
                TextTable(path, **arguments).setup()


def test_classes_that_cannot_be_sorted(tmp_path):
    table = pd.DataFrame({"x": range(4), "kind": [[1], [2], [1], [2]]})
    with pytest.raises(ValueError, match="to hold classes as text or integers, but got: unhashable"):
        Table(write(table, tmp_path, ".parquet"), label="kind").setup()


class TestPictureTable:
    @pytest.fixture
    def table(self, tmp_path):
        (tmp_path / "files").mkdir()
        names = [f"files/{number}.png" for number in range(6)]
        for number, name in enumerate(names):
            Image.new("RGB", (20 + number, 16), (40 * number, 0, 0)).save(tmp_path / name)
        return pd.DataFrame({"file": names, "kind": ["cat", "dog"] * 3, "size": np.arange(6.0)})

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_pictures_reach_networks_as_they_are(self, tmp_path, table, suffix):
        path = write(table, tmp_path, suffix)
        data = PictureTable(path, picture="file", label="kind", image_size=8, val_fraction=0, test_fraction=0)
        assert data.train_dataset[3]["inputs"].shape == (3, 8, 8)
        assert [picture.width for picture in data.train_dataset.originals().inputs] == [20, 21, 22, 23, 24, 25]
        assert [data.class_names[label] for label in data.train_dataset.truth] == table["kind"].tolist()
        numbers = PictureTable(path, picture="file", targets="size", val_fraction=0, test_fraction=0)
        assert numbers.train_dataset.truth[:, 0].tolist() == [0, 1, 2, 3, 4, 5]

    def test_the_folder_may_be_elsewhere(self, tmp_path, table):
        table["file"] = [
            str(tmp_path / "files" / "0.png"),
            *(name.removeprefix("files/") for name in table["file"][1:]),
        ]
        path = write(table, tmp_path, ".csv")
        data = PictureTable(
            path, picture="file", label="kind", root=tmp_path / "files", val_fraction=0, test_fraction=0
        )
        assert data.train_dataset[5]["inputs"][0, 0, 0] == 200

    def test_pictures_that_cannot_be_read(self, tmp_path, table):
        (tmp_path / "files" / "2.png").write_bytes(b"nothing")
        path = write(table, tmp_path, ".csv")
        options = {"picture": "file", "label": "kind", "val_fraction": 0, "test_fraction": 0}
        with pytest.raises(ValueError, match=r"2\.png to be a readable picture"):
            PictureTable(path, **options).train_dataset[2]
        data = PictureTable(path, on_error="skip", **options)
        with pytest.warns(UserWarning, match="1 of 6 pictures could not be read"):
            data.setup()
        assert data.train_dataset.truth.tolist() == [0, 1, 1, 0, 1]
        assert data.remarks == ("1 of 6 pictures could not be read and were left out: 2.png",)

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["https://a.b/1.png"] * 6, "files on this machine"),
            ([f"gone/{i}.png" for i in range(6)], "to name pictures below"),
            (list(range(6)), "files on this machine"),
        ],
    )
    def test_what_names_no_pictures_is_refused(self, tmp_path, table, names, message):
        path = write(table.assign(file=names), tmp_path, ".csv")
        with pytest.raises(ValueError, match=message):
            PictureTable(path, picture="file", label="kind").setup()
        with pytest.raises(ValueError, match=r"'picture' to be a column .* it has: file, kind, size"):
            PictureTable(path, picture="picture", label="kind").setup()


class TestLies:
    def refuse(self, path, message):
        tracemalloc.start()
        with pytest.raises(ValueError, match=rf"`path` to be a readable table, but got: .*{message}"):
            Table(path, label="b").setup()
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()

    @pytest.mark.parametrize("end", ["gz", "bz2", "xz"])
    def test_bombs(self, tmp_path, end, monkeypatch):
        monkeypatch.setattr(reading, "_FREE", 2**18)
        opener = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[end]
        path = tmp_path / f"a.csv.{end}"
        with opener(path, "wb") as file:
            file.write(b"a,b\n")
            file.write(b"1,2\n" * 2**18)
        self.refuse(path, rf"unpacks to more than {max(2**18, 200 * path.stat().st_size)} bytes")

    def test_zip_files(self, tmp_path):
        path = tmp_path / "a.csv.zip"
        text = frame().to_csv(index=False)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", text)
        assert Table(path, label="kind", features="x").num_classes == 3
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("b.csv", text)
        self.refuse(path, "to hold one file, but got 2")

    @pytest.mark.parametrize("end", ["gz", "bz2", "xz", "zip", "parquet"])
    def test_damaged_archives(self, tmp_path, end):
        path = tmp_path / f"a.csv.{end}"
        path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + bytes(100))
        self.refuse(path, "")

    def test_a_parquet_file_of_very_many_rows(self, tmp_path, monkeypatch):
        monkeypatch.setattr(reading, "_FREE", 2**20)
        path = tmp_path / "a.parquet"
        schema = pa.schema([("a", pa.int8()), ("b", pa.int8())])
        with pq.ParquetWriter(path, schema) as writer:
            writer.write_table(pa.table([np.zeros(2**17, np.int8)] * 2, schema=schema))
        self.refuse(path, "hold at most 1048576 bytes .*, but got 2097152")


def test_scikit_learn_tables():
    diabetes = BundledTable("diabetes", val_fraction=0, test_fraction=0, standardize=False)
    raw = load_diabetes()
    np.testing.assert_allclose(diabetes.train_dataset.inputs, raw.data, rtol=1e-6)
    np.testing.assert_allclose(diabetes.train_dataset.truth[:, 0], raw.target)
    iris = BundledTable("iris", val_fraction=0, test_fraction=0, standardize=False)
    assert (iris.name, iris.class_names) == ("iris", ("setosa", "versicolor", "virginica"))
    np.testing.assert_allclose(iris.train_dataset.inputs, load_iris().data, rtol=1e-6)
    assert iris.train_dataset.truth.tolist() == load_iris().target.tolist()
    assert BundledTable("linnerud").target_names == ("Weight", "Waist", "Pulse")
    assert [BundledTable(name).num_classes for name in ("wine", "breast_cancer")] == [3, 2]
    with pytest.raises(ValueError, match="`table` to be one of"):
        BundledTable("boston")


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"label": "sort"}, "'sort' to be a column of .*; it has: x, count"),
        ({}, {"label": "kind", "features": ["x", "x"]}, "column 'x' of .* used once"),
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
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="`path` to be a readable table, but got"):
            Table(tmp_path / name, label="b").setup()
    (tmp_path / "b.csv").write_bytes("a,b\ncafé,1\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"table in UTF-8, but .*b\.csv holds the byte 0xe9: save it as UTF-8"):
        Table(tmp_path / "b.csv", label="b").setup()
    (tmp_path / "b.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"to be CSV, TSV or Parquet, but got '.*b\.xlsx': save it as CSV"):
        Table(tmp_path / "b.xlsx", label="b").setup()
    (tmp_path / "semicolons.csv").write_text("a;b\n1;2\n")
    with pytest.raises(ValueError, match=r"it has: a;b\. Cells seem to be set apart by ';': save it with commas"):
        Table(tmp_path / "semicolons.csv", label="b").setup()
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


def test_a_row_wider_than_its_header_is_refused_at_once(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_bytes(b"a,y\n" + b"1," * 50_000 + b"\n")
    with pytest.raises(ValueError, match=r"the first row of .*wide\.csv has 50001 cells and its header 2"):
        Table(path, label="y").setup()


def test_one_cell_more_than_names_is_the_name_of_the_row_and_said(tmp_path):
    path = tmp_path / "named.csv"
    path.write_text("a,y\n" + "".join(f"row{i},{i},{i % 2}\n" for i in range(30)))
    data = Table(path, label="y", val_fraction=0, test_fraction=0, standardize=False)
    data.setup()
    assert data.train_dataset.inputs.shape == (30, 1)
    assert any("first cell of each row" in remark for remark in data.remarks)


def test_a_compressed_table_that_grows_too_far_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"a,y\n")
        for _ in range(80):
            file.write(b"1,2\n" * 2**18)
    tracemalloc.start()
    with pytest.raises(ValueError, match="unpacks to more than"):
        Table(path, label="y").setup()
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_rows_that_end_in_a_comma_are_read(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("\n".join(["width,kind", *(f"{i},{'ab'[i % 2]}," for i in range(10))]))
    data = Table(path, label="kind", standardize=False, val_fraction=0, test_fraction=0)
    assert (data.class_names, data.train_dataset[3]["inputs"].tolist()) == (("a", "b"), [3.0])
    path.write_text(
        "\n".join(["width,note,kind", *(f"{i},,{'ab'[i % 2]}" for i in range(10))])
    )  # an empty cell is none
    assert Table(path, label="kind", features="width").class_names == ("a", "b")


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("text,kind,kind", {"label": "kind"}, "2 columns of .*notes.csv are called 'kind': rename them"),
        ("text, kind,size", {"label": "kind"}, "a column of .*; did you mean ' kind'"),
        ("text,kind,size", {"label": "Kind"}, "a column of .*; did you mean 'kind'"),
        ("text,kind,size", {"label": "text"}, "'text' of .* to be used once, but got it twice"),
        ("text,kind,size", {"targets": "kind"}, "'kind' of .* numbers, .*; classes are read by label=kind"),
        ("text,kind,size\none,two,3,4,5", {"label": "kind"}, "the first row of .* has 5 cells and its header 3"),
        ("text,kind,size\na,b,1\none,two,3,4,5", {"label": "kind"}, "saw 5; text with commas has to be quoted"),
    ],
)
def test_what_is_wrong_with_columns_is_said(tmp_path, header, options, message):
    path = tmp_path / "notes.csv"
    path.write_text("\n".join([header, *(f"some words,kind{i % 2},{i}" for i in range(8))]))
    with pytest.raises(ValueError, match=message):
        TextTable(path, text="text", **options).setup()
