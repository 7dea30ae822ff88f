"""Which tasks are alike."""

from __future__ import annotations

import pytest

from lightning_transfer.data.loading import load_data
from lightning_transfer.screening import alike_tasks
from tests._screens import Linear

OPTIONS = {"folds": 1, "progress": False, "max_samples": 60}


def test_every_pair_once_and_the_nearest():
    tasks = {"low": "digits_0_4", "again": "digits_0_4", "high": "digits_5_9"}
    alike = alike_tasks(Linear(8), tasks, **OPTIONS)
    assert len(alike.bounds) == 6
    assert alike.bounds["low", "again"] == pytest.approx(alike.bounds["again", "low"])
    assert alike.nearest("low") == min(("again", "high"), key=lambda name: alike.bounds[name, "low"])
    lines = str(alike).splitlines()
    assert lines[0].split() == ["from", "\\", "to", "low", "again", "high"]
    assert lines[1].split()[:2] == ["low", "-"]
    assert lines[4].startswith("guessing")
    assert list(alike.to_pandas().index) == ["low", "again", "high"]
    with pytest.raises(ValueError, match="`target` to be one of"):
        alike.nearest("other")


def test_groups_are_kept_together():
    low = load_data("digits_0_4", "target")
    low.setup()
    low = low.with_groups([i // 20 for i in range(len(low.train_dataset))])
    plain = alike_tasks(Linear(8), {"low": "digits_0_4", "high": "digits_5_9"}, **{**OPTIONS, "folds": 2})
    grouped = alike_tasks(Linear(8), {"low": low, "high": "digits_5_9"}, **{**OPTIONS, "folds": 2})
    assert all(grouped.bounds[pair] != pytest.approx(bound) for pair, bound in plain.bounds.items())


@pytest.mark.parametrize("tasks", [["digits"], ["digits", "digits"]])
def test_too_few_names(tasks):
    with pytest.raises(ValueError, match="two tasks or more of different names"):
        alike_tasks(Linear(8), tasks, **OPTIONS)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("digits", "`tasks` to be a list of tasks, or a dict that names them, but got 'digits'"),
        (["digits", "diabetes"], "`tasks` to hold tasks with class labels, but 'diabetes' has none"),
    ],
)
def test_what_are_no_tasks(tasks, message):
    with pytest.raises(ValueError, match=message):
        alike_tasks(Linear(8), tasks, **OPTIONS)
