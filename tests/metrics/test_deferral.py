from __future__ import annotations

import pytest
import torch
from _helpers import make_inputs
from torch.profiler import ProfilerActivity, profile
from torchmetrics import MetricCollection

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.extraction import extract
from lightning_transfer.metrics import HScore, LinearMSE, LogME
from lightning_transfer.metrics.base import collect, count_in, set_count
from lightning_transfer.metrics.moments import MomentMetric
from lightning_transfer.metrics.registry import build_metrics

_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Sums take whole batches, as on a GPU."""
    monkeypatch.setattr(MomentMetric, "_takes_whole_batches", True)


def _waits(function):
    """How often a GPU would have to be waited for, and for the sizes of the products."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        function()
    events = [(event.key, event.count) for event in recorded.key_averages()]
    return sum(count for name, count in events if name in _WAITS)


@pytest.fixture
def sent_to_the_host(monkeypatch):
    """Names of the methods of tensors that would move them off a GPU, as they are called."""
    called = []
    for name in ("cpu", "numpy", "tolist", "item"):
        original = getattr(torch.Tensor, name)

        def moved(self, *arguments, name=name, original=original, **keywords):
            called.append(name)
            return original(self, *arguments, **keywords)

        monkeypatch.setattr(torch.Tensor, name, moved)
    return called


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("names", [("logme", "h_score", "h_score_shrunk"), ("lfc",), ("gbc_streaming",), ("emms",)])
def test_updates_do_not_wait_for_the_device(as_on_a_gpu, sent_to_the_host, names, groups, dtype):
    inputs = make_inputs(n=3 * 1024, d=6)
    metrics = build_metrics(names, options={key: {"num_classes": 5, "jackknife_groups": groups} for key in names})
    for metric in metrics.values(copy_state=False):
        metric.defer_checks = True
    batches = list(zip(inputs["features"].to(dtype).split(1024), inputs["labels"].split(1024), strict=True))
    metrics.update(*batches[0])
    sent_to_the_host.clear()
    assert _waits(lambda: [metrics.update(*batch) for batch in batches[1:]]) == 0
    assert not sent_to_the_host


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_updates_of_targets_do_not_wait_for_the_device(as_on_a_gpu, sent_to_the_host, task):
    inputs = make_inputs(n=3 * 1024, d=6)
    truth = inputs["targets"] if task == "regression" else torch.nn.functional.one_hot(inputs["labels"])
    linear = {"linear_mse": LinearMSE()} if task == "regression" else {}
    metrics = collect({"logme": LogME(task=task), **linear})
    for metric in metrics.values(copy_state=False):
        metric.defer_checks = True
    batches = list(zip(inputs["features"].split(1024), truth.split(1024), strict=True))
    kind = "targets" if task == "regression" else "labels"
    metrics.update(features=batches[0][0], **{kind: batches[0][1]})
    sent_to_the_host.clear()
    assert _waits(lambda: [metrics.update(features=rows, **{kind: some}) for rows, some in batches[1:]]) == 0
    assert not sent_to_the_host


def test_without_a_number_of_classes_updates_wait_once(as_on_a_gpu):
    inputs = make_inputs(n=2 * 1024, d=6)
    metric = LogME()
    metric.defer_checks = True
    batches = list(zip(inputs["features"].split(1024), inputs["labels"].split(1024), strict=True))
    metric.update(*batches[0])
    assert _waits(lambda: metric.update(*batches[1])) <= 1


@pytest.mark.parametrize("sizes", [[3000], [1024, 1976], [5, 2000, 995], [1500, 20, 1480]])
@pytest.mark.parametrize("groups", [1, 7])
def test_whole_batches_give_the_same_scores(monkeypatch, sizes, groups):
    inputs = make_inputs(n=3000, d=6)
    results = []
    for whole in (False, True):
        monkeypatch.setattr(MomentMetric, "_takes_whole_batches", whole)
        metric = HScore(jackknife_groups=groups)
        for features, labels in zip(inputs["features"].split(sizes), inputs["labels"].split(sizes), strict=True):
            metric.update(features, labels)
        found = metric.compute_with_interval() if groups > 1 else None
        results.append([float(metric.compute()), *([found.standard_error, found.bias] if found else [])])
    assert results[1] == pytest.approx(results[0], rel=1e-9)


@pytest.mark.parametrize("name", ["logme", "linear_mse", "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_that_are_not_finite_are_told_by_the_score(name, dtype):
    inputs = make_inputs(n=64, d=4)
    metric = {"logme": LogME(), "linear_mse": LinearMSE(), "multilabel": LogME(task="multilabel")}[name]
    metric.defer_checks = True
    truth = {"logme": inputs["labels"], "linear_mse": inputs["features"][:, :2].double()}.get(name)
    truth = torch.nn.functional.one_hot(inputs["labels"]) if truth is None else truth
    features = inputs["features"].to(dtype)
    metric.update(features, truth)
    bad = features.clone()
    bad[3, 2] = torch.nan
    metric.update(bad, truth)
    with pytest.raises(ValueError, match=r"`features` to be finite.*but (1|some) batches"):
        metric.compute()
    metric.reset()
    metric.update(features, truth)
    assert torch.isfinite(metric.compute())


@pytest.mark.parametrize(
    ("options", "bad", "message"),
    [
        ({"num_classes": 5}, 7, "`labels` to hold ids below num_classes=5"),
        ({"num_classes": 5}, -1, "`labels` to hold class ids from 0"),
        ({}, -1, "`labels` to hold class ids from 0"),
        ({"task": "multilabel"}, 2, "`labels` to hold zeros and ones"),
        ({"task": "regression"}, torch.inf, "`targets` to be finite"),
    ],
)
def test_labels_and_targets_that_are_wrong_are_told_by_the_score(options, bad, message):
    inputs = make_inputs(n=64, d=4)
    metric = LogME(**options)
    metric.defer_checks = True
    truth = inputs["labels"]
    if metric.task != "classification":
        truth = torch.nn.functional.one_hot(truth).double()
    truth = truth.clone()
    truth[5] = bad
    metric.update(inputs["features"], truth)
    with pytest.raises(ValueError, match=message):
        metric.compute()


def test_faults_of_merged_states_count():
    inputs = make_inputs(n=64, d=4)
    sound, spoiled = LogME(), LogME()
    spoiled.defer_checks = True
    sound.update(inputs["features"], inputs["labels"])
    spoiled.update(inputs["features"] * torch.nan, inputs["labels"])
    sound.merge_state(spoiled)
    with pytest.raises(ValueError, match="finite"):
        sound.compute()


def test_sizes_are_checked_at_once():
    metric = LogME()
    metric.defer_checks = True
    with pytest.raises(ValueError, match="to have 3 rows"):
        metric.update(torch.ones(3, 2), torch.tensor([0, 1]))


def test_extract_reads_values_at_once_on_the_cpu():
    backbone = ModuleBackbone(torch.nn.Identity(), input_shape=(4,), head=None)
    metrics = MetricCollection({"logme": LogME()})
    batches = [(torch.eye(4), torch.arange(4)), (torch.eye(4) * torch.nan, torch.arange(4))]
    with pytest.raises(ValueError, match=r"batch 1: .*finite"):
        extract(backbone, batches, metrics)
    assert not metrics["logme"].defer_checks


def test_extract_on_a_device_that_is_not_waited_for_names_the_backbone(monkeypatch):
    from lightning_transfer.extraction import _FeaturePass

    original = _FeaturePass.defer_checks
    monkeypatch.setattr(_FeaturePass, "defer_checks", lambda self, deferred: original(self, True))
    backbone = ModuleBackbone(torch.nn.Identity(), input_shape=(4,), head=None)
    batches = [(torch.eye(4), torch.arange(4)), (torch.eye(4) * torch.nan, torch.arange(4))]
    with pytest.raises(ValueError, match=f"{backbone.name}: .*but some batches"):
        extract(backbone, batches, MetricCollection({"logme": LogME()}))


def test_counts_are_read_again_where_they_were_changed():
    state = torch.zeros((), dtype=torch.long)
    set_count(state, 3)
    assert count_in(state) == 3
    state += 2
    assert count_in(state) == 5
    with torch.inference_mode():
        assert count_in(torch.ones((), dtype=torch.long)) == 1
