"""Ids of groups: what they are read from, and how groups are divided."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_transfer.utilities.groups import (
    check_groups,
    groups_of_positions,
    number_groups,
    parts_of,
    read_groups,
    rows_of_groups,
)


def test_text_has_the_same_id_wherever_it_is_read():
    first, second = read_groups(["ann", "bob", "ann"]), read_groups(np.array(["bob"]))
    assert first.dtype == torch.int64
    assert first[0] == first[2] != first[1] == second[0]
    assert int(first.min()) >= 0


@pytest.mark.parametrize(
    "values",
    [[3, 3, 1], torch.tensor([3, 3, 1], dtype=torch.int32), np.array([3.0, 3.0, 1.0]), pd.Series([3, 3, 1]), (3, 3, 1)],
    ids=["list", "tensor", "floats", "column", "tuple"],
)
def test_whole_numbers_stay_what_they_are(values):
    assert read_groups(values, 3).tolist() == [3, 3, 1]


@pytest.mark.parametrize(
    "values",
    [[2**64 - 1, 5, 2**64 - 1], np.array([2**64 - 1, 5, 2**64 - 1], dtype=np.uint64)],
    ids=["list", "unsigned"],
)
def test_numbers_of_more_than_63_bits_are_ids_too(values):
    first, second, third = read_groups(values).tolist()
    assert first == third >= 0
    assert second == 5
    assert read_groups([2**64 - 2]).item() != first


def test_a_column_of_one_text_a_row_is_read():
    assert read_groups(np.array([["a"], ["b"]])).tolist() == read_groups(["a", "b"]).tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b"],
        ["a", " ", "b"],
        [1.0, float("nan"), 2.0],
        [1, -1, 2],
        pd.Series([1, None, 2]),
        ["a", np.nan, "b"],
        np.ma.array([1, 2, 3], mask=[False, True, False]),
    ],
    ids=["none", "empty", "nan", "negative", "column", "text and nan", "masked"],
)
def test_missing_ids_are_counted(values):
    with pytest.raises(ValueError, match="`patient` to name the group of every sample, but got 1 without one"):
        read_groups(values, name="patient")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], "one id for each of 3 samples, but got 2"),
        ("abc", "one id a sample"),
        (torch.zeros(3, 2), r"one id a sample, but got shape \(3, 2\)"),
        ([0.5, 1.0, 2.0], "whole numbers or text, but got 0.5"),
        ([["a"], ["b", "c"], []], "`groups` to hold one id a sample"),
        ([1, 2, float("inf")], "whole numbers or text, but got inf"),
        ({"a": 1, "b": 2, "c": 3}, "one id a sample"),
        ({1, 2, 3}, "one id a sample"),
    ],
)
def test_values_that_are_no_ids_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        read_groups(values, 3)


def test_names_of_files_and_narrow_numbers_are_ids_too():
    odd = "\udcff.png"  # how Python reads a name that is no text
    assert read_groups([odd, "b", odd]).unique().numel() == 2
    assert read_groups(torch.tensor([3.0, 1.0], dtype=torch.bfloat16)).tolist() == [3, 1]


def test_positions_have_the_group_of_their_sample():
    groups, labels = torch.tensor([4, 9]), torch.tensor([[0, 1, -1], [1, -1, 0]])
    features = torch.zeros(2, 3, 5)
    assert groups_of_positions(groups, features, labels).tolist() == [4, 4, 4, 9, 9, 9]
    assert groups_of_positions(groups, features, labels, -1).tolist() == [4, 4, 9, 9]
    assert groups_of_positions(None, features, labels) is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (torch.zeros(3), "integer tensor of ids, but got dtype torch.float32"),
        ([0, 1], "integer tensor of ids, but got list"),
        (torch.zeros(3, dtype=torch.long), r"one id a sample, shape \(2,\), but got \(3,\)"),
        (torch.tensor([0, -1]), "ids from 0, but got -1"),
    ],
)
def test_malformed_ids_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        check_groups(groups, (2,))


def test_one_group_leaves_nothing_out():
    with pytest.raises(ValueError, match="at least 2 groups, but got 1"):
        number_groups(torch.tensor([5, 5]))


def test_rows_of_groups():
    numbers, count = number_groups(torch.tensor([8, 3, 8, 5]))
    assert count == 3
    assert [rows.tolist() for rows in rows_of_groups(numbers)] == [[1], [3], [0, 2]]


@pytest.mark.parametrize("parts", [1, 5, 16])
def test_parts_of_numbered_groups_are_even(parts):
    found = parts_of(torch.arange(163), parts)
    counts = torch.bincount(found, minlength=parts)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(parts_of(torch.arange(163).flip(0), parts).flip(0), found)


@pytest.mark.parametrize(
    "ids", [10 * torch.arange(160), 256 * torch.arange(160), read_groups([f"p{i}" for i in range(160)])]
)
def test_parts_of_other_ids_are_spread(ids):
    counts = torch.bincount(parts_of(ids, 16), minlength=16)
    assert counts.min() >= 2
    assert counts.max() <= 20
