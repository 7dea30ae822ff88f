from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from _reference.golden import formula_inputs
from _reference.label_scores import reference_hardness, reference_miller_madow, reference_nce
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional import conditional_entropy_matrix, negative_conditional_entropy, task_hardness

label_lists = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 6), min_size=n, max_size=n), st.lists(st.integers(0, 4), min_size=n, max_size=n)
    )
)


def random_labels(n=200, source_classes=7, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.integers(source_classes, size=n)
    labels = np.where(rng.random(n) < 0.6, source % classes, rng.integers(classes, size=n))
    return torch.as_tensor(source), torch.as_tensor(labels)


@settings(deadline=None, max_examples=25)
@given(label_lists)
def test_equals_the_reference_and_keeps_its_range(lists):
    source, labels = lists
    if len(set(labels)) < 2:
        return
    value = float(negative_conditional_entropy(torch.tensor(source), torch.tensor(labels)))
    assert value == pytest.approx(reference_nce(source, labels), abs=1e-12)
    assert -reference_hardness(labels) - 1e-12 <= value <= 0
    assert float(task_hardness(torch.tensor(labels))) == pytest.approx(reference_hardness(labels), abs=1e-12)


def test_value_of_the_formula_set():
    inputs = formula_inputs()
    value = negative_conditional_entropy(inputs["source_labels"], inputs["labels"])
    assert float(value) == pytest.approx(-0.9582813852, abs=1e-10)


def test_limits():
    labels = torch.arange(60) % 3
    assert float(negative_conditional_entropy((labels + 1) * 5, labels)) == 0  # bijection
    assert float(negative_conditional_entropy(torch.arange(60), labels)) == 0  # as fine as the samples
    constant = torch.zeros(60, dtype=torch.long)
    assert float(negative_conditional_entropy(constant, labels)) == pytest.approx(-math.log(3), abs=1e-12)
    split = torch.arange(60) % 12  # four equal target classes in each source class
    assert float(negative_conditional_entropy(split % 3, split)) == pytest.approx(-math.log(4), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_miller_madow_correction(seed):
    source, labels = random_labels(40, seed=seed)
    plain = float(negative_conditional_entropy(source, labels))
    corrected = float(negative_conditional_entropy(source, labels, miller_madow=True))
    assert plain - corrected == pytest.approx(reference_miller_madow(source.tolist(), labels.tolist()), abs=1e-12)
    hardness = float(task_hardness(labels, miller_madow=True) - task_hardness(labels))
    assert hardness == pytest.approx((len(labels.unique()) - 1) / 80, abs=1e-12)


def test_miller_madow_brings_small_samples_nearer_to_the_truth():
    many = random_labels(200_000)
    truth = float(negative_conditional_entropy(*many))
    pairs = [[part[i : i + 60] for part in many] for i in range(0, 6000, 60)]
    plain = np.mean([float(negative_conditional_entropy(*pair)) for pair in pairs])
    corrected = np.mean([float(negative_conditional_entropy(*pair, miller_madow=True)) for pair in pairs])
    assert abs(corrected - truth) < 0.5 * abs(plain - truth)


def test_source_log_likelihood_is_added():
    source, labels = random_labels()
    bound = negative_conditional_entropy(source, labels, source_log_likelihood=-0.7)
    assert float(bound) == pytest.approx(float(negative_conditional_entropy(source, labels)) - 0.7, abs=1e-12)


def test_wide_gaps_between_ids_cost_nothing():
    source, labels = random_labels()
    far = negative_conditional_entropy(source * 10**9, labels * 10**12)
    assert float(far) == float(negative_conditional_entropy(source, labels))
    assert float(task_hardness(labels * 10**12)) == float(task_hardness(labels))


def test_positions_are_flattened_and_ignored_ones_left_out():
    source, labels = random_labels(240)
    expected = float(negative_conditional_entropy(source, labels))
    for shape in ((12, 20), (3, 8, 10)):
        assert float(negative_conditional_entropy(source.reshape(shape), labels.reshape(shape))) == expected
    marked = labels.clone()
    marked[::3] = -100
    kept = marked >= 0
    expected = float(negative_conditional_entropy(source[kept], labels[kept]))
    shaped = negative_conditional_entropy(source.reshape(12, 20), marked.reshape(12, 20), ignore_index=-100)
    assert float(shaped) == expected
    hardness = task_hardness(marked.reshape(12, 20), ignore_index=-100)
    assert float(hardness) == float(task_hardness(labels[kept]))
    assert float(task_hardness(labels.reshape(3, 8, 10))) == float(task_hardness(labels))


def test_several_labels_a_sample_are_averaged():
    source, _ = random_labels()
    columns = torch.stack([(source + j) % (j + 2) for j in range(3)], dim=1)
    single = [float(negative_conditional_entropy(source, column)) for column in columns.T]
    assert float(negative_conditional_entropy(source, columns)) == pytest.approx(np.mean(single), abs=1e-12)
    hardness = [float(task_hardness(column)) for column in columns.T]
    assert float(task_hardness(columns)) == pytest.approx(np.mean(hardness), abs=1e-12)


# ---- all pairs at once ----------------------------------------------------------------------------------------------


def task_columns(n=300, count=5, seed=0):
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 3))
    columns = [np.digitize(hidden @ rng.standard_normal(3), np.sort(rng.standard_normal(j + 1))) for j in range(count)]
    return torch.as_tensor(np.stack(columns, axis=1))


@pytest.mark.parametrize(("narrow", "max_cells"), [(256, 2**26), (3, 2**26), (3, 4)], ids=["product", "counts", "sort"])
@pytest.mark.parametrize("miller_madow", [False, True])
def test_matrix_equals_pairs_one_by_one(miller_madow, narrow, max_cells, monkeypatch):
    module = importlib.import_module("lightning_transfer.functional.negative_conditional_entropy")
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 1000)  # several blocks of rows
    monkeypatch.setattr(module, "_NARROW", narrow)
    monkeypatch.setattr(module, "MAX_CELLS", max_cells)
    source, target = task_columns(seed=1), task_columns(count=3, seed=2)
    target[:, 1] += 10**7  # wide gaps
    matrix = conditional_entropy_matrix(source, target, miller_madow=miller_madow)
    assert matrix.shape == (5, 3)
    assert matrix.dtype == torch.float64
    for s in range(5):
        for t in range(3):
            pair = negative_conditional_entropy(source[:, s], target[:, t], miller_madow=miller_madow)
            assert float(matrix[s, t]) == pytest.approx(-float(pair), abs=1e-12)


def test_matrix_leaves_out_missing_labels_pair_by_pair():
    columns = task_columns()
    columns[::4, 0] = -1
    columns[::3, 2] = -1
    columns[:, 4] = -1
    matrix = conditional_entropy_matrix(columns, columns, ignore_index=-1)
    both = (columns[:, 0] >= 0) & (columns[:, 2] >= 0)
    expected = -negative_conditional_entropy(columns[both, 0], columns[both, 2])
    assert float(matrix[0, 2]) == pytest.approx(float(expected), abs=1e-12)
    assert torch.equal(matrix[4], torch.zeros(5, dtype=torch.float64))


def test_matrix_of_312_attributes():
    attributes = (torch.rand(400, 312, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    attributes[:, 7] = 1 - attributes[:, 3]
    matrix = conditional_entropy_matrix(attributes, attributes)
    assert torch.equal(matrix.diagonal(), torch.zeros(312, dtype=torch.float64))
    assert float(matrix[3, 7]) == 0
    assert float(matrix.max()) <= math.log(2) + 1e-12
    constant = conditional_entropy_matrix(torch.zeros_like(attributes[:, :1]), attributes)[0]
    assert torch.allclose(constant, torch.stack([task_hardness(column) for column in attributes.T]), atol=1e-12)


def test_matrix_refuses_malformed_columns():
    columns = task_columns()
    with pytest.raises(ValueError, match="`source_labels` to be a 2D integer tensor"):
        conditional_entropy_matrix(columns.double(), columns)
    with pytest.raises(ValueError, match="`labels` to be a 2D integer tensor"):
        conditional_entropy_matrix(columns, columns[:, 0])
    with pytest.raises(ValueError, match="`labels` to have 300 rows"):
        conditional_entropy_matrix(columns, columns[:-1])
    with pytest.raises(ValueError, match="`labels` to hold class ids from 0"):
        conditional_entropy_matrix(columns, columns - 100)
