"""The bound of problems that real data do not pose often: copies, constants, tiny classes, huge and tiny numbers."""

import math

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from tests.relatedness._tasks import COSTS, make


def cases():
    """Name, reference features and labels, target features and labels."""
    z, y, x, t = make(0, n_reference=24, n_target=21)
    lone = torch.cat([t, torch.tensor([9])]), torch.cat([x, x[:1]])
    return {
        "one row for all": (z[:1].repeat(24, 1), y, x[:1].repeat(21, 1), t),
        "constant features": (torch.cat([z, torch.ones(24, 2)], 1), y, torch.cat([x, torch.full((21, 2), 7.0)], 1), t),
        "all features constant": (torch.ones(24, 3), y, torch.zeros(21, 3), t),
        "a class on the reference side alone": (z, y, x[t != 1], t[t != 1]),
        "a class on the target side alone": (z[y != 1], y[y != 1], x, t),
        "two samples a class": (z[:6], y[:6], x[:6], t[:6]),
        "a class of one sample": (z, y, lone[1], lone[0]),
        "one class a side": (z, y * 0, x, t * 0),
        "huge": (1e12 * z, y, 1e12 * x, t),
        "huge on one side": (1e12 * z, y, x, t),
        "tiny": (1e-12 * z, y, 1e-12 * x, t),
        "far from the origin": (z.double() + 1e8, y, x.double() + 1e8, t),
        "one outlier": (torch.cat([z[:-1], z[-1:] * 1e9]), y, x, t),
        "more features than samples": make(0, n_reference=12, n_target=12, width=40),
        "each row twice, with two labels": (z.repeat(2, 1), torch.cat([y, (y + 1) % 3]), x.repeat(2, 1), t.repeat(2)),
    }


def check(name, ground_cost):
    z, y, x, t = cases()[name]
    result = task_relatedness(z, y, x, t, ground_cost=ground_cost)
    assert math.isfinite(result.bound)
    for part in result.folds or (result,):
        assert part.target_loss <= part.certificate.tighter_bound <= part.bound


@pytest.mark.parametrize("name", cases())
def test_degenerate_problems_are_bounded(name):
    check(name, "loss")


@pytest.mark.long
@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("ground_cost", [cost for cost in COSTS if cost != "loss"])
def test_degenerate_problems_are_bounded_under_the_other_costs(name, ground_cost):
    check(name, ground_cost)


@pytest.mark.long
@pytest.mark.parametrize("name", cases())
def test_degenerate_problems_are_never_above_guessing_on_their_own_samples(name):
    whole = task_relatedness(*cases()[name], folds=1)
    assert whole.bound <= whole.certificate.guessing * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize("name", ["each row twice, with two labels", "one row for all", "huge", "two samples a class"])
def test_degenerate_problems_do_not_depend_on_the_order_of_the_samples(name):
    z, y, x, t = cases()[name]
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randperm(len(z), generator=generator), torch.randperm(len(x), generator=generator)
    one, other = task_relatedness(z, y, x, t), task_relatedness(z[rows], y[rows], x[columns], t[columns])
    assert other.bound == pytest.approx(one.bound, abs=1e-9)
    assert other.target_loss == pytest.approx(one.target_loss, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150])
def test_heads_of_tiny_and_huge_weights(scale):
    z, y, x, t = make(0, n_reference=24, n_target=21)
    weight = scale * torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for ground_cost in COSTS:
        result = task_relatedness(z, y, x, t, head=(weight, torch.zeros(3).double()), ground_cost=ground_cost)
        assert not math.isnan(result.bound)
        for part in result.folds:
            assert part.target_loss <= part.bound


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize(
    ("reference_sizes", "target_sizes"), [((1, 3, 5, 7, 8), (1, 3, 5, 12)), ((4, 4, 5), (5, 4, 4))]
)
def test_ids_of_classes_that_features_do_not_tell_apart_do_not_matter(reference_sizes, target_sizes, folds):
    y, t = (torch.arange(len(n)).repeat_interleave(torch.tensor(n)) for n in (reference_sizes, target_sizes))
    z, x, options = torch.ones(len(y), 2), torch.zeros(len(t), 2), {"transforms": ("labels",), "folds": folds}
    one = task_relatedness(z, y, x, t, **options)
    order = torch.arange(len(y)).flip(0)
    for rows, ids, others in ((z, 9 - y, t), (z, y, 9 - t), (z, y * 7 % 11, t * 5 % 13), (z, y[order], t)):
        other = task_relatedness(rows, ids, x, others, **options)
        assert (other.bound, other.target_loss) == pytest.approx((one.bound, one.target_loss), abs=1e-9)


def test_nothing_is_held_out_of_classes_of_one_sample():
    z, y, x, _ = cases()["a class of one sample"]
    result = task_relatedness(z, y, x[:12], torch.arange(12), confidence=0.9)
    assert result.evaluated_on == "fit data"
    assert "too few samples to hold some of them out" in result.messages
    assert "no statement about new samples: none are held out" in result.messages
    assert result.population_bound is None
    twice = task_relatedness(z, y, x[:12], torch.arange(12).clamp_min(1))
    assert twice.evaluated_on == "held-out halves"
    assert twice.certificate.num_target == 12


def test_copies_of_degenerate_references():
    for name in ("one row for all", "two samples a class", "one class a side", "a class of one sample"):
        result = task_relatedness(*cases()[name], baselines=2)
        assert math.isfinite(result.baseline.difference), name
