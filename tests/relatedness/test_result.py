"""The result: stored and rebuilt, on plain values, and read by class names."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import TaskRelatednessResult


@pytest.fixture
def solve(blobs):
    def run(**options):
        z, y, x, t = blobs(num_reference=4, num_target=3)
        return task_relatedness(z, 10 * y, x, t + 5, **{"folds": 1, "rounds": 1, **options}), x

    return run


def assert_same(one, other):
    for part in dataclasses.fields(one):
        a, b = getattr(one, part.name), getattr(other, part.name)
        if part.name == "folds":
            assert len(a) == len(b)
            for left, right in zip(a, b, strict=True):
                assert_same(left, right)
        elif dataclasses.is_dataclass(a) and any(isinstance(v, torch.Tensor) for v in vars(a).values()):
            for key in dataclasses.fields(a):
                left, right = getattr(a, key.name), getattr(b, key.name)
                assert (left is None and right is None) or torch.equal(left, right), (part.name, key.name)
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b), part.name
        else:
            assert a == b, part.name


@pytest.mark.parametrize("options", [{}, {"folds": 2}], ids=["fit data", "halves"])
def test_state_gives_the_same_result_back(solve, options):
    result, x = solve(**options)
    state = result.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again = TaskRelatednessResult.from_state(state)
    assert_same(again, result)
    assert torch.equal(again.log_probabilities(x), result.log_probabilities(x))
    state["label_map"].zero_()
    assert float(result.label_map.abs().sum()) > 0


def test_states_that_are_none_are_refused(solve):
    state = solve()[0].state_dict()
    with pytest.raises(ValueError, match="state of a result"):
        TaskRelatednessResult.from_state({name: value for name, value in state.items() if name != "conditional"})
    meta = {**json.loads(bytes(state["meta"].tolist())), "format": 99}
    later = {**state, "meta": torch.tensor(list(json.dumps(meta).encode()), dtype=torch.uint8)}
    with pytest.raises(ValueError, match="99"):
        TaskRelatednessResult.from_state(later)


def test_matches_name_the_largest_share_of_each_row(solve):
    result, _ = solve()
    rows = result.conditional.numpy()
    reference, target = result.reference_classes.tolist(), result.target_classes.tolist()
    expected = [(str(target[k]), str(reference[row.argmax()]), pytest.approx(row.max())) for k, row in enumerate(rows)]
    assert result.matches() == expected
    named = result.with_names([f"r{i}" for i in range(31)], [f"t{i}" for i in range(7)])
    assert [(a, b) for a, b, _ in named.matches()] == [
        (f"t{a}" if int(a) < 7 else a, f"r{b}") for a, b, _ in result.matches()
    ]
    assert named.with_names(None, None).class_names() == result.class_names()


def test_joint_mass_and_figures_agree_with_numpy(solve):
    result, x = solve()
    joint = result.target_prior.numpy()[:, None] * result.conditional.numpy()
    np.testing.assert_allclose(result.joint.numpy().sum(1), result.target_prior.numpy(), rtol=1e-12)
    np.testing.assert_allclose(result.class_prior.numpy(), joint.sum(0), rtol=1e-12)
    labels = np.array([result.target_classes.tolist().index(5 + i % 3) for i in range(len(x))])
    log_p = result.log_probabilities(x).numpy()
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-10)
    assert -log_p[np.arange(len(x)), labels].mean() == pytest.approx(result.target_loss, rel=1e-6)
    assert (log_p.argmax(1) == labels).mean() == pytest.approx(result.target_accuracy)
    assert result.target_loss <= result.bound


def test_to_dict_is_plain_json(solve):
    result, _ = solve()
    values = json.loads(json.dumps(result.to_dict()))
    assert values["bound"] == result.bound
    assert values["label_map"] == result.label_map.tolist()
    assert values["class_prior"] == pytest.approx(result.class_prior.tolist())
    assert values["held_out"] is None
    assert not math.isnan(values["fit"]["bound"])
