"""Halves: every sample counts once, nothing is seen before, and the order of samples does not matter."""

import math

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.relatedness import BoundConfig, TaskRelatednessResult
from lightning_transfer.relatedness.crossfit import folds


def test_every_sample_is_evaluated_once_and_by_transforms_that_have_not_seen_it(blobs):
    z, y, x, t = blobs(n_reference=31, n_target=26)
    seen = []
    for learn, rest, single in folds((z, y, x, t), 0):
        assert single == (0, 0)
        for part in range(0, 4, 2):
            rows = {tuple(row) for row in learn.data[part].tolist()}
            assert not rows & {tuple(row) for row in rest.data[part].tolist()}
        seen.append(rest.data[2])
    assert sorted(map(tuple, torch.cat(seen).tolist())) == sorted(map(tuple, x.tolist()))


def test_classes_with_one_sample_are_in_both_halves(blobs):
    z, y, x, t = blobs(n_reference=30, n_target=24)
    y, t = torch.cat([y, torch.tensor([7])]), torch.cat([t, torch.tensor([5])])
    z, x = torch.cat([z, z[:1] + 9]), torch.cat([x, x[:1] - 9])
    counted = []
    for learn, rest, single in folds((z, y, x, t), 0):
        assert single == (1, 1)
        assert 7 in learn.data[1].tolist()
        assert 7 in rest.data[1].tolist()
        assert 5 in learn.data[3].tolist()
        counted += rest.data[3].tolist()
    assert sorted(counted) == sorted(t.tolist())
    result = task_relatedness(z, y, x, t, ground_cost="loss")
    assert any("learned from in both halves" in message for message in result.messages)


@pytest.mark.parametrize("ground_cost", ["logit_range", "loss"])
def test_figures_are_means_of_the_halves(blobs, ground_cost):
    z, y, x, t = blobs(n_reference=33, n_target=27, noise=1.5)
    result = task_relatedness(z, y, x, t, ground_cost=ground_cost, rounds=1, num_resamples=3)
    one, two = result.folds
    counts = [one.certificate.num_target, two.certificate.num_target]
    assert sum(counts) == 27
    for name in ("bound", "target_loss", "label_mismatch", "distribution_mismatch"):
        mean = sum(n * getattr(part, name) for n, part in zip(counts, result.folds, strict=True)) / 27
        assert getattr(result, name) == pytest.approx(mean, abs=1e-12)
    assert result.bound >= result.target_loss
    assert result.held_out == result.certificate
    assert result.evaluated_on == "held-out halves"
    assert result.interval[0] < result.bound < result.interval[1]
    assert result.standard_error < max(one.standard_error, two.standard_error)
    mean = torch.stack([part.log_probabilities(x) for part in result.folds]).exp().mean(0)
    torch.testing.assert_close(result.log_probabilities(x).exp(), mean)
    again = TaskRelatednessResult.from_state(result.state_dict())
    assert again.to_dict() == result.to_dict()
    assert again.folds[1].bound == two.bound


@pytest.mark.parametrize("ground_cost", ["feature", "loss"])
def test_order_of_samples_and_ids_of_classes_do_not_matter(blobs, ground_cost):
    z, y, x, t = blobs(n_reference=33, n_target=27, noise=1.5)
    z, y = torch.cat([z, z[:6]]), torch.cat([y, (y[:6] + 1) % 3])  # equal rows of different classes
    generator = torch.Generator().manual_seed(1)
    rows, columns = torch.randperm(len(z), generator=generator), torch.randperm(len(x), generator=generator)
    options = BoundConfig(ground_cost=ground_cost, rounds=1)
    one = task_relatedness(z, y, x, t, config=options)
    names = torch.tensor([4, 0, 9])
    other = task_relatedness(z[rows], names[y][rows], x[columns], names.flip(0)[t][columns], config=options)
    assert one.bound == pytest.approx(other.bound, abs=1e-9)


def test_tokens_and_pixels_are_samples(blobs):
    z, y, x, t = blobs(n_reference=36, n_target=24)
    flat = task_relatedness(z, y, x, t, ground_cost="loss")
    tokens = task_relatedness(z.reshape(6, 6, 4), y.reshape(6, 6), x.reshape(2, 3, 4, 4).movedim(-1, 1),
                              t.reshape(2, 3, 4), ground_cost="loss")  # fmt: skip
    assert tokens.bound == flat.bound


def test_few_samples_are_not_cut(blobs):
    z, y, x, t = blobs(n_reference=6, n_target=6)
    result = task_relatedness(z, y, x, t, ground_cost="loss")
    assert result.evaluated_on == "fit data"
    assert "too few samples to hold some of them out" in result.messages


def test_without_labels_each_half_finds_its_own(blobs):
    z, y, x, _ = blobs(n_reference=60, n_target=48)
    result = task_relatedness(z, y, x, ground_cost="loss")
    assert result.labels_used == "pseudo"
    assert result.bound >= result.target_loss
    assert math.isfinite(result.bound)
