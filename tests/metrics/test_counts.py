"""Scores of counts: exact, shared and merged."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from _helpers import assert_intervals_cover, feed, make_inputs, rows
from torchmetrics import MetricCollection

from lightning_transfer.functional import knn_accuracy, leep, negative_conditional_entropy, task_hardness
from lightning_transfer.metrics import (
    LEEP,
    NCE,
    KNNAccuracy,
    TaskHardness,
)


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
