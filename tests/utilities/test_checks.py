"""Every refusal names the argument and what was received, and good input comes back as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_transfer.utilities.checks import (
    check_features,
    check_in_interval,
    check_labels,
    check_one_of,
    check_path,
    check_positive_int,
    check_probabilities,
    check_seed,
    check_targets,
    flatten_positions,
)

GOOD = torch.tensor([[0.0, 1.0], [2.0, 3.0], [-4.0, 5.0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_good_features_come_back(dtype):
    assert torch.equal(check_features(GOOD.to(dtype)), GOOD.to(dtype))
    assert not check_features(GOOD.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([[1.0]], "2D floating point tensor, but got list"),
        (torch.ones(3), r"got a tensor of shape \(3,\)"),
        (torch.ones(3, 2, dtype=torch.long), "dtype torch.int64"),
        (torch.ones(0, 2), r"hold samples, but got shape \(0, 2\)"),
        (torch.ones(2, 0), r"hold samples, but got shape \(2, 0\)"),
    ],
)
def test_bad_features(bad, message):
    with pytest.raises(ValueError, match=f"`outputs` to .*{message}"):
        check_features(bad, "outputs")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_counted(dtype, bad):
    broken = GOOD.to(dtype).clone()
    broken[1] = bad
    for check in (check_features, lambda x: check_targets(x, 3)):
        with pytest.raises(ValueError, match="finite, but got 2 NaN or infinite values"):
            check(broken)


def test_sums_that_overflow_are_no_reason():
    check_features(torch.full((4, 1), 6e4, dtype=torch.float16))
    check_features(torch.full((4, 1), 3e38))
    check_features(torch.full((4, 1), 9.9e74, dtype=torch.float64))


def test_sizes_whose_fourth_power_vanishes():
    tiny = torch.full((2, 2), -1e-160, dtype=torch.float64)
    with pytest.raises(ValueError, match="`features` to be at least 1e-75 in size, but got 1e-160"):
        check_features(tiny)
    with pytest.raises(ValueError, match="`targets` to be at least 1e-75"):
        check_targets(tiny, 2)
    for good in (torch.zeros(2, 2, dtype=torch.float64), tiny + torch.eye(2), torch.full((2, 2), 1e-45)):
        assert check_features(good) is not None


@pytest.mark.parametrize("sign", [-1, 1])
def test_sizes_whose_fourth_power_overflows(sign):
    with pytest.raises(ValueError, match=r"`features` to be at most 1e\+75 in size, but got 2e\+80"):
        check_features(torch.tensor([[0.0], [sign * 2e80]], dtype=torch.float64))
    with pytest.raises(ValueError, match="`targets` to be at most"):
        check_targets(torch.tensor([0.0, sign * 2e80], dtype=torch.float64), 2)


def test_arrays_say_how_they_become_tensors():
    for bad in (np.zeros((3, 2)), [[0.0, 1.0]]):
        with pytest.raises(ValueError, match=rf"{type(bad).__name__} \(torch.as_tensor makes a tensor of it\)"):
            check_features(bad)
    with pytest.raises(ValueError, match=r"but got list\.$"):
        check_labels(["a", "b"], 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_become_int64(dtype):
    labels = check_labels(torch.tensor([0, 7, 3], dtype=dtype), 3, num_classes=8)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 7, 3]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([0.0, 1.0, 2.0]), "1D integer tensor"),
        (torch.tensor([[0], [1], [2]]), r"shape \(3, 1\)"),
        (torch.ones(3, 2).long(), r'`task = "regression"` of the data or the module makes them targets'),
        (torch.tensor([0, 1]), "3 rows like the other inputs, but got 2"),
        (torch.tensor([0, -1, 2]), "class ids from 0, but got -1"),
        (torch.tensor([0, 1, 5]), "below num_classes=4, but got 5"),
    ],
)
def test_bad_labels(bad, message):
    with pytest.raises(ValueError, match=message):
        check_labels(bad, 3, num_classes=4)


def test_targets_become_a_matrix():
    assert check_targets(torch.ones(3), 3).shape == (3, 1)
    assert check_targets(torch.ones(3, 2), 3).shape == (3, 2)
    assert check_targets(torch.ones(3, dtype=torch.long), 3).dtype == torch.float64
    for bad in (torch.ones(3, 0), torch.ones(3, 1, 1), torch.ones(3, dtype=torch.cfloat), torch.ones(2)):
        with pytest.raises(ValueError, match="`targets`"):
            check_targets(bad, 3)


def test_rows_off_the_simplex():
    good = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        check_probabilities(good.to(dtype), 2)
    with pytest.raises(ValueError, match=r"non-negative, but got -0\.25"):
        check_probabilities(torch.tensor([[-0.25, 1.25]]), 1)
    with pytest.raises(ValueError, match=r"sums to 1\.5"):
        check_probabilities(torch.tensor([[0.75, 0.75]]), 1)
    with pytest.raises(ValueError, match="1 rows like"):
        check_probabilities(good, 1)


def test_positions_become_samples():
    tokens, labels = torch.arange(12.0).view(2, 3, 2), torch.tensor([[0, 1, 9], [1, 9, 0]])
    features, flat = flatten_positions(tokens, labels, ignore_index=9)
    assert flat.tolist() == [0, 1, 1, 0]
    assert features.tolist() == [[0.0, 1.0], [2.0, 3.0], [6.0, 7.0], [10.0, 11.0]]
    pixels, flat = flatten_positions(tokens.movedim(-1, 1).unsqueeze(-1), labels.unsqueeze(-1), ignore_index=9)
    assert torch.equal(pixels, features)
    assert flat.tolist() == [0, 1, 1, 0]
    with pytest.raises(ValueError, match=r"`labels` to have shape \(2, 3\).* but got \(3, 2\)"):
        flatten_positions(tokens, labels.T)
    assert flatten_positions([1.0], labels) == ([1.0], labels)  # for later checks to name


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan, "1", None, True])
def test_numbers_outside_an_interval(bad):
    assert check_in_interval(1, 0, 1, "share") == 1.0
    assert type(check_in_interval(np.float32(0.5), 0, 1, "share")) is float
    with pytest.raises(ValueError, match=r"`share` to be a number in \[0, 1\]"):
        check_in_interval(bad, 0, 1, "share")


@pytest.mark.parametrize("bad", [0, 1.0, True, "2", None])
def test_numbers_that_do_not_count(bad):
    assert check_positive_int(3, "k") == 3
    assert type(check_positive_int(np.int32(3), "k")) is int
    with pytest.raises(ValueError, match="`k` to be an integer of at least 1"):
        check_positive_int(bad, "k")


@pytest.mark.parametrize("bad", [-1, 2**63, 1.0, True, "2", None])
def test_numbers_that_are_no_seeds(bad):
    assert check_seed(np.int64(2**40)) == 2**40
    with pytest.raises(ValueError, match=r"`seed` to be an integer from 0 to 2\*\*63 - 1, but got"):
        check_seed(bad)


def test_choices_and_paths(tmp_path):
    check_one_of(None, ("a", None), "mode")
    with pytest.raises(ValueError, match=r"`mode` to be one of .*'a'.* but got 'c'"):
        check_one_of("c", ("a", "b"), "mode")
    assert check_path(str(tmp_path), "folder") == tmp_path
    for bad in (3, ""):
        with pytest.raises(ValueError, match=f"`folder` to be a path, but got {bad!r}"):
            check_path(bad, "folder")
