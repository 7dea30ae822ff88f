from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import torch
from _helpers import make_inputs
from _reference.golden import formula_inputs
from _reference.label_scores import reference_leep
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_transfer.functional import leep, negative_conditional_entropy, task_hardness


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(6, 40), st.integers(1, 6), st.floats(0.1, 30))
def test_equals_the_reference_and_keeps_its_range(seed, n, source_classes, sharpness):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    odds = np.exp(sharpness * rng.standard_normal((n, source_classes)))
    probs = odds / odds.sum(axis=1, keepdims=True)
    value = float(leep(torch.as_tensor(probs), torch.as_tensor(labels)))
    assert value == pytest.approx(reference_leep(probs, labels), abs=1e-10)
    assert -float(task_hardness(torch.as_tensor(labels))) - 1e-12 <= value <= 0


def test_value_of_the_formula_set():
    inputs = formula_inputs()
    assert float(leep(inputs["source_probs"], inputs["labels"])) == pytest.approx(-1.0131238628, abs=1e-10)


def test_limits():
    inputs = make_inputs()
    source_labels, labels = inputs["source_labels"], inputs["labels"]
    one_hot = torch.nn.functional.one_hot(source_labels, 5).double()
    assert float(leep(one_hot, labels)) == pytest.approx(float(negative_conditional_entropy(source_labels, labels)))
    uniform = torch.full((110, 5), 0.2)
    assert float(leep(uniform, labels)) == pytest.approx(-float(task_hardness(labels)), abs=1e-12)
    assert float(leep(torch.nn.functional.one_hot(labels, 4).float(), labels)) == 0


def test_lies_above_nce_plus_the_mean_log_probability_of_the_prediction():
    inputs = make_inputs()  # proposition 2 of the paper
    probs = inputs["source_probs"]
    floor = negative_conditional_entropy(inputs["source_labels"], inputs["labels"]) + probs.amax(1).log().mean()
    assert float(leep(probs, inputs["labels"])) >= float(floor)


def test_source_classes_without_mass_are_left_out():
    inputs = make_inputs()
    probs = inputs["source_probs"]
    padded = torch.cat([torch.zeros(110, 2), probs, torch.zeros(110, 1)], dim=1)
    expected = float(leep(probs, inputs["labels"]))
    assert float(leep(padded, inputs["labels"])) == pytest.approx(expected, rel=1e-13)


def test_several_labels_a_sample_are_averaged():
    inputs = make_inputs()
    columns = torch.stack([(inputs["labels"] == c).long() for c in range(4)], dim=1)
    single = [float(leep(inputs["source_probs"], column)) for column in columns.T]
    assert float(leep(inputs["source_probs"], columns)) == pytest.approx(np.mean(single), abs=1e-12)


def test_pixels_with_ignored_positions():
    inputs = make_inputs(n=96)
    probs, labels = inputs["source_probs"], inputs["labels"].clone()
    labels[::5] = 255
    kept = labels != 255
    maps = probs.reshape(2, 6, 8, 5).permute(0, 3, 1, 2)
    value = leep(maps, labels.reshape(2, 6, 8), ignore_index=255)
    assert float(value) == pytest.approx(float(leep(probs[kept], labels[kept])), abs=1e-12)


def test_a_thousand_classes_in_blocks(monkeypatch):
    module = importlib.import_module("lightning_transfer.functional.leep")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1000, (3000,), generator=generator)
    probs = torch.softmax(8 * torch.rand(3000, 50, generator=generator, dtype=torch.float64), dim=1)
    whole = float(leep(probs, labels))
    monkeypatch.setattr(module, "_CHUNK_ENTRIES", 5000)
    assert float(leep(probs, labels)) == pytest.approx(whole, rel=1e-13)
    assert -math.log(1000) <= whole <= 0


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_rows_that_are_no_probabilities_are_refused(scale):
    inputs = make_inputs()
    with pytest.raises(ValueError, match="`source_probs` to have rows that sum to 1"):
        leep(scale * inputs["source_probs"], inputs["labels"])
    with pytest.raises(ValueError, match="`source_probs` to be non-negative"):
        leep(inputs["source_probs"] - scale, inputs["labels"])
