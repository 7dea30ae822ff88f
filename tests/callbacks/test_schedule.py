"""When a monitor looks."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from lightning_transfer.callbacks.schedule import Schedule


def trainer(epoch=0, batches=10.0, *, last=True, sanity=False, step=5):
    return SimpleNamespace(
        current_epoch=epoch, num_training_batches=batches, is_last_batch=last, sanity_checking=sanity, global_step=step
    )


def test_every_second_epoch():
    schedule = Schedule(2)
    schedule.start(trainer())
    assert [schedule.counts_validation(trainer(epoch), hooked=True) for epoch in range(4)] == [False, True, False, True]


def test_a_pass_of_its_own_is_made_in_the_last_validation_of_an_epoch():
    schedule = Schedule(1)
    assert not schedule.counts_validation(trainer(last=False), hooked=False)
    assert schedule.counts_validation(trainer(last=True), hooked=False)
    assert schedule.counts_validation(trainer(last=False), hooked=True)


def test_an_epoch_without_a_validation_is_looked_at_once_at_its_end():
    schedule = Schedule(1)
    schedule.start(trainer())
    assert schedule.counts_epoch(trainer())
    schedule.note_look(trainer())
    assert not schedule.counts_epoch(trainer())
    assert schedule.counts_epoch(trainer(1))


def test_without_known_epochs_validations_count():
    schedule, endless = Schedule(3), trainer(batches=math.inf)
    schedule.start(endless)
    assert [schedule.counts_validation(endless, hooked=False) for _ in range(6)] == [False, False, True] * 2
    assert schedule.saw_nothing(endless)
    schedule.note_look(endless)
    assert not schedule.saw_nothing(endless)
    assert not Schedule(3).saw_nothing(trainer())
    assert not Schedule(3).saw_nothing(trainer(batches=math.inf, step=0))


def test_the_sanity_check_counts_for_nothing():
    schedule, endless = Schedule(2), trainer(batches=math.inf)
    assert not schedule.counts_validation(trainer(batches=math.inf, sanity=True), hooked=True)
    assert not schedule.counts_validation(endless, hooked=True)
    assert schedule.counts_validation(endless, hooked=True)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_bad_intervals(value):
    with pytest.raises(ValueError, match="`every_n_epochs`"):
        Schedule(value)
