"""Tables: tabular features with class labels or regression targets, from CSV, Parquet or scikit-learn's wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.data.base import (
    SPLITS,
    Inputs,
    LoadedData,
    TransferDataModule,
    TransferDataset,
    draw_splits,
    round_targets,
    rounded_away,
    some_of,
    split_of,
)
from lightning_transfer.data.images import ImageFiles, unreadable_pictures
from lightning_transfer.data.reading import check_size, largest_size, open_unzipped
from lightning_transfer.data.samples import LazyInputs
from lightning_transfer.inputs import Task
from lightning_transfer.utilities.checks import (
    check_features,
    check_one_of,
    check_path,
    check_positive_int,
    check_targets,
)
from lightning_transfer.utilities.files import check_regular
from lightning_transfer.utilities.groups import number_groups, read_groups
from lightning_transfer.utilities.imports import require

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 2**20  # bytes
_NO_TABLES = (".json", ".jsonl", ".ods", ".xls", ".xlsx")
_SEPARATORS = (";", "\t", "|")
_FIRST = 100  # cells that are looked at for names of files
_PARQUET = (".parquet", ".pq")
_CLASSIFICATION = ("breast_cancer", "iris", "wine")
_REGRESSION = ("diabetes", "linnerud")


class Table(TransferDataModule):
    """Rows of numbers with a column of classes or columns of regression targets.

    Args:
        path: A file that ends in ``.parquet`` or ``.pq`` (needs ``pip install lightning-transfer[parquet]``), in
            ``.tsv``, or else CSV with a header line, possibly compressed (``.gz``, ``.bz2``, ``.xz``, ``.zip``).
        label: Column of the classes: text, categories, booleans or integers; the sorted values are the class names.
            Several columns, of zeros and ones, are several labels a row (multi-label). Among text the words ``NA``,
            ``None`` and ``null`` are classes, and only an empty cell is a gap.
        targets: Column or columns of numbers to predict, instead of ``label``.
        features: Column or columns of the inputs; by default all the others that have a name, which must then be
            numbers unless ``categories`` names them.
        categories: Those columns of the inputs that hold categories (text, booleans or integers): each becomes one
            column of zeros and ones for each of its values.
        split_column: Column that says ``train``, ``val`` (or ``valid``, ``validation``) or ``test``, in any case;
            without it the splits are drawn.
        standardize: Subtract the training split's mean from every feature and divide by its standard deviation, in
            float64 (constant features become 0). The statistics are those before classes are chosen, so that a
            reference and a target cut from one table agree.
        groups: Column that says which rows belong together (a patient, a document): no feature, and none of them is
            divided by splits that are drawn, leave-one-out scores, intervals or the halves of the bound.
        val_fraction: Share of the training rows for validation where it is drawn, stratified by class.
        test_fraction: Share of the training rows for the test where it is drawn, stratified by class.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If not exactly one of ``label`` and ``targets`` is given; on reading, if the file or a column is
            missing, or a column has gaps or a wrong type.

    Example:
        >>> import pathlib, tempfile
        >>> from lightning_transfer.data import Table
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "table.csv"
        >>> _ = path.write_text(chr(10).join(["width,kind", *["1,cat", "3,dog"] * 5]))
        >>> Table(path, label="kind", val_fraction=0.2).class_names
        ('cat', 'dog')
    """

    default_name = "table"
    reads_groups = True

    def __init__(
        self,
        path: str | Path,
        label: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        features: str | Sequence[str] | None = None,
        categories: str | Sequence[str] | None = None,
        split_column: str | None = None,
        standardize: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        groups: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (label is None) == (targets is None):
            raise ValueError(
                "Expected one of arguments `label` and `targets`, which name columns, but got "
                f"{label!r} and {targets!r}."
            )
        self.path = check_path(path, "path")
        self.call_after(self.path)
        several = _listed(label)
        self.label = several[0] if len(several) == 1 else None
        self.labels = several if len(several) > 1 else []
        self.targets = _listed(targets)
        self.features = None if features is None else _listed(features)
        self.categories = _listed(categories)
        self.split_column = split_column
        self.groups = groups
        self.standardize = standardize
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def load(self) -> LoadedData:
        """Read the table, split its rows and standardise the features, all in float64."""
        frame, remarks = self._frame()
        truth = [self.label] if self.label is not None else self.labels or self.targets
        given = [str(column) for column in (self.split_column, self.groups) if column is not None]
        features = self._features(frame, {*truth, *given}, remarks)
        used = [*features, *truth, *given]
        self._check_columns(frame, used, numbers=[*self._numbers(features), *self.labels, *self.targets])
        inputs = self._inputs(frame, features)
        groups = None
        if self.groups is not None:
            found = read_groups(frame[self.groups].tolist(), name=f"column {self.groups!r} of {self.path}")
            groups = number_groups(found, f"column {self.groups!r} of {self.path}")[0]
        task: Task = "classification"
        if self.labels:
            task, names = "multilabel", tuple(self.labels)
            dataset = TransferDataset(inputs, self._zeros_and_ones(frame), "labels", groups)
        elif self.label is None:
            task = "regression"
            values = check_targets(torch.tensor(frame[self.targets].to_numpy(np.float64)), len(frame))
            dataset = TransferDataset(inputs, round_targets({"all": values})["all"], "targets", groups)
            names = tuple(self.targets)
        else:
            codes, classes = self._classes(frame[self.label])
            dataset = TransferDataset(inputs, torch.from_numpy(codes.astype(np.int64)), "labels", groups)
            names = tuple(str(value) for value in classes)
        splits = draw_splits(self._given(frame, dataset), self.seed, self.val_fraction, self.test_fraction)
        splits = self._finish(splits, frame[features], remarks)
        return LoadedData(task, splits, names, tuple(remarks))

    def _zeros_and_ones(self, frame: pd.DataFrame) -> Tensor:
        values = frame[self.labels].to_numpy(np.float64)
        strange = np.argwhere((values != 0) & (values != 1))
        if len(strange):
            row, column = strange[0]
            raise ValueError(
                f"Expected column {self.labels[column]!r} of {self.path} to hold zeros and ones, being one of several "
                f"labels, but got {values[row, column]:g}; argument `targets` predicts numbers."
            )
        return torch.from_numpy(values.astype(np.int64))

    def _numbers(self, features: list[str]) -> list[str]:
        """Those of the columns of inputs that have to be numbers."""
        return [column for column in features if column not in self.categories]

    def _inputs(self, frame: pd.DataFrame, features: list[str]) -> Inputs:
        """The inputs of all rows, in float64; a category becomes a column of zeros and ones for each value."""
        blocks = [
            _one_hot(frame[column]) if column in self.categories else self._column(frame[column]) for column in features
        ]
        rows = np.concatenate(blocks, axis=1) if blocks else np.empty((len(frame), 0))
        return check_features(torch.from_numpy(rows), "features")

    def _column(self, column: pd.Series) -> np.ndarray:
        """One column of numbers, shape ``(n, 1)``; integers that float64 would round count from the smallest of them.

        (Only where they are standardised, to which where they start from is all the same.)
        """
        if self.standardize and column.dtype.kind in "iu":
            values = column.to_numpy(np.int64 if column.dtype.kind == "i" else np.uint64)
            if max(abs(int(values.min())), abs(int(values.max()))) > 2**53:
                apart: np.ndarray = (values - values.min()).view(np.uint64)  # exact, also where int64 overflows
                return apart.astype(np.float64)[:, None]
        return column.to_numpy(np.float64)[:, None]

    def _finish(
        self, splits: dict[str, TransferDataset], columns: pd.DataFrame, remarks: list[str]
    ) -> dict[str, TransferDataset]:
        """Standardise the inputs and make them float32."""
        inputs = cast("Tensor", splits["train"].inputs)
        if self.standardize and len(inputs):
            noise: list[float] = []
            for name, kind in columns.dtypes.items():
                if name in self.categories:
                    noise += [0.0] * columns[name].astype(str).nunique()
                else:
                    kind = getattr(kind, "numpy_dtype", kind)  # of columns that may have gaps
                    noise.append(float(np.finfo(kind).eps) if kind.kind == "f" else 0.0)
            splits = _standardized(splits, 4 * torch.tensor(noise, dtype=torch.float64))
        elif lost := int(rounded_away(inputs).sum()):
            remarks.append(f"float32 rounds too much away of {lost} columns that are not standardised")
        return {split: d.with_inputs(_as_float32(d.inputs)) for split, d in splits.items()}

    def _classes(self, column: pd.Series) -> tuple[np.ndarray, Any]:
        try:
            return column.factorize(sort=True)
        except TypeError as error:  # values that cannot be compared, or lists
            raise ValueError(
                f"Expected column {self.label!r} of {self.path} to hold classes as text or integers, but got: {error}"
            ) from error

    def _frame(self) -> tuple[pd.DataFrame, list[str]]:
        """The table, and what is to be said of it."""
        if self.path.suffix.lower() in _PARQUET:
            require("pyarrow", extra="parquet")
        if self.path.suffix.lower() in _NO_TABLES:
            raise ValueError(
                f"Expected argument `path` to be CSV, TSV or Parquet, but got {str(self.path)!r}: save it as CSV."
            )
        try:
            return _read_parquet(self.path) if self.path.suffix.lower() in _PARQUET else self._read_text()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected argument `path` to be a table in UTF-8, but {self.path} holds the byte "
                f"{error.object[error.start]:#04x}: save it as UTF-8."
            ) from error
        except Exception as error:  # damaged files raise anything: zlib.error, MemoryError, ...
            reason = str(error).strip() or type(error).__name__
            if "Error tokenizing data" in reason:
                reason = f"{reason.removeprefix('Error tokenizing data. C error: ')}; text with commas has to be quoted"
            raise ValueError(f"Expected argument `path` to be a readable table, but got: {reason}") from error

    def _read_text(self) -> tuple[pd.DataFrame, list[str]]:
        import pandas as pd

        ends = [suffix.lower() for suffix in self.path.suffixes]
        options: dict[str, Any] = {"sep": "\t" if ".tsv" in ends else ",", "low_memory": False}
        with open_unzipped(self.path) as file:
            while file.read(_CHUNK):  # what unpacks to too much is refused before anything is made of it
                pass
        said = self._check_first_row(options)
        with open_unzipped(self.path) as file:
            frame = pd.read_csv(file, **options)
        named = [column for column in (self.label, *self.categories) if column in frame.columns]
        text = [column for column in named if _may_hold_words(frame[column])]
        if not text:
            return frame, said
        with open_unzipped(self.path) as file:  # in text "NA", "None" and "null" are words, only nothing is a gap
            words = pd.read_csv(file, usecols=text, dtype=str, keep_default_na=False, na_values=[""], **options)
        taken = sorted({str(word) for column in text for word in words[column][frame[column].isna()].dropna()})
        said += [f"taken for words, not for gaps: {', '.join(taken)}"] if taken else []
        return frame.assign(**{str(column): words[column] for column in text}), said

    def _check_first_row(self, options: dict[str, Any]) -> list[str]:
        """Refuse a first row of more cells than the header has names for, but for one; say what becomes of that one."""
        import pandas as pd

        with open_unzipped(self.path) as file:
            header = pd.read_csv(file, header=None, nrows=1, dtype=str, **options).iloc[0].tolist()
        names = len(header)
        asked = {self.label, self.split_column, self.groups, *self.labels, *self.targets, *(self.features or ())}
        if twice := [name for name in asked if header.count(name) > 1]:
            raise ValueError(f"{header.count(twice[0])} columns of {self.path} are called {twice[0]!r}: rename them")
        with open_unzipped(self.path) as file:
            try:
                first = pd.read_csv(file, header=None, skiprows=1, nrows=1, **options)
            except pd.errors.EmptyDataError:
                return []
        cells = first.shape[1]
        if cells == names + 1 and first.iloc[0].notna().tolist() == [True] * names + [False]:
            options["index_col"] = False  # rows end in a separator, and the header does not
            return []
        if cells > names + 1:
            raise ValueError(f"the first row of {self.path} has {cells} cells and its header {names}")
        return ["the first cell of each row has no name in the header and is left out"] if cells > names else []

    def _features(self, frame: pd.DataFrame, apart: set[str], remarks: list[str]) -> list[str]:
        """The columns of the inputs; one without a name, as an index leaves it, is none unless it is asked for."""
        if self.features is not None:
            return self.features
        rest = [column for column in frame.columns if column not in apart]
        nameless = [column for column in rest if re.fullmatch(r"Unnamed: \d+", str(column))]
        if strange := [column for column in nameless if not _is_counter(frame[column].to_numpy())]:
            remarks.append(f"columns without a name are no features: {', '.join(strange)}")
        return [column for column in rest if column not in nameless]

    def _check_columns(self, frame: pd.DataFrame, used: list[str], numbers: list[str]) -> None:
        from pandas.api.types import is_float_dtype

        if frame.empty:
            raise ValueError(f"Expected argument `path` to be a table with rows, but got none in {self.path}.")
        listing = ", ".join(str(column) for column in frame.columns)
        for column in used:
            if list(frame.columns).count(column) != 1:
                apart = next((sign for sign in _SEPARATORS if frame.shape[1] == 1 and sign in listing), None)
                near = get_close_matches(column, map(str, frame.columns), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                hint = hint if apart is None else f". Cells seem to be set apart by {apart!r}: save it with commas."
                raise ValueError(f"Expected {column!r} to be a column of {self.path}; it has: {listing}{hint}")
            if used.count(column) > 1:
                raise ValueError(f"Expected column {column!r} of {self.path} to be used once, but got it twice.")
            if gaps := int(frame[column].isna().sum()):
                raise ValueError(
                    f"Expected column {column!r} of {self.path} to have no gaps, but got {gaps} missing values in "
                    f"{len(frame)} rows: fill them in or leave these rows out."
                )
        if self.label is not None and is_float_dtype(frame[self.label]):
            raise ValueError(
                f"Expected column {self.label!r} of {self.path} to hold classes as text or integers, but got "
                f"{frame[self.label].dtype}; argument `targets` predicts numbers."
            )
        for column in numbers:
            if not _is_numeric(frame[column]):
                remedy = "argument `features` chooses columns, and `categories` names those of text"
                if column in (*self.targets, *self.labels):
                    remedy = f"classes are read by label={column}"
                raise ValueError(
                    f"Expected column {column!r} of {self.path} to hold numbers, but got {frame[column].dtype}; "
                    f"{remedy}."
                )
            with np.errstate(over="ignore"):
                finite = np.isfinite(frame[column].to_numpy(np.float32))
            if not finite.all():
                raise ValueError(
                    f"Expected column {column!r} of {self.path} to hold finite float32 numbers, but got "
                    f"{frame[column][~finite].iloc[0]}."
                )

    def _given(self, frame: pd.DataFrame, dataset: TransferDataset) -> dict[str, TransferDataset]:
        if self.split_column is None:
            return {"train": dataset}
        marks = {mark: split_of(str(mark)) for mark in frame[self.split_column].unique().tolist()}
        for mark, split in marks.items():
            if split is None:
                check_one_of(mark, SPLITS, f"split_column ({self.split_column})")
        splits = frame[self.split_column].map(marks).to_numpy()
        rows = {split: torch.from_numpy(np.flatnonzero(splits == split)) for split in SPLITS}
        return {split: dataset.select(index) for split, index in rows.items() if len(index) or split == "train"}


class TextTable(Table):
    """Rows of text with a column of classes or of numbers to predict: reviews with their stars, messages with a topic.

    Any backbone that takes text turns the raw strings into features with its own tokenizer.

    Args:
        path: A file as for :class:`~lightning_transfer.data.Table`.
        text: Column of the texts.
        label: Column of the classes: text, categories, booleans or integers; the sorted values are the class names.
            Or several columns of zeros and ones: several labels a row.
        targets: Column or columns of numbers to predict, instead of ``label``.
        kwargs: Further arguments of :class:`~lightning_transfer.data.Table`, such as ``groups``, and of
            :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If not exactly one of ``label`` and ``targets`` is given; on reading, if the file or a column is
            missing, or a column has gaps or a wrong type.

    Example:
        >>> import pathlib, tempfile
        >>> from lightning_transfer.data import TextTable
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "reviews.csv"
        >>> _ = path.write_text(chr(10).join(["review,stars", *["a fine film,5", "a long evening,2"] * 5]))
        >>> data = TextTable(path, text="review", label="stars", val_fraction=0, test_fraction=0)
        >>> data.class_names, data.train_dataset[1]
        (('2', '5'), {'inputs': 'a long evening', 'labels': tensor(0)})
    """

    default_name = "text"

    def __init__(
        self,
        path: str | Path,
        text: str = "text",
        label: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, label=label, targets=targets, features=text, categories=text, **kwargs)

    def _inputs(self, frame: pd.DataFrame, features: list[str]) -> Inputs:
        texts = frame[features[0]].tolist()
        for value in texts:
            if not isinstance(value, str):
                raise ValueError(
                    f"Expected column {features[0]!r} of {self.path} to hold text, but got {value!r}; numbers are read "
                    "by `Table` (target=table)."
                )
        return LazyInputs(texts)

    def _finish(
        self, splits: dict[str, TransferDataset], columns: pd.DataFrame, remarks: list[str]
    ) -> dict[str, TransferDataset]:
        return splits


class PictureTable(Table):
    """Rows that name picture files, with a column of classes or of numbers to predict.

    Args:
        path: A file as for :class:`~lightning_transfer.data.Table`.
        picture: Column of the names of the files, relative to ``root``; absolute paths are taken as they are.
        label: Column of the classes: text, categories, booleans or integers; the sorted values are the class names.
            Or several columns of zeros and ones: several labels a row.
        targets: Column or columns of numbers to predict, instead of ``label``.
        root: Folder of the pictures; by default that of the table.
        image_size: As for :class:`~lightning_transfer.data.ImageFolder`.
        on_error: What a picture that cannot be read does: ``"raise"`` a ValueError when its turn comes, or ``"skip"``:
            every picture is read once beforehand, and those that fail are left out and named in :attr:`remarks`.
        kwargs: Further arguments of :class:`~lightning_transfer.data.Table`, such as ``groups``, and of
            :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If not exactly one of ``label`` and ``targets`` is given; on reading, if the table, a column or all
            the pictures are missing, or a column has gaps or a wrong type.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from lightning_transfer.data import PictureTable
        >>> root = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("1.png", "2.png"):
        ...     Image.new("RGB", (32, 24)).save(root / name)
        >>> _ = (root / "table.csv").write_text(chr(10).join(["file,kind", "1.png,cat", "2.png,dog"]))
        >>> data = PictureTable(root / "table.csv", picture="file", label="kind", val_fraction=0, test_fraction=0)
        >>> data.class_names, data.input_shape
        (('cat', 'dog'), (3, 224, 224))
    """

    default_name = "pictures"

    def __init__(
        self,
        path: str | Path,
        picture: str = "path",
        label: str | Sequence[str] | None = None,
        targets: str | Sequence[str] | None = None,
        root: str | Path | None = None,
        image_size: int = 224,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(path, label=label, targets=targets, features=picture, categories=picture, **kwargs)
        self.root = self.path.parent if root is None else check_path(root, "root")
        self.image_size = check_positive_int(image_size, "image_size")
        check_one_of(on_error, ("raise", "skip"), "on_error")
        self.on_error = on_error

    def _inputs(self, frame: pd.DataFrame, features: list[str]) -> Inputs:
        column = f"column {features[0]!r} of {self.path}"
        names = frame[features[0]].tolist()
        for name in names:
            if not isinstance(name, str) or "://" in name:
                raise ValueError(f"Expected {column} to hold names of files on this machine, but got {name!r}.")
        paths = [self.root / name for name in names]
        if not any(path.is_file() for path in paths):
            raise ValueError(
                f"Expected {column} to name pictures below {self.root}, but there is no {str(paths[0])!r}."
            )
        return ImageFiles(paths, self.image_size)

    def _finish(
        self, splits: dict[str, TransferDataset], columns: pd.DataFrame, remarks: list[str]
    ) -> dict[str, TransferDataset]:
        if self.on_error == "raise":
            return splits
        kept = {}
        for split, dataset in splits.items():
            paths = cast("ImageFiles", dataset.inputs).paths
            bad = set(unreadable_pictures(paths))
            good = [place for place, path in enumerate(paths) if path not in bad]
            kept[split] = dataset.select(torch.tensor(good, dtype=torch.long)) if bad else dataset
            if bad:
                where = "" if split == "train" else f" of {split}"
                listed = some_of([path.name for path in paths if path in bad])
                remarks.append(
                    f"{len(paths) - len(good)} of {len(paths)} pictures{where} could not be read and were left out: "
                    f"{listed}"
                )
        return kept


class BundledTable(Table):
    """One of the small tables inside the scikit-learn wheel: a regression or classification target without any file.

    Args:
        table: ``diabetes`` (442 rows, 10 features, disease progression), ``linnerud`` (20 rows, 3 features, 3 targets),
            ``iris`` (150, 4, 3 classes), ``wine`` (178, 13, 3 classes) or ``breast_cancer`` (569, 30, 2 classes).
        standardize: As for :class:`~lightning_transfer.data.Table`.
        val_fraction: Share of the rows for validation, stratified by class.
        test_fraction: Share of the rows for the test, stratified by class.
        kwargs: Arguments of :class:`~lightning_transfer.data.TransferDataModule`.

    Raises:
        ValueError: If the table is unknown.

    Example:
        >>> from lightning_transfer.data import BundledTable
        >>> data = BundledTable("diabetes")
        >>> data.task, data.target_names, data.input_shape, len(data.train_dataset)
        ('regression', ('target',), (10,), 310)
    """

    def __init__(
        self,
        table: str = "diabetes",
        standardize: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        **kwargs: Any,
    ) -> None:
        check_one_of(table, (*_CLASSIFICATION, *_REGRESSION), "table")
        self.default_name = table
        targets = {"diabetes": ["target"], "linnerud": ["Weight", "Waist", "Pulse"]}.get(table)
        super().__init__(
            table,
            label="target" if targets is None else None,
            targets=targets,
            standardize=standardize,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            **kwargs,
        )

    def _frame(self) -> tuple[pd.DataFrame, list[str]]:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{self.path}")(as_frame=True)
        frame: pd.DataFrame = bunch.frame
        if self.label is not None:
            frame = frame.assign(target=bunch.target_names[bunch.target])
        return frame, []


def is_table(path: Path) -> bool:
    """Whether a file's name ends as that of a table does, compressed or not."""
    return any(suffix.lower() in (".csv", ".tsv", *_PARQUET) for suffix in path.suffixes[-2:])


def open_table(
    path: Path,
    input_key: str | None = None,
    label_key: str | Sequence[str] | None = None,
    group_key: str | None = None,
    **options: Any,
) -> Table:
    """The datamodule for a table, by what its columns hold.

    Args:
        path: The table.
        input_key: Column of the inputs: texts, names of pictures' files (relative to the table) or numbers. By default
            all columns that nothing else is said of, if they hold numbers.
        label_key: Column of the classes; numbers that are not whole are values to predict. Several columns of zeros
            and ones: several labels a row.
        group_key: Column of what says which rows belong together.
        options: Further arguments of :class:`Table`, :class:`TextTable` or :class:`PictureTable`.

    Raises:
        ValueError: If a column is not named, or there is none of that name; the columns that there are stand in it.
    """
    from pandas.api.types import is_float_dtype

    frame = Table(path, label=label_key or "")._frame()[0]  # read again later: passes cost more
    listing = ", ".join(str(column) for column in frame.columns)
    truths = _listed(label_key)
    for argument, key in (*(("label_key", key) for key in truths), ("input_key", input_key)):
        if key is not None and key not in frame.columns:
            raise ValueError(
                f"Expected argument `{argument}` to be a column of {path}, but got {key!r}; it has: {listing}."
            )
    if not truths:
        raise ValueError(
            f"Expected argument `label_key` to be a column of {path}, but none was given; it has: {listing}."
        )
    truth = "targets" if is_float_dtype(frame[truths[0]]) and len(truths) == 1 else "label"
    named: dict[str, Any] = {truth: truths, "groups": group_key, **options}
    if input_key is None:
        inputs = frame.drop(
            columns=[name for name in (*truths, group_key) if name is not None and name in frame.columns]
        )
        words = [str(name) for name in inputs.columns if not _is_numeric(inputs[name])]
        if words and not {"features", "categories"} & set(options):
            raise ValueError(
                f"Expected argument `input_key` to name the column of the texts or pictures of {path}, one of "
                f"{', '.join(words)}; for numbers and categories, `Table(path, {truth}={label_key!r}, categories=...)`."
            )
        return Table(path, **named)
    column = frame[input_key]
    if _is_numeric(column):
        return Table(path, features=input_key, **named)
    root = options.get("root", path.parent)
    if any(isinstance(cell, str) and os.path.isfile(os.path.join(root, cell)) for cell in column[:_FIRST]):
        return PictureTable(path, picture=input_key, **named)
    return TextTable(path, text=input_key, **named)


def _listed(columns: str | Sequence[str] | None) -> list[str]:
    return [] if columns is None else [columns] if isinstance(columns, str) else list(columns)


def _is_numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, those of databases (decimals) among them."""
    from pandas.api.types import infer_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) or infer_dtype(column) == "decimal")


def _one_hot(column: pd.Series) -> np.ndarray:
    import pandas as pd

    return pd.get_dummies(column.astype(str)).to_numpy(np.float64)


def _read_parquet(path: Path) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd
    from pyarrow.parquet import ParquetFile

    check_regular(path)

    with ParquetFile(path) as file:  # a page of one repeated value may stand for any number of rows
        cells = file.metadata.num_rows * file.metadata.num_columns
    check_size(8 * cells, largest_size(path), str(path))
    return pd.read_parquet(path), []


def _is_counter(values: np.ndarray) -> bool:
    return any(np.array_equal(values, np.arange(start, start + len(values))) for start in (0, 1))


def _as_float32(inputs: Inputs) -> Tensor:
    return cast("Tensor", inputs).float()


def _may_hold_words(column: pd.Series) -> bool:
    """Whether gaps of a column may be words: it is text, or nothing else is in it."""
    gaps = column.isna()
    return bool(gaps.any()) and (column.dtype.kind not in "fiub" or bool(gaps.all()))


def _standardized(splits: dict[str, TransferDataset], noise: Tensor) -> dict[str, TransferDataset]:
    """Centre and scale by the training split; what spreads less than ``noise`` times the mean is constant."""
    features = {split: cast("Tensor", dataset.inputs) for split, dataset in splits.items()}
    train = features["train"]
    mean, spread = train.mean(dim=0), train.std(dim=0, correction=0)
    varies = (spread > noise * mean.abs()) & (train.amax(dim=0) > train.amin(dim=0))
    scaled = {
        split: torch.where(varies, (x - mean) / torch.where(varies, spread, 1.0), 0.0) for split, x in features.items()
    }
    return {split: d.with_inputs(scaled[split]) for split, d in splits.items()}
