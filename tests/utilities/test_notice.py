"""Warnings at the line that they are about."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch

from lightning_transfer.functional import task_relatedness
from lightning_transfer.inputs import split_batch
from lightning_transfer.metrics import HScore
from lightning_transfer.utilities.notice import warn_user


def few_samples():
    metric = HScore()
    metric.update(features=torch.randn(10, 32, generator=torch.Generator().manual_seed(0)), labels=torch.arange(10) % 2)
    metric.compute()


@pytest.mark.parametrize(
    "say",
    [
        lambda: warn_user("here"),
        lambda: split_batch((torch.ones(2), torch.ones(2), torch.arange(2), torch.arange(2))),
        few_samples,
        lambda: task_relatedness(torch.eye(8), torch.arange(8) % 2, torch.eye(8), torch.arange(8) % 2, max_samples=8),
    ],
)
def test_a_warning_is_at_the_line_of_the_caller(say):
    with pytest.warns((UserWarning, FutureWarning)) as caught:
        say()
    assert {warning.filename for warning in caught} == {__file__}


def test_libraries_between_are_passed_over():
    with pytest.warns(UserWarning, match="later") as caught, ExitStack() as stack:
        stack.callback(warn_user, "later")  # called by contextlib
    assert caught[0].filename == __file__


def test_where_nobody_called_it_is_said_all_the_same():
    code = (
        "from lightning_transfer.utilities.notice import warn_user\n"
        "globals()['__name__'] = 'lightning_transfer'\nwarn_user('alone')"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "UserWarning: alone" in done.stderr
