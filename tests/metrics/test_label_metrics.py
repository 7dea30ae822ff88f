from __future__ import annotations

import importlib
import math
import pickle
from functools import partial

import pytest
import torch
from _helpers import assert_intervals_cover, feed, make_inputs, rows
from torchmetrics import MetricCollection

from lightning_transfer.functional import knn_accuracy, leep, negative_conditional_entropy, otce, task_hardness
from lightning_transfer.metrics import (
    LEEP,
    NCE,
    NLEEP,
    OTCE,
    Energy,
    KNNAccuracy,
    TaskHardness,
)

# ---- counts


def pairs(n=110):
    inputs = make_inputs(n=n)
    return {"source_labels": inputs["source_labels"], "labels": inputs["labels"]}


def test_counts_are_integers_and_grow_with_the_ids():
    metric = NCE()
    metric.update(torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert metric.joint_counts.shape == (1, 1, 2, 3)
    metric.update(torch.tensor([4, 4]), torch.tensor([1, 1]))
    assert metric.joint_counts.shape == (1, 1, 5, 3)
    assert metric.joint_counts.dtype == torch.int64
    assert int(metric.joint_counts[0, 0, 4, 1]) == 2
    assert int(metric.joint_counts.sum()) == int(metric.seen) == 4


def test_ids_that_are_no_class_ids_are_refused_and_leave_the_counts():
    metric = feed(NCE(), pairs())
    before = metric.joint_counts.clone()
    with pytest.raises(ValueError, match="fit in memory"):
        metric.update(torch.tensor([10**9]), torch.tensor([10**9]))
    assert torch.equal(metric.joint_counts, before)
    with pytest.raises(ValueError, match="`labels` to have 1 columns like before, but got 2"):
        metric.update(torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 1]]))


def test_merging_other_columns_is_refused():
    first = feed(TaskHardness(), {"labels": torch.tensor([0, 1])})
    second = feed(TaskHardness(), {"labels": torch.tensor([[0, 1], [1, 1]])})
    with pytest.raises(ValueError, match="same columns"):
        first.merge_state(second)


def test_several_labels_a_sample_stream():
    inputs = make_inputs()
    columns = torch.stack([(inputs["labels"] == c).long() for c in range(4)], dim=1)
    both = {"source_labels": inputs["source_labels"], "labels": columns}
    nce = feed(NCE(), both, [30, 30]).compute()
    assert float(nce) == pytest.approx(float(negative_conditional_entropy(**both)), abs=1e-12)
    hardness = feed(TaskHardness(), {"labels": columns}, [30, 30]).compute()
    assert float(hardness) == pytest.approx(float(task_hardness(columns)), abs=1e-12)
    probs = {"source_probs": inputs["source_probs"], "labels": columns}
    assert float(feed(LEEP(), probs, [30]).compute()) == pytest.approx(float(leep(**probs)), abs=1e-12)
    features = {"features": inputs["features"], "labels": columns}
    neighbours = feed(KNNAccuracy(k=3), features, [30]).compute()
    assert float(neighbours) == pytest.approx(float(knn_accuracy(**features, k=3)), abs=1e-12)


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


def test_collections_share_counts_only_where_they_agree():
    collection = MetricCollection(
        {
            "plain": NCE(),
            "corrected": NCE(miller_madow=True),
            "ignoring": NCE(ignore_index=0),
            "float16": LEEP(cache="float16"),
            "exact": LEEP(),
        }
    )
    inputs = make_inputs()
    inputs = {name: inputs[name] for name in ("source_labels", "source_probs", "labels")}
    for start in (0, 60):
        collection.update(**rows(inputs, slice(start, start + 60)))
    groups = [set(group) for group in collection.compute_groups.values()]
    assert {"plain", "corrected"} in groups
    assert {"ignoring"} in groups
    assert {"float16"} in groups
    values = collection.compute()
    source, labels = inputs["source_labels"], inputs["labels"]
    assert float(values["plain"]) == float(negative_conditional_entropy(source, labels))
    assert float(values["corrected"]) == float(negative_conditional_entropy(source, labels, miller_madow=True))
    kept = labels != 0
    expected = negative_conditional_entropy(source[kept], labels[kept])
    assert float(values["ignoring"]) == pytest.approx(float(expected), abs=1e-12)
    assert float(values["exact"]) == pytest.approx(float(leep(inputs["source_probs"], labels)), abs=1e-12)


def test_hardness_and_nce_of_a_source_that_starts_constant_are_kept_apart():
    inputs = make_inputs()
    source = torch.where(torch.arange(110) < 40, 0, inputs["source_labels"])
    collection = MetricCollection({"hardness": TaskHardness(), "nce": NCE()})
    for batch in (slice(0, 40), slice(40, None)):
        collection.update(source_labels=source[batch], labels=inputs["labels"][batch])
    values = collection.compute()
    assert float(values["hardness"]) == float(task_hardness(inputs["labels"]))
    assert float(values["nce"]) == float(negative_conditional_entropy(source, inputs["labels"]))


def test_jackknife_error_of_the_hardness_is_that_of_theory():
    shares, n = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64), 2000
    intervals = assert_intervals_cover(
        partial(TaskHardness, jackknife_groups=50),
        lambda generator: {"labels": torch.multinomial(shares, n, replacement=True, generator=generator)},
        float(-(shares * shares.log()).sum()),
    )
    variance = float((shares * shares.log().square()).sum() - (shares * shares.log()).sum() ** 2)
    mean_error = sum(interval.standard_error for interval in intervals) / len(intervals)
    # the mean of 200 errors from 50 groups each is known to 0.7 %
    assert mean_error == pytest.approx(math.sqrt(variance / n), rel=0.02)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_health_tells_of_a_source_as_fine_as_the_samples():
    labels = torch.arange(40) % 2
    fine = feed(NCE(), {"source_labels": torch.arange(40), "labels": labels})
    assert any("tell samples apart" in message for message in fine.health().messages)
    rough = feed(NCE(), {"source_labels": torch.arange(40) % 15, "labels": labels})
    assert any("set `miller_madow`" in message for message in rough.health().messages)
    corrected = NCE(miller_madow=True)
    assert not feed(corrected, {"source_labels": torch.arange(40) % 15, "labels": labels}).health().messages
    assert feed(NCE(), pairs()).health().in_range


# ---- samples


def test_leep_cache_in_half_precision():
    inputs = make_inputs(n=2000, source_classes=200)
    inputs = {name: inputs[name].float() if name == "source_probs" else inputs[name] for name in LEEP.requires}
    metric = feed(LEEP(cache="float16"), inputs, [512] * 3)
    assert all(part.dtype == torch.float16 for part in metric.kept_source_probs)
    assert float(metric.compute()) == pytest.approx(float(leep(**inputs)), abs=1e-3)
    double = {**inputs, "source_probs": inputs["source_probs"].double()}
    assert feed(LEEP(cache="float32"), double).kept_source_probs[0].dtype == torch.float32
    with pytest.raises(ValueError, match="`cache` to be one of"):
        LEEP(cache="int8")


def test_leep_refuses_another_number_of_source_classes():
    inputs = make_inputs()
    metric = feed(LEEP(), {name: inputs[name] for name in LEEP.requires})
    with pytest.raises(ValueError, match="`source_probs` to have 5 columns like before, but got 3"):
        metric.update(torch.full((4, 3), 1 / 3), torch.tensor([0, 1, 2, 3]))


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


def test_knn_interval_is_that_of_a_proportion():
    inputs = make_inputs(n=500)
    inputs = {name: inputs[name] for name in KNNAccuracy.requires}
    interval = feed(KNNAccuracy(k=3, num_resamples=400), inputs).compute_with_interval()
    accuracy = float(knn_accuracy(**inputs, k=3))
    assert interval.value == pytest.approx(accuracy, abs=1e-12)
    assert interval.standard_error == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 500), rel=0.15)


def test_nleep_interval_fits_one_mixture(monkeypatch):
    module = importlib.import_module("lightning_transfer.metrics.nleep")
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    original = module.responsibilities
    monkeypatch.setattr(module, "responsibilities", counted)
    inputs = make_inputs()
    metric = feed(NLEEP(components_per_class=2), {name: inputs[name] for name in NLEEP.requires})
    assert metric.compute_with_interval().standard_error > 0
    assert len(calls) == 1


# ---- OTCE


def test_source_of_otce_is_set_later_and_survives_reset():
    inputs = make_inputs()
    source = make_inputs(seed=3)
    source = source["features"], source["source_labels"]
    metric = OTCE()
    inputs = {name: inputs[name] for name in OTCE.requires}
    feed(metric, inputs)
    with pytest.raises(ValueError, match="`set_reference` to be called"):
        metric.compute()
    metric.set_reference(*source)
    expected = float(otce(*source, **inputs))
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-10)
    for copy in (metric, metric.clone(), pickle.loads(pickle.dumps(metric))):
        copy.reset()
        assert float(feed(copy, inputs, [50]).compute()) == pytest.approx(expected, abs=1e-10)


def test_another_source_gives_another_value():
    inputs = make_inputs()
    target = {name: inputs[name] for name in OTCE.requires}
    metric = feed(OTCE(inputs["features"], inputs["source_labels"]), target)
    same = float(metric.compute())
    metric.set_reference(inputs["features"] + 2, inputs["labels"])
    assert float(metric.compute()) == pytest.approx(float(otce(inputs["features"] + 2, inputs["labels"], **target)))
    assert float(metric.compute()) != same


def test_bad_sources_are_refused():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="together"):
        OTCE(inputs["features"])
    with pytest.raises(ValueError, match="`reference_labels`"):
        OTCE(inputs["features"], inputs["labels"][:-1])
    metric = feed(OTCE(), {name: inputs[name] for name in OTCE.requires})
    with pytest.raises(ValueError, match="`reference_features` to have 6 columns"):
        metric.set_reference(inputs["features"][:, :4], inputs["labels"])
    with pytest.raises(ValueError, match="`weights`"):
        OTCE(weights=(1.0, float("nan"), 0.0))


def test_energy_keeps_one_number_a_sample():
    metric = Energy()
    metric.update(torch.zeros(5, 1000))
    assert metric.kept_source_outputs[0].shape == (5,)
