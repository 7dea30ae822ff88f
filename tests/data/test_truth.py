from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_transfer.data.truth import encode_truth

MARKS = [[0, 1, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (np.array(["b", "a", "b"], object), ("a", "b"), [1, 0, 1]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (torch.tensor([True, False, True]), ("False", "True"), [1, 0, 1]),
        ([5, 1, 5], ("1", "5"), [1, 0, 1]),
        (torch.tensor([[1], [-1], [1]]), ("-1", "1"), [1, 0, 1]),
        (np.array([2, 10, 2], np.uint8), ("2", "10"), [0, 1, 0]),
    ],
)
def test_classes(values, names, ids):
    truth = encode_truth({"train": values})
    assert (truth.task, truth.key, truth.names) == ("classification", "labels", names)
    assert truth.values["train"].tolist() == ids
    assert truth.values["train"].dtype == torch.int64


def test_classes_are_numbered_over_all_splits():
    truth = encode_truth({"train": ["b", "d"], "test": ["c", "b"]})
    assert truth.names == ("b", "c", "d")
    assert {split: ids.tolist() for split, ids in truth.values.items()} == {"train": [0, 2], "test": [1, 0]}


def test_known_names():
    names = ["ant", "bee", "cow"]
    assert encode_truth({"train": [2, 0]}, names).values["train"].tolist() == [2, 0]
    assert encode_truth({"train": ["cow", "ant"]}, names).values["train"].tolist() == [2, 0]
    assert encode_truth({"train": [[0, 2], [], [1]]}, names).values["train"].tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 1, 0],
    ]
    assert encode_truth({"train": MARKS}, names).values["train"].tolist() == MARKS
    for values, message in (
        ([3, 0], "ids from 0 to 2, but got 0 to 3"),
        (["cow", "dog"], r"among .*, but got \['dog'\]"),
        ([[0, 3]], r"ids below 3, but got \[0, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            encode_truth({"train": values}, names)


@pytest.mark.parametrize("convert", [np.array, torch.tensor, lambda marks: torch.tensor(marks).float(), list])
def test_several_labels(convert):
    truth = encode_truth({"train": convert(MARKS)})
    assert (truth.task, truth.names) == ("multilabel", ("0", "1", "2"))
    assert torch.equal(truth.values["train"], torch.tensor(MARKS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_targets(dtype):
    values = torch.tensor([0.5, -1.0, 2.0])
    truth = encode_truth({"train": values.to(dtype), "val": [1.5]})
    assert (truth.task, truth.key, truth.names) == ("regression", "targets", ("target",))
    assert torch.equal(truth.values["train"], values[:, None])
    assert truth.values["val"].shape == (1, 1)


def test_the_task_decides_where_values_do_not():
    assert encode_truth({"train": [3, 1]}, task="regression").values["train"].tolist() == [[3.0], [1.0]]
    assert encode_truth({"train": [3.0, 1.0]}, task="classification").names == ("1", "3")
    two = encode_truth({"train": [[0, 1], [1, 1]]}, task="regression", names=["x", "y"])
    assert (two.names, two.values["train"].dtype) == (("x", "y"), torch.float32)
    for values, task, message in (
        ([0.5], "classification", "whole numbers"),
        ([0.5], "multilabel", "zeros and ones"),
        (["a"], "regression", "numbers, but got text"),
        ([1], "clustering", "`task` to be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            encode_truth({"train": values}, task=task)


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(2, 4, 4, dtype=torch.long),
        [[1, 2, 3], [4, 5, 6]],
        [[1, 2], [3]],
        [{"boxes": [1]}, {"boxes": [2]}],
        [object(), object()],
    ],
)
def test_dense_outputs_are_refused_in_one_line(values):
    with pytest.raises(ValueError, match=r"dense outputs \(segmentation, detection, one label a token\)") as error:
        encode_truth({"train": values})
    assert "\n" not in str(error.value)


def test_labels_of_tokens_are_not_taken_for_sets_of_classes():
    assert encode_truth({"train": [[0, 2], [1]]}, names="abc").task == "multilabel"
    with pytest.raises(ValueError, match=r"each label of a sample once.*one label a token"):
        encode_truth({"train": [[0, 0, 2], [1]]}, names="abc")


def test_gaps_and_infinite_targets():
    with pytest.raises(ValueError, match="no gaps"):
        encode_truth({"train": ["a", None]})
    with pytest.raises(ValueError, match="to be finite"):
        encode_truth({"train": [0.5, float("nan")]})
