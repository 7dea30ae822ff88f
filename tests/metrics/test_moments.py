"""Scores of moments: shared states, batches, ranks and intervals."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from _helpers import assert_intervals_cover, feed, make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from torchmetrics import MetricCollection

from lightning_transfer.functional import h_score, log_maximum_evidence
from lightning_transfer.metrics import HScore, LabelMSE, LinearMSE, LogME
from lightning_transfer.metrics.base import collect
from lightning_transfer.metrics.moments import MomentMetric, leave_out_together


def test_collection_updates_one_set_of_states_and_decomposes_once(monkeypatch):
    inputs = make_inputs(0, n=3000)
    collection = MetricCollection({"h": HScore(), "s": HScore(shrinkage="ledoit_wolf"), "l": LogME()})
    calls = {"update": 0, "eigh": 0}
    update, eigh = HScore._accumulate, torch.linalg.eigh
    monkeypatch.setattr(
        "lightning_transfer.metrics.moments.MomentMetric._accumulate",
        lambda self, *args: (calls.__setitem__("update", calls["update"] + 1), update(self, *args))[1],
    )
    monkeypatch.setattr(torch.linalg, "eigh", lambda x: (calls.__setitem__("eigh", calls["eigh"] + 1), eigh(x))[1])
    for start in range(0, 3000, 500):
        collection.update(inputs["features"][start : start + 500], inputs["labels"][start : start + 500])
    values = collection.compute()
    assert len(collection.compute_groups) == 1
    assert calls == {"update": 3 + 5, "eigh": 1}  # the first batch forms the group
    assert float(values["l"]) == pytest.approx(float(log_maximum_evidence(**inputs_of(inputs))), rel=1e-10)
    assert collection["h"].second_moment.data_ptr() != 0


def inputs_of(inputs):
    return {"features": inputs["features"], "labels": inputs["labels"]}


def test_metrics_that_see_other_samples_do_not_share_states():
    inputs = make_inputs(1)
    metrics = {
        "all": HScore(),
        "without_0": HScore(ignore_index=0),
        "without_99": HScore(ignore_index=99),
        "groups": HScore(jackknife_groups=5),
    }
    collection = MetricCollection(metrics)
    collection.update(inputs["features"], inputs["labels"])
    assert len(collection.compute_groups) == 4
    kept = inputs["labels"] != 0
    expected = h_score(inputs["features"][kept], inputs["labels"][kept])
    assert float(collection.compute()["without_0"]) == pytest.approx(float(expected), rel=1e-12)


def test_moments_of_outputs_are_not_taken_for_moments_of_features():
    inputs = make_inputs(2)
    outputs = inputs["features"]
    collection = MetricCollection({"linear": LinearMSE(), "label": LabelMSE()})
    collection.update(features=outputs, source_outputs=outputs, targets=inputs["targets"])
    collection.update(features=outputs, source_outputs=2 * outputs + 1, targets=inputs["targets"])
    assert len(collection.compute_groups) == 2


def test_size_of_states_does_not_depend_on_the_number_of_samples():
    def size(repeats):
        metric = feed(HScore(), inputs_of(make_inputs(3)))
        for _ in range(repeats):
            feed(metric, inputs_of(make_inputs(4, n=500)))
        return sum(getattr(metric, name).numel() for name in metric._defaults)

    assert size(1) == size(9)


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 1200), max_size=6), seed=st.integers(0, 9), far=st.sampled_from([0.0, 1e3, -1e5]))
def test_any_split_into_batches_gives_the_same(cuts, seed, far):
    inputs = make_inputs(seed, n=2500)
    inputs = {"features": inputs["features"] + far, "labels": inputs["labels"]}
    for metric, function in ((HScore(), h_score), (LogME(), log_maximum_evidence)):
        value = float(feed(metric, inputs, cuts).compute())
        assert value == pytest.approx(float(function(**inputs)), rel=1e-10 if abs(far) < 1e4 else 1e-7)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), length=st.floats(-1e3, 1e3))
def test_sums_moved_to_another_origin_are_those_about_it(seed, length):
    inputs = make_inputs(seed)
    metric = feed(HScore(), inputs_of(inputs))
    metric._flush()
    metric._shift_to(metric.shift + length)
    rows = inputs["features"] - metric.shift
    norms = rows.square().sum(1)
    tolerance = {"rtol": 1e-9, "atol": 1e-9 * (1 + abs(length)) ** 4}
    torch.testing.assert_close(metric.second_moment[0].triu(), (rows.T @ rows).triu(), **tolerance)
    torch.testing.assert_close(metric.norm_weighted_sum[0], norms @ rows, **tolerance)
    torch.testing.assert_close(metric.norm_fourth[0], norms @ norms, **tolerance)


def principal(features, k):
    features = torch.tensor(features)
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-3)
    return features @ torch.linalg.svd(features, full_matrices=False)[2][:k].T


def data_sets():
    digits, cancer = load_digits(), load_breast_cancer()
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(5, (20_000,), generator=generator)
    means = 0.5 * torch.randn(5, 20, generator=generator, dtype=torch.float64)
    mixture = torch.randn(20_000, 20, generator=generator, dtype=torch.float64) + means[labels]
    return {
        "digits": (principal(digits.data, 8), torch.tensor(digits.target), 300),
        "cancer": (principal(cancer.data, 4), torch.tensor(cancer.target), 120),
        "mixture": (mixture, labels, 2000),
    }


@pytest.mark.parametrize(
    ("metric", "function", "name"),
    [
        *((HScore, h_score, name) for name in ("digits", "cancer", "mixture")),
        (LogME, log_maximum_evidence, "digits"),
        *(pytest.param(LogME, log_maximum_evidence, name, marks=pytest.mark.long) for name in ("cancer", "mixture")),
    ],
)
def test_jackknife_interval_covers_the_value_of_all_data(metric, function, name):
    features, labels, n = data_sets()[name]

    def draw(generator):
        drawn = torch.randint(len(features), (n,), generator=generator)
        return {"features": features[drawn], "labels": labels[drawn]}

    assert_intervals_cover(partial(metric, jackknife_groups=10), draw, float(function(features, labels)))


def test_interval_needs_groups():
    metric = feed(HScore(), inputs_of(make_inputs(6)))
    with pytest.raises(ValueError, match="`jackknife_groups`"):
        metric.compute_with_interval()


def few(kind):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 120, generator=generator)
    if kind == "duplicates":
        features[1] = features[0]
    if kind == "nearly_constant":  # divided by its scale, it is rounding alone, and hides all that is smaller
        features[:, 0] = 1e6 + features[:, 0]
    return features, torch.arange(90) % 3


@pytest.mark.parametrize("kind", ["plain", "duplicates", "nearly_constant", "many", "groups"])
def test_scores_that_share_sums_look_at_each_part_together(monkeypatch, kind):
    features, labels = few(kind)
    if kind == "many":
        features, labels = torch.cat([features, features * 0.9 + 0.1] * 9), torch.cat([labels, labels] * 9)
    groups = torch.arange(len(labels)) % 7 if kind == "groups" else None

    def make():
        made = {"h": HScore, "s": partial(HScore, shrinkage="ledoit_wolf"), "l": LogME}
        collection = collect({name: metric(jackknife_groups=10) for name, metric in made.items()})
        collection.update(features, labels, groups=groups)
        return collection, dict(collection.items(keep_base=True, copy_state=False))

    _, alone = make()
    expected = {name: metric.compute_with_interval() for name, metric in alone.items()}
    collection, metrics = make()
    leave_out_together([*metrics.values(), object()])
    made = []
    totals = MomentMetric._totals_without_each
    monkeypatch.setattr(MomentMetric, "_totals_without_each", lambda self: (made.append(self), totals(self))[1])
    for name, metric in metrics.items():
        found = metric.compute_with_interval()
        assert found.value == expected[name].value
        assert found.standard_error == pytest.approx(expected[name].standard_error, rel=1e-6, abs=1e-12)
        assert found.bias == pytest.approx(expected[name].bias, rel=1e-6, abs=1e-9)
    assert not made
    collection.update(features, labels, groups=groups)
    for metric in metrics.values():
        metric.compute_with_interval()
    assert len(made) == 3  # what was known is of other samples


def test_a_score_that_cannot_do_without_a_part_fails_alone(monkeypatch):
    features, labels = few("plain")
    collection = collect({"h": HScore(jackknife_groups=3), "l": LogME(jackknife_groups=3)})
    collection.update(features, labels)
    metrics = dict(collection.items(keep_base=True, copy_state=False))

    def score(self, moments):
        if moments.count < 90:
            raise RuntimeError("too few")
        return moments.mean.sum()

    monkeypatch.setattr(LogME, "_score", score)
    leave_out_together(metrics.values())
    assert metrics["h"].compute_with_interval().value == pytest.approx(2)
    with pytest.raises(RuntimeError, match="too few"):
        metrics["l"].compute_with_interval()


def test_health_and_warnings():
    inputs = make_inputs(7, n=20, d=40)
    metric = feed(HScore(), inputs_of(inputs))
    with pytest.warns(UserWarning, match="20 samples for 40 features"):
        metric.compute()
    health = metric.health()
    assert (health.num_samples, health.num_features, health.num_classes) == (20, 40, 4)
    assert health.samples_per_feature == 0.5
    assert 1 <= health.effective_rank <= 19
    assert health.to_dict()["smallest_class"] >= 1


def test_labels_beyond_the_number_of_classes():
    metric = HScore(num_classes=3)
    with pytest.raises(ValueError, match="num_classes"):
        metric.update(torch.ones(2, 2), torch.tensor([0, 3]))


def test_multilabel_logme_is_that_of_its_columns():
    inputs = make_inputs(8)
    columns = torch.stack([inputs["labels"] == 1, inputs["labels"] >= 2], dim=1)
    metric = LogME(task="multilabel")
    metric.update(inputs["features"], columns.long())
    expected = log_maximum_evidence(inputs["features"], columns.double())
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-12)
    with pytest.raises(ValueError, match="zeros and ones"):
        metric.update(inputs["features"], inputs["labels"])
