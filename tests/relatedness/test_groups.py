"""Groups in the bound: halves, parts that a head is chosen on, resamples and the population divide none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lightning_transfer.functional import task_relatedness
from lightning_transfer.metrics import TaskRelatedness
from lightning_transfer.relatedness import estimate, solvers
from lightning_transfer.relatedness.crossfit import folds
from lightning_transfer.relatedness.population import mean_bound
from lightning_transfer.relatedness.probe import validated
from lightning_transfer.relatedness.sample import Sample


def ids(n, count, seed=0):
    return torch.randint(count, (n,), generator=torch.Generator().manual_seed(seed)) * 7


def test_halves_divide_no_group_and_have_all_classes(blobs):
    z, y, x, t = blobs(n_reference=60, n_target=48)
    groups = ids(60, 12), ids(48, 9, seed=1)
    seen = []
    for learn, rest, alone in folds((z, y, x, t), 0, groups):
        assert alone == (0, 0)
        for side in (0, 1):
            assert not set(learn.groups[side].tolist()) & set(rest.groups[side].tolist())
            assert set(learn.data[2 * side + 1].tolist()) == set(rest.data[2 * side + 1].tolist()) == {0, 1, 2}
        assert 0.3 < len(learn.data[2]) / 48 < 0.7
        seen.append(rest.data[2])
    assert sorted(map(tuple, torch.cat(seen).tolist())) == sorted(map(tuple, x.tolist()))


def test_groups_of_one_class_each_are_dealt_out_class_by_class(blobs):
    z, y, x, t = blobs(n_reference=60, n_target=60)
    groups = t * 10 + torch.arange(60) // 3 % 4  # four groups a class
    for learn, rest, alone in folds((z, y, x, t), 3, (None, groups)):
        assert alone == (0, 0)
        for part in (learn, rest):
            assert [len(part.groups[1][part.data[3] == of].unique()) for of in range(3)] == [2, 2, 2]


def test_halves_do_not_depend_on_the_order_of_the_samples(blobs):
    z, y, x, t = blobs(n_reference=40, n_target=40)
    groups, order = ids(40, 10), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    whole = [sorted(map(tuple, learn.data[2].tolist())) for learn, _, _ in folds((z, y, x, t), 0, (None, groups))]
    moved = folds((z, y, x[order], t[order]), 0, (None, groups[order]))
    assert [sorted(map(tuple, learn.data[2].tolist())) for learn, _, _ in moved] == whole


def test_the_part_that_a_head_is_chosen_on_divides_no_group():
    labels, groups = torch.arange(40) % 2, torch.arange(40) // 5
    fit, rest = Sample(torch.randn(40, 3), labels, 2, groups=groups).split(4)
    assert len(rest.labels) == 10
    assert not set(fit.groups.tolist()) & set(rest.groups.tolist())
    single = Sample(torch.randn(40, 3), (groups == 2).long(), 2, groups=groups)
    assert set(single.split(4)[0].labels.tolist()) == {0, 1}  # the only group of a class is not held out


def test_copies_of_target_samples_in_groups_are_not_learned_by_heart(monkeypatch):
    """The classifier that the map is made of is chosen on other groups; chosen on copies it overfits by a nat."""
    generator, asked = torch.Generator().manual_seed(0), []

    def draw(n):
        labels = torch.arange(n) % 3
        return 3 * torch.eye(5)[labels] + torch.randn(n, 5, generator=generator), labels

    (z, y), (x, t), evaluation = draw(75), draw(70), (*draw(75), *draw(70))
    monkeypatch.setattr(solvers, "validated", lambda sample, prior: asked.append(sample) or validated(sample, prior))
    groups = {"reference_groups": torch.arange(75), "target_groups": torch.arange(70).repeat(3)}
    copied = task_relatedness(z, y, x.repeat(3, 1), t.repeat(3), evaluation=evaluation, seed=1, **groups)
    assert len(asked) == 2
    assert all(sample.groups is not None for sample in asked)
    assert copied.bound < task_relatedness(z, y, x, t, evaluation=evaluation, seed=1).bound + 0.3


def test_without_groups_nothing_changes(blobs):
    data = blobs()
    assert task_relatedness(*data).bound == task_relatedness(*data, target_groups=None, reference_groups=None).bound


def test_the_bound_is_that_of_both_halves_and_holds(blobs):
    z, y, x, t = blobs(n_reference=60, n_target=60, noise=1.5)
    groups = ids(60, 12), ids(60, 12, seed=1)
    result = task_relatedness(z, y, x, t, reference_groups=groups[0], target_groups=groups[1], rounds=1)
    parts = []
    for learn, rest, _ in folds((z, y, x, t), 0, groups):
        part = task_relatedness(*learn.data, evaluation=rest.data, rounds=1, reference_groups=learn.groups[0],
                                target_groups=learn.groups[1])  # fmt: skip
        parts.append((part.bound, len(rest.data[2])))
        assert part.bound >= part.target_loss
    assert result.bound == pytest.approx(np.average([one for one, _ in parts], weights=[n for _, n in parts]))
    again = task_relatedness(z, y, x.flip(0), t.flip(0), reference_groups=groups[0], target_groups=groups[1].flip(0),
                             rounds=1)  # fmt: skip
    assert again.bound == pytest.approx(result.bound)


def test_a_group_is_one_draw_of_the_population(blobs):
    z, y, x, t = blobs(n_reference=60, n_target=120, noise=1.5)
    groups = torch.arange(120) // 4
    result = task_relatedness(z, y, x, t, target_groups=groups, confidence=0.9, rounds=1)
    alone = task_relatedness(z, y, x, t, confidence=0.9, rounds=1)
    assert math.isfinite(result.population_bound)
    copies = task_relatedness(z, y, x.repeat(4, 1), t.repeat(4), target_groups=torch.arange(120).repeat(4),
                              confidence=0.9, rounds=1)  # fmt: skip
    assert copies.population_bound >= alone.population_bound - 0.2  # four copies are not four samples
    apart = task_relatedness(z, y, x.repeat(4, 1), t.repeat(4), confidence=0.9, rounds=1)
    assert apart.population_bound < copies.population_bound


def test_means_of_groups_cover_the_loss_of_a_new_group():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        levels, sizes = rng.random(40) ** 4, rng.integers(1, 30, 40)
        means = [rng.binomial(size, level) / size for level, size in zip(levels, sizes, strict=True)]
        covered += mean_bound(torch.tensor(means), 1.0, 0.9) >= 0.2
    assert covered >= 180 - 3 * math.sqrt(18)


def test_resamples_are_of_groups(blobs, monkeypatch):
    drawn, look = [], estimate.look

    def watch(transforms, reference, target, *rest):
        drawn.append(target.groups)
        return look(transforms, reference, target, *rest)

    monkeypatch.setattr(estimate, "look", watch)
    z, y, x, t = blobs(n_reference=60, n_target=60)
    groups = ids(60, 12, seed=1)
    result = task_relatedness(z, y, x, t, reference_groups=ids(60, 12), target_groups=groups, rounds=1, num_resamples=4)
    assert result.standard_error > 0
    assert len(drawn) == 8  # of both halves
    sizes = torch.bincount(groups)
    for resample in drawn:
        counts = torch.bincount(resample, minlength=len(sizes))
        whole = sizes > 0
        assert bool((counts[whole] % sizes[whole] == 0).all())  # a group comes whole or not at all


def test_metric_equals_function(blobs):
    z, y, x, t = blobs(n_reference=60, n_target=48)
    first, second = ids(60, 12), ids(48, 9, seed=1)
    expected = task_relatedness(z, y, x, t, reference_groups=first, target_groups=second, rounds=1).bound
    fixed, streamed = TaskRelatedness(rounds=1), TaskRelatedness(rounds=1)
    fixed.set_reference(z, y, first)
    for start in range(0, 60, 20):
        rows = slice(start, start + 20)
        streamed.update(z[rows], y[rows], reference=True, groups=first[rows])
    for metric in (fixed, streamed):
        for start in range(0, 48, 16):
            rows = slice(start, start + 16)
            metric.update(x[rows], t[rows], groups=second[rows])
        assert float(metric.compute()) == pytest.approx(expected)
    with pytest.raises(ValueError, match="`groups` with every batch of the reference or with none"):
        streamed.update(z, y, reference=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_groups": torch.zeros(36, dtype=torch.long)}, "`target_groups` to hold at least 2 groups, but got 1"),
        ({"reference_groups": torch.arange(5)}, "`reference_groups` to have one id a sample"),
        ({"target_groups": torch.arange(36) % 3}, "at least two groups of a class"),
        ({"target_groups": torch.arange(36) - 1}, "ids from 0, but got -1"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(blobs, options, message):
    with pytest.raises(ValueError, match=message):
        task_relatedness(*blobs(n_target=36), **options)


def test_no_statement_on_the_population_of_classes_in_one_group(blobs):
    z, y, x, t = blobs(n_target=36)
    groups = torch.where(t == 0, 99, torch.arange(36) // 3)
    result = task_relatedness(z, y, x, t, target_groups=groups, rounds=1)
    assert any("of a class that one half alone has" in message for message in result.messages)
    with pytest.raises(ValueError, match="every class in at least two groups for `confidence`"):
        task_relatedness(z, y, x, t, target_groups=groups, confidence=0.9)
    with pytest.raises(ValueError, match=r"at least 4 groups for `confidence`, two in each half.* a single one of 3"):
        task_relatedness(z, y, x, t, target_groups=torch.arange(36) // 12, confidence=0.9)


def test_evaluation_data_have_groups_of_their_own(blobs):
    z, y, x, t = blobs(n_reference=48, n_target=60)
    groups = torch.arange(60) // 3
    fit = {"target_groups": groups[:30], "reference_groups": torch.arange(24), "rounds": 1, "confidence": 0.9}
    learn, rest = (z[:24], y[:24], x[:30], t[:30]), (z[24:], y[24:], x[30:], t[30:])
    result = task_relatedness(*learn, evaluation=(*rest, None, groups[30:]), **fit)
    losses = -result.classifier(x[30:]).gather(1, t[30:, None])[:, 0]
    means = torch.stack([losses[groups[30:] == group].mean() for group in range(10, 20)])
    largest = -float(result.log_prior.min()) - math.log(0.02)
    assert result.population_bound == pytest.approx(mean_bound(means, largest, 0.9))
    assert not any("among those learned from" in message for message in result.messages)
    shared = task_relatedness(*learn, evaluation=(*rest, None, groups[30:] - 3), **fit)
    assert "3 groups of the target have samples among those learned from and those evaluated on" in shared.messages
    for options, side in (({}, "target"), ({"num_resamples": 2, "confidence": None}, "reference")):
        with pytest.raises(ValueError, match=f"`evaluation` to hold the groups .* but got none of the {side}"):
            task_relatedness(*learn, evaluation=(*rest, None, None), **{**fit, **options})
    with pytest.raises(ValueError, match="`evaluation target_groups` to have one id a sample"):
        task_relatedness(*learn, evaluation=(*rest, None, groups), **fit)
    with pytest.raises(ValueError, match=r"four tensors .* or of these and the groups"):
        task_relatedness(*learn, evaluation=(*rest, groups[30:]), **fit)
