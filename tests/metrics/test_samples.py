"""The bounded sample: equal samples in their share, whatever the order, the batches and the ranks."""

from __future__ import annotations

import warnings

import pytest
import torch
from _helpers import feed, make_inputs, rows

from lightning_transfer.functional import (
    otce,
    parc,
    transrate,
)
from lightning_transfer.metrics import (
    LEEP,
    NCE,
    NLEEP,
    OTCE,
    Energy,
    KNNAccuracy,
    PACTran,
    RidgeProbe,
    TaskHardness,
    TaskRelatedness,
    TransRate,
)
from lightning_transfer.metrics.samples import SampleMetric, choose_rows, content_ranks, share_out


class Mean(SampleMetric):
    """The smallest sampled score."""

    name, title = "mean", "Mean"

    def _score(self, **samples):
        return samples["features"].double().mean()


def distinct(n=64, d=8, seed=0):
    inputs = make_inputs(seed, n=n, d=d)
    return {"features": inputs["features"], "labels": inputs["labels"]}


def repeated(inputs, times):
    return {name: values.repeat_interleave(torch.as_tensor(times), dim=0) for name, values in inputs.items()}


def shuffled(inputs, seed=0):
    n = len(inputs["labels"])
    return rows(inputs, torch.randperm(n, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("times", [1, 20, 300])
def test_repeated_samples_change_nothing(times):
    inputs = distinct()
    metric = feed(TransRate(keep_samples=1000), shuffled(repeated(inputs, times)), [97] * 50)
    assert float(metric.compute()) == pytest.approx(float(transrate(**inputs)), rel=5e-3)
    assert metric.health().num_samples == min(1000, 64 * times)
    assert metric.health().num_classes == 4


def test_each_content_is_kept_in_its_share():
    times = torch.arange(1, 65) ** 2
    inputs = shuffled(repeated(distinct(), times))
    kept = feed(Mean(keep_samples=2000), inputs, [500] * 100)._kept()["features"]
    shares = torch.tensor([(kept == row).all(1).sum() for row in distinct()["features"]])
    assert int(shares.sum()) == len(kept) == 2000
    # with the highest place that is kept, T, each content has one more or one less than T times its number at most
    lowest, highest = ((shares - 1) / times).max(), ((shares + 1) / times).min()
    assert float(lowest) <= float(highest)
    # and the sum of 64 such roundings, of deviation 1/2 each at most, moves T: five deviations are allowed
    middle, deviation = 2000 / float(times.sum()), 5 * 64**0.5 / 2 / float(times.sum())
    assert middle - deviation <= float(highest)
    assert float(lowest) <= middle + deviation


@pytest.mark.parametrize("most", [2, 10, 150])
def test_the_sample_depends_neither_on_order_nor_on_batches_nor_on_ranks(most):
    inputs = distinct(n=400)
    inputs = repeated(inputs, torch.arange(400) % 4)
    expected = feed(Mean(keep_samples=most), inputs)._kept()["features"]
    assert len(expected) == most
    for seed in range(3):
        parts = shuffled(inputs, seed)
        assert torch.equal(feed(Mean(keep_samples=most), parts, [31] * 30)._kept()["features"], expected)
        first = feed(Mean(keep_samples=most), rows(parts, slice(0, 250)), [60] * 9)
        second = feed(Mean(keep_samples=most), rows(parts, slice(250, None)), [9] * 99)
        first.merge_state(second)
        assert torch.equal(first._kept()["features"], expected)


def test_rows_that_are_kept_are_bounded_and_others_are_counted():
    metric = Mean(keep_samples=10)
    for seed in range(40):
        feed(metric, distinct(n=50, seed=seed))
    assert sum(map(len, metric.kept_features)) <= 2 * (10 + 4 * 3 + 16)
    metric._kept()
    assert int(torch.cat(metric.kept_times + metric.left_times).sum()) == int(metric.seen) == 2000
    assert len(torch.cat(metric.kept_ranks + metric.left_ranks).unique()) == 2000


def test_copies_are_spread_evenly():
    ranks = content_ranks([torch.arange(50.0)], seed=0).sort().values
    assert share_out(ranks, torch.ones_like(ranks), 20).tolist() == [1] * 20 + [0] * 30
    assert share_out(ranks, torch.full_like(ranks, 7), 350).tolist() == [7] * 50
    copies = share_out(ranks, torch.full_like(ranks, 100), 270)
    assert int(copies.sum()) == 270
    assert set(copies.tolist()) == {5, 6}


def test_rows_of_one_set_are_those_of_the_metric():
    inputs = repeated(distinct(), 5)
    chosen = choose_rows([inputs["features"], inputs["labels"]], 3, 100)
    expected = feed(Mean(keep_samples=100, seed=3), inputs)._kept()
    assert sorted(inputs["features"][chosen, 0].tolist()) == sorted(expected["features"][:, 0].tolist())
    assert len(choose_rows([inputs["features"]], 0, None)) == 320


@pytest.mark.parametrize("make", [TransRate, LEEP, PACTran, RidgeProbe])
def test_old_names_of_the_bound_on_samples_still_work(make):
    with pytest.warns(FutureWarning, match="called `keep_samples` now"):
        assert make(max_samples=7).keep_samples == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(keep_samples=7).keep_samples == 7


def test_old_names_of_arguments_of_functions():
    inputs = distinct(n=12)
    with pytest.warns(FutureWarning, match="`max_samples` of `parc` is called `keep_samples` now"):
        assert parc(**inputs, max_samples=8) == parc(**inputs, keep_samples=8)
    reference = inputs["features"][:6], inputs["labels"][:6]
    with pytest.warns(FutureWarning, match="`source_features` of `otce` is called `reference_features` now"):
        value = otce(source_features=reference[0], source_labels=reference[1], **inputs)
    assert value == otce(*reference, **inputs)


def test_old_names_of_references():
    features, labels = torch.randn(6, 2), torch.tensor([0, 0, 0, 1, 1, 1])
    with pytest.warns(FutureWarning, match="reference_features"):
        metric = OTCE(source_features=features, source_labels=labels)
    with pytest.warns(FutureWarning, match="set_reference"):
        metric.set_source(features, labels)
    with pytest.warns(FutureWarning, match="keep_samples"):
        assert TaskRelatedness(kept_samples=9).keep_samples == 9


@pytest.mark.parametrize("value", [1, 0, 2.5, "x", True])
def test_bad_bounds_are_refused(value):
    with pytest.raises(ValueError, match="`keep_samples`"):
        Mean(keep_samples=value)


@pytest.mark.parametrize("prior", ["dirichlet", "gamma"])
def test_intervals_of_bounds_on_counts_hold_the_value_of_all_data(prior):
    def draw(n, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (n,), generator=generator)
        logits = 1.5 * torch.eye(4)[labels] + torch.randn(n, 4, generator=generator)
        return {"source_probs": logits.double().softmax(1), "labels": labels}

    value = float(feed(PACTran(prior, keep_samples=None), draw(20_000, 0)).compute())
    intervals = [feed(PACTran(prior), draw(300, seed)).compute_with_interval() for seed in range(1, 41)]
    assert {interval.method for interval in intervals} == {"jackknife"}
    assert sum(interval.lower <= value <= interval.upper for interval in intervals) >= 33  # a bootstrap: 10


@pytest.mark.parametrize("cls", [NCE, TaskHardness, LEEP, KNNAccuracy, NLEEP, OTCE])
def test_ignored_positions_do_not_count(cls):
    inputs = make_inputs()
    source = (
        {"reference_features": inputs["features"], "reference_labels": inputs["source_labels"]} if cls is OTCE else {}
    )
    inputs = {name: inputs[name] for name in cls.requires}
    metric = feed(cls(ignore_index=-100, **source), rows(inputs, slice(0, 60)))
    before = float(metric.compute())
    metric.update(**{**inputs, "labels": torch.full((110,), -100)})
    assert float(metric.compute()) == before
    metric.update(**{**inputs, "labels": torch.where(torch.arange(110) < 60, -100, inputs["labels"])})
    assert int(metric.seen) == 110
    assert float(metric.compute()) == pytest.approx(float(feed(cls(**source), inputs).compute()), abs=1e-9)


@pytest.mark.parametrize("cls", [LEEP, KNNAccuracy, NLEEP, OTCE, Energy])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bounded_samples_do_not_depend_on_order_or_batches(cls):
    inputs = make_inputs(n=400)
    source = (
        {"reference_features": inputs["features"], "reference_labels": inputs["source_labels"]} if cls is OTCE else {}
    )
    inputs = {name: inputs[name] for name in cls.requires}
    whole = feed(cls(keep_samples=60, **source), inputs)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    shuffled = feed(cls(keep_samples=60, **source), rows(inputs, order), [7] * 50)
    assert float(shuffled.compute()) == pytest.approx(float(whole.compute()), abs=1e-9)
    assert shuffled.health().num_samples == 60
    assert any("60 of 400" in message for message in shuffled.health().messages)
    other = feed(cls(keep_samples=60, seed=1, **source), inputs)
    assert float(other.compute()) != float(whole.compute())
