"""The table of task kinds in ``docs/scores.md``, every cell of which is called."""

from __future__ import annotations

import inspect
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from _helpers import feed, load_estimators, make_inputs, rows

from lightning_transfer.metrics import OTCE, TaskRelatedness
from lightning_transfer.metrics.registry import METRICS

DOCUMENT = Path(__file__).parents[2] / "docs" / "scores.md"
TASKS = {"class ids": "classification", "multi-label": "multilabel", "regression": "regression"}
#: What functions call regression targets, where not ``labels``.
NAMES_OF_TARGETS = {"linear_mse": "targets", "label_mse": "targets", "etran": "targets", "emms": "targets"}
IGNORED = -100
ROWS = {row.name: row for row in load_estimators()}
UNLABELLED = ("energy", "rankme")  # what reads neither labels nor targets


def cells():
    lines = DOCUMENT.read_text().split("| score | class ids |")[1].splitlines()
    kinds = ["class ids", *(cell.strip() for cell in lines[0].strip(" |").split("|"))]
    for line in lines[2:]:
        if not line.startswith("|"):
            return
        name, *marks = (cell.strip(" `") for cell in line.strip("|").split("|"))
        for kind, mark in zip(kinds, marks, strict=True):
            yield name, kind, {"✓": True, "\u2013": False}[mark]


CELLS = list(cells())


def test_the_table_is_complete_and_agrees_with_the_registry():
    assert {name for name, _, _ in CELLS} == {*METRICS}
    for name, spec in METRICS.items():
        assert {*spec.tasks} == {TASKS[k] for n, k, supported in CELLS if n == name and k in TASKS and supported}


def flat_inputs():
    return make_inputs(n=120)


def reference_metric(cls, task=None, **options):
    source = make_inputs(seed=50, n=90)
    if cls is OTCE:
        return OTCE(source["features"], source["source_labels"], **options)
    metric = TaskRelatedness(rounds=1, fit_samples=60, **options)
    metric.set_reference(source["features"], source["labels"])
    return metric


def maker(name):
    """Makes the Metric of a name for a task."""
    if METRICS[name].metric_class.needs_reference:
        return partial(reference_metric, METRICS[name].metric_class)
    return lambda task=None, **options: ROWS[name].metric(task=task, **ROWS[name].arguments, **options)


def updated(metric, inputs, answer):
    """Feed a Metric the inputs that it wants, with the answer under the name that it has for it."""
    wanted = {name: inputs[name] for name in metric.requires if name not in ("labels", "targets")}
    wanted |= {name: answer for name in metric.requires if name in ("labels", "targets")}
    return feed(metric, wanted, [7])


def value_of_function(name, inputs, answer, regression=False, **options):
    row = ROWS[name]
    arguments = {key: inputs[key] for key in row.inputs if key not in ("labels", "targets")}
    if name not in UNLABELLED:
        arguments[NAMES_OF_TARGETS.get(name, "labels") if regression else row.inputs[-1]] = answer
    return row.function(**arguments, **row.arguments, **options)


def answers(kind, inputs):
    """Answers of a kind, and the task that they are for."""
    if kind == "class ids":
        return [inputs["labels"]], "classification"
    if kind == "multi-label":
        return [torch.stack([inputs["labels"] == 1, inputs["labels"] >= 2], dim=1).long()], "multilabel"
    return [inputs["targets"], inputs["targets"][:, 0]], "regression"


def close(value, expected, tolerance=1e-6):
    return math.isfinite(value) and abs(float(value) - float(expected)) <= tolerance * max(1, abs(float(expected)))


@pytest.mark.parametrize("cell", [c for c in CELLS if c[1] in TASKS], ids=lambda c: f"{c[0]}-{c[1]}")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_or_several_answers_a_sample(cell):
    name, kind, supported = cell
    inputs = flat_inputs()
    found, task = answers(kind, inputs)
    for answer in found:
        regression = task == "regression"
        if supported:
            value = updated(maker(name)(task), inputs, answer).compute()
            assert math.isfinite(value)
            if name in ROWS:
                assert close(value, value_of_function(name, inputs, answer, regression))
            continue
        if METRICS[name].tasks == ("regression",):  # whole numbers are targets, too
            continue
        with pytest.raises(ValueError, match=r"Expected argument `(labels|targets)`"):
            updated(maker(name)(METRICS[name].tasks[0] if name in METRICS else "classification"), inputs, answer)
        if name in ROWS:
            with pytest.raises(ValueError, match=r"Expected argument `(labels|targets)`"):
                value_of_function(name, inputs, answer)


@pytest.mark.parametrize("name", [name for name, kind, supported in CELLS if kind == "class ids" and supported])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_labels_of_other_dtypes(name):
    inputs = flat_inputs()
    if name in UNLABELLED:  # it reads no labels
        return
    inputs["labels"] = inputs["labels"] % 2
    expected = updated(maker(name)("classification"), inputs, inputs["labels"]).compute()
    assert close(updated(maker(name)("classification"), inputs, inputs["labels"].bool()).compute(), expected, 0)
    if "multilabel" in METRICS[name].tasks:
        [attributes], _ = answers("multi-label", inputs)
        expected = updated(maker(name)("multilabel"), inputs, attributes).compute()
        for cast in (attributes.float(), attributes.bool(), attributes.bfloat16()):
            assert close(updated(maker(name)("multilabel"), inputs, cast).compute(), expected, 0)
        with pytest.raises(ValueError, match="`labels`"):
            updated(maker(name)("multilabel"), inputs, attributes + 0.5)


@pytest.mark.parametrize("name", [name for name, kind, supported in CELLS if kind == "regression" and supported])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_targets_that_are_whole_numbers(name):
    if name in UNLABELLED:  # it reads no targets
        return
    inputs = flat_inputs()
    targets = (inputs["targets"] * 3).round()
    expected = updated(maker(name)("regression"), inputs, targets).compute()
    assert close(updated(maker(name)("regression"), inputs, targets.int()).compute(), expected)
    metric = maker(name)("regression")
    if "labels" in inspect.signature(metric.update).parameters:  # as batches with integers name them
        metric.update(inputs[metric.requires[0]], labels=targets.long())
        assert close(metric.compute(), expected)


def as_tokens(values):
    return values.reshape(10, 12, *values.shape[1:])


def as_pixels(values):
    image = values.reshape(10, 4, 3, *values.shape[1:])
    return image.movedim(-1, 1) if image.ndim == 4 else image


@pytest.mark.parametrize("layout", [as_tokens, as_pixels])
@pytest.mark.parametrize("cell", [c for c in CELLS if c[1] not in TASKS], ids=lambda c: c[0])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_one_answer_a_position(cell, layout):
    name, _, supported = cell
    flat = flat_inputs()
    flat["labels"][::9] = IGNORED
    inputs = {key: layout(values) for key, values in flat.items()}
    if not supported:
        with pytest.raises(ValueError, match="Expected argument"):
            updated(maker(name)(METRICS[name].tasks[0]), inputs, inputs["labels"])
        with pytest.raises(ValueError, match="Expected argument"):
            value_of_function(name, inputs, inputs["labels"])
        return
    if name in UNLABELLED:
        assert close(updated(maker(name)(), inputs, None).compute(), value_of_function(name, flat, None))
        assert close(value_of_function(name, inputs, None), value_of_function(name, flat, None))
        return
    kept = rows(flat, flat["labels"] != IGNORED)
    metric = updated(maker(name)(ignore_index=IGNORED), inputs, inputs["labels"])
    before = metric.compute()
    assert close(before, updated(maker(name)(), kept, kept["labels"]).compute())
    updated(metric, rows(inputs, slice(0, 2)), torch.full_like(inputs["labels"][:2], IGNORED))
    assert close(metric.compute(), before, 1e-12)
    if name in ROWS:
        expected = value_of_function(name, kept, kept["labels"])
        assert close(value_of_function(name, inputs, inputs["labels"], ignore_index=IGNORED), expected)


@pytest.mark.parametrize("name", [name for name, kind, supported in CELLS if kind == "multi-label" and supported])
def test_several_labels_a_sample_do_not_go_with_ignored_ones(name):
    if name in (*UNLABELLED, "task_hardness"):  # no labels; labels of any shape are positions with ``ignore_index``
        return
    inputs = flat_inputs()
    [answer], task = answers("multi-label", inputs)
    with pytest.raises(ValueError, match=r"ignore_index|Unexpected keyword"):
        updated(maker(name)(task, ignore_index=0), inputs, answer)
    with pytest.raises(ValueError, match="one label a position beside `ignore_index`"):
        value_of_function(name, inputs, answer, ignore_index=0)
