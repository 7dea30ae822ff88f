from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from _helpers import make_inputs
from _reference.label_scores import reference_knn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from lightning_transfer.functional import knn_accuracy

module = importlib.import_module("lightning_transfer.functional.knn_accuracy")  # the function hides its module


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(8, 40), st.integers(1, 7), st.integers(1, 3))
def test_equals_the_reference_on_a_grid_full_of_ties(seed, n, k, width):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    features = rng.integers(3, size=(n, width)).astype(np.float64)
    value = knn_accuracy(torch.as_tensor(features), torch.as_tensor(labels), k=k)
    assert float(value) == pytest.approx(reference_knn(features, labels, k), abs=1e-12)
    order = rng.permutation(n)
    assert float(knn_accuracy(torch.as_tensor(features[order]), torch.as_tensor(labels[order]), k=k)) == float(value)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("k", [1, 4, 109])
def test_equals_the_reference(cosine, k):
    inputs = make_inputs()
    features, labels = inputs["features"], inputs["labels"]
    value = knn_accuracy(features, labels, k=k, distance="cosine" if cosine else "euclidean")
    assert float(value) == pytest.approx(reference_knn(features, labels, k, cosine), abs=1e-12)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.96), (3, 0.96), (5, 0.96667), (13, 0.96667)])
def test_iris(k, expected):  # values of transformer-ranker 0.2.0
    features, labels = load_iris(return_X_y=True)
    value = knn_accuracy(torch.as_tensor(features), torch.as_tensor(labels), k=k)
    assert float(value) == pytest.approx(expected, abs=1e-5)


def test_blocks_change_nothing(monkeypatch):
    inputs = make_inputs()
    whole = float(knn_accuracy(inputs["features"], inputs["labels"], k=3))
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 700)
    assert float(knn_accuracy(inputs["features"], inputs["labels"], k=3)) == whole


def test_float32_features_far_from_zero():
    inputs = make_inputs()
    near = float(knn_accuracy(inputs["features"], inputs["labels"]))
    far = (inputs["features"] + 1000).float()
    assert float(knn_accuracy(far, inputs["labels"])) == pytest.approx(near, abs=0.02)


def reshaped(kind, features):
    if kind == "outlier":
        features[3] *= 1000
    elif kind == "dominant_feature":
        features[:, 2] = 1e4 + 100 * features[:, 2]
    elif kind == "far":
        features += 1e4
    else:
        features *= {"huge": 1e25, "tiny": 1e-25}[kind]
    return features


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("kind", ["outlier", "dominant_feature", "far", "huge", "tiny"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_narrow_features_have_the_neighbours_of_their_exact_values(dtype, kind, cosine):
    inputs, distance = make_inputs(), "cosine" if cosine else "euclidean"
    features, labels = reshaped(kind, inputs["features"].clone()).to(dtype), inputs["labels"]
    value = float(knn_accuracy(features, labels, k=3, distance=distance))
    features = features.double()
    assert value == float(knn_accuracy(features, labels, k=3, distance=distance))
    if dtype != torch.bfloat16:  # which has ties that the rounding of the reference would break
        features = features / features.abs().max()
        assert value == pytest.approx(reference_knn(features, labels, 3, cosine), abs=1e-12)


def test_tied_votes_go_to_the_smallest_class():
    # each sample has one neighbour of either class at its side
    features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    outcomes = module.knn_outcomes(features, torch.tensor([0, 1, 0, 1]), k=2)
    assert outcomes.tolist() == [1.0, 0.0, 0.0, 0.0]  # the class-0 samples first


def test_attributes_each_have_a_majority():
    inputs = make_inputs()
    columns = torch.stack([(inputs["labels"] == c).long() for c in range(4)], dim=1)
    single = [float(knn_accuracy(inputs["features"], column, k=3)) for column in columns.T]
    assert float(knn_accuracy(inputs["features"], columns, k=3)) == pytest.approx(np.mean(single), abs=1e-12)
    with pytest.raises(ValueError, match="zeros and ones"):
        knn_accuracy(inputs["features"], 2 * columns)


def test_zero_vectors_have_a_cosine():
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 0.0]])
    assert 0 <= float(knn_accuracy(features, torch.tensor([0, 1, 1, 0]), distance="cosine")) <= 1


def test_zero_vectors_are_at_a_right_angle_to_all_others():
    # the first is nearer to the second, 73 degrees away, than to the zero vector of its class
    features = torch.tensor([[1.0, 0.0], [0.3, 1.0], [0.0, 0.0]])
    outcomes = module.knn_outcomes(features, torch.tensor([0, 1, 0]), distance="cosine")
    assert outcomes.tolist() == [0.0, 1.0, 0.0]


def test_options_are_checked():
    inputs = make_inputs(n=8)
    with pytest.raises(ValueError, match="`k` to be less than the number of samples 8"):
        knn_accuracy(inputs["features"], inputs["labels"], k=8)
    with pytest.raises(ValueError, match="`k` to be an integer"):
        knn_accuracy(inputs["features"], inputs["labels"], k=0)
    with pytest.raises(ValueError, match="`distance` to be one of"):
        knn_accuracy(inputs["features"], inputs["labels"], distance="manhattan")


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_are_left_out_whole(k, distance, dtype):
    generator = torch.Generator().manual_seed(k)
    labels = torch.randint(3, (90,), generator=generator)
    features = (torch.randn(90, 5, generator=generator) + labels[:, None]).to(dtype)
    groups = torch.randint(15, (90,), generator=generator) * 100
    model = KNeighborsClassifier(k, metric=distance, algorithm="brute")
    predicted = cross_val_predict(model, features, labels, groups=groups, cv=LeaveOneGroupOut())
    expected = (predicted == labels.numpy()).mean()
    assert float(knn_accuracy(features, labels, k=k, distance=distance, groups=groups)) == pytest.approx(expected)


def test_groups_of_one_sample_change_nothing():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 3, generator=generator), torch.arange(40) % 4
    alone = torch.randperm(40, generator=generator)
    assert knn_accuracy(features, labels, k=3, groups=alone) == knn_accuracy(features, labels, k=3)


@pytest.mark.parametrize(
    ("groups", "k", "message"),
    [
        (torch.zeros(6, dtype=torch.long), 1, "`groups` to hold at least 2 groups, but got 1"),
        (torch.tensor([0, 0, 0, 0, 1, 1]), 3, "`k` to be at most the 2 samples outside a group, but got 3"),
        (torch.tensor([0, 1]), 1, r"`groups` to have one id a sample, shape \(6,\), but got \(2,\)"),
        (torch.tensor([0, 0, 1, 1, 1, -1]), 1, "`groups` to hold ids from 0, but got -1"),
    ],
)
def test_groups_that_cannot_be_left_out_are_refused(groups, k, message):
    with pytest.raises(ValueError, match=message):
        knn_accuracy(torch.randn(6, 2), torch.arange(6) % 2, k=k, groups=groups)
