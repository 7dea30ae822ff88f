"""Health records: every field comes from data that show it, and every warning is said once."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from _helpers import feed, load_estimators, make_inputs
from torchmetrics import MetricCollection

from lightning_transfer.functional.moments import FeatureMoments
from lightning_transfer.metrics import (
    EMMS,
    GBC,
    LFC,
    NLEEP,
    Energy,
    HScore,
    KNNAccuracy,
    LinearMSE,
    LogME,
    PACTran,
    TransRate,
)

ESTIMATORS = load_estimators()


def inputs_of(metric, seed=0, **options):
    everything = make_inputs(seed, **options)
    return {name: everything[name] for name in metric.requires}


def messages_of_compute(metric):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metric.compute()
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
def test_limits_of_the_metric_are_those_of_the_score(row):
    inputs = row.make()
    metric = feed(row.new_metric(), inputs, [30])
    score = float(metric.compute())
    low, high = metric.score_range()
    assert low - 1e-9 <= score <= high + 1e-9
    wanted_low, wanted_high = row.bounds(inputs)
    assert low >= wanted_low - 1e-9
    assert high <= wanted_high + 1e-9
    assert metric.health().in_range


class Broken(HScore):
    """Gives what no H-score can be."""

    value = 7.0

    def _score(self, moments):
        return moments.count * torch.zeros((), dtype=torch.float64) + self.value


def test_an_impossible_score_is_told_once():
    metric = feed(Broken(), inputs_of(Broken()))
    [message] = messages_of_compute(metric)
    assert "7 is impossible, the limits are 0 and 3" in message
    assert not metric.health().in_range
    metric.update(**inputs_of(metric, seed=1))
    assert messages_of_compute(metric) == []
    assert metric.health().messages == ("7 is impossible, the limits are 0 and 3",)
    metric.value = 2.0
    metric.reset()
    assert messages_of_compute(feed(metric, inputs_of(metric))) == []
    assert metric.health().in_range


def collinear(features):
    return torch.cat([features, features[:, :1] + 1e-5 * features[:, 1:2].square()], dim=1)


@pytest.mark.parametrize("metric", [HScore, LinearMSE, EMMS])
def test_nearly_collinear_or_too_many_features(metric):
    few = feed(metric(), inputs_of(metric(), n=20, d=40))
    assert any("20 samples for 40 features" in message for message in messages_of_compute(few))
    inputs = inputs_of(metric())
    assert 1 < feed(metric(), inputs).health().condition_number < 1e3
    inputs["features"] = collinear(inputs["features"])
    scored = feed(metric(), inputs)
    assert any("nearly collinear features" in message for message in messages_of_compute(scored))
    scaled = (inputs["features"] - inputs["features"].mean(0)) / inputs["features"].std(0)
    values = torch.linalg.eigvalsh(scaled.T @ scaled)
    # an estimate from below
    assert 1e8 < scored.health().condition_number < 1.01 * float(values[-1] / values[0])


@pytest.mark.parametrize(
    "metric",
    [partial(HScore, shrinkage="ledoit_wolf"), partial(HScore, shrinkage=0.1), partial(LinearMSE, 0.5), LogME, LFC],
    ids=["ledoit_wolf", "fixed", "ridge", "logme", "lfc"],
)
def test_scores_that_invert_nothing_singular_do_not_mind(metric):
    inputs = inputs_of(metric())
    inputs["features"] = collinear(inputs["features"])
    scored = feed(metric(), inputs)
    assert messages_of_compute(scored) == []
    assert scored.health().condition_number is None
    assert messages_of_compute(feed(metric(), inputs_of(metric(), n=20, d=40))) == []


def test_shrinkage_that_leaves_nothing():
    features, labels = torch.eye(12), torch.arange(12) % 2
    metric = HScore(shrinkage="ledoit_wolf")
    metric.update(features, labels)
    assert any("the shrinkage is 1, so the score is 0" in message for message in messages_of_compute(metric))
    assert float(metric.compute()) == 0
    metric = HScore(shrinkage="ledoit_wolf")
    metric.update(features + labels[:, None], labels)
    assert not any("shrinkage" in message for message in messages_of_compute(metric))
    assert float(metric.compute()) > 0


def test_solver_that_did_not_converge():
    metric = feed(PACTran(max_iter=2, num_resamples=3), inputs_of(PACTran()))
    assert metric.health().converged  # nothing was solved yet
    assert any("did not converge in 2 iterations" in message for message in messages_of_compute(metric))
    assert not metric.health().converged
    metric.compute_with_interval()
    assert not metric.health().converged
    assert feed(PACTran(), inputs_of(PACTran())).health().converged


def test_health_is_that_of_the_value_not_of_the_last_resample(monkeypatch):
    metric = feed(PACTran(num_resamples=3), inputs_of(PACTran()))
    calls = []

    def slower_and_slower(*args, **kwargs):
        calls.append(1)
        score, _ = original(*args, **kwargs)
        return score, len(calls) == 1

    from lightning_transfer.metrics import pactran

    original = pactran.gaussian_score
    monkeypatch.setattr(pactran, "gaussian_score", slower_and_slower)
    metric.compute_with_interval()
    assert len(calls) == 4
    assert metric.health().converged


def test_mixture_that_did_not_converge(monkeypatch):
    inputs = inputs_of(NLEEP())
    metric = feed(NLEEP(), inputs)
    assert messages_of_compute(metric) == []
    assert metric.health().converged
    with monkeypatch.context() as hasty:
        hasty.setattr("lightning_transfer.functional._mixture._MOST_STEPS", 1)
        metric = feed(NLEEP(), inputs)
        assert any("the Gaussian mixture did not converge" in message for message in messages_of_compute(metric))
        assert not metric.health().converged
    metric.reset()
    assert feed(metric, inputs).health().converged


@pytest.mark.parametrize("metric", [HScore, LinearMSE, KNNAccuracy, TransRate])
def test_effective_rank(metric):
    inputs = inputs_of(metric(), d=9)
    features = inputs["features"]
    variances = torch.linalg.eigvalsh(torch.cov(features.T))
    expected = float(variances.sum().square() / variances.square().sum())
    scored = feed(metric(), inputs, [40])
    assert scored.health().effective_rank == pytest.approx(expected, rel=1e-9)
    assert not any("one direction" in message for message in messages_of_compute(scored))
    inputs["features"] = features + 40 * features[:, :1] * torch.ones(9, dtype=features.dtype)
    scored = feed(metric(), inputs, [40])
    assert any("nearly all variance lies along one direction" in text for text in messages_of_compute(scored))
    assert 1 <= scored.health().effective_rank < 1.5


@pytest.mark.parametrize(("scale", "shift"), [(1e12, 0.0), (1e-25, 0.0), (1.0, 1e5)])
@pytest.mark.parametrize("width", [9, 200])
def test_effective_rank_of_narrow_features_depends_on_neither_scale_nor_origin(scale, shift, width):
    inputs = inputs_of(KNNAccuracy(), d=width)
    expected = feed(KNNAccuracy(), inputs).health().effective_rank
    inputs["features"] = (scale * inputs["features"] + shift).float()
    assert feed(KNNAccuracy(), inputs).health().effective_rank == pytest.approx(expected, rel=1e-3)


def test_metrics_that_share_a_sample_share_its_effective_rank(monkeypatch):
    calls = []
    original = FeatureMoments.of_features
    monkeypatch.setattr(FeatureMoments, "of_features", lambda features: (calls.append(1), original(features))[1])
    inputs = inputs_of(KNNAccuracy())
    collection = MetricCollection({"k": KNNAccuracy(), "t": TransRate(), "g": GBC()})
    for start in (0, 50):
        collection.update(**{name: values[start : start + 50] for name, values in inputs.items()})
    collection.compute()
    assert len(calls) == 1


def test_scores_without_features_have_none_of_their_figures():
    health = feed(Energy(), inputs_of(Energy())).health()
    assert health.num_features is health.effective_rank is health.smallest_class is None


def test_a_mixture_of_components_with_few_samples_is_told():
    metric = feed(NLEEP(), inputs_of(NLEEP(), n=60, d=40))
    assert any("hardly more than k-means" in message for message in messages_of_compute(metric))
    assert any("3 samples a component" in message for message in metric.health().messages)
    many = feed(NLEEP(components_per_class=1), inputs_of(NLEEP(), n=400))
    assert messages_of_compute(many) == []


def test_what_was_said_of_other_numbers_is_not_said_again():
    inputs = make_inputs(d=10)
    features, labels = inputs["features"], inputs["labels"]
    metric = LogME()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for noise in (1e-3, 1e-2):  # as from epoch to epoch
            metric.reset()
            metric.update(features[:, :1] + noise * features, labels)
            metric.compute()
    assert len([warning for warning in caught if "one direction" in str(warning.message)]) == 1
