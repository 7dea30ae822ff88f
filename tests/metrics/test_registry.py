"""Scores by name."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers import load_estimators, make_inputs
from torch import nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_transfer import functional, metrics
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits
from lightning_transfer.metrics import SCORES, HScore
from lightning_transfer.metrics.base import collect
from lightning_transfer.metrics.moments import MomentMetric
from lightning_transfer.metrics.registry import METRICS, build_metrics, read_metrics, resolve_metrics
from lightning_transfer.screening import screen


def test_every_metric_is_built_by_name():
    assert {spec.metric_class.__name__ for spec in METRICS.values()} == set(metrics.__all__) - {
        "SCORES", "EnergyScore", "NegativeConditionalEntropy"
    }  # fmt: skip
    for name in metrics.__all__:
        assert getattr(metrics, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = metrics.no_such_name


@pytest.mark.parametrize("name", METRICS)
def test_name_builds_what_it_says(name):
    spec = METRICS[name]
    for task in spec.tasks:
        metric = spec.build(task)
        assert type(metric) is spec.metric_class
        assert (metric.name, metric.title, metric.task) == (name, spec.title, task)
        assert {*spec.requires} == {*metric.requires} - {"labels", "targets"}
        assert hasattr(metric, "jackknife_groups") is metric.jackknife
        assert hasattr(metric, "set_reference") is metric.needs_reference
        assert hasattr(metric, "parts") is (metric.combine is not None)
    for task in {"classification", "multilabel", "regression"} - {*spec.tasks}:
        with pytest.raises(ValueError, match=f"metric `{name}`"):
            spec.build(task)


def test_every_name_is_in_the_table_of_estimators():
    rows = {row.name: row for row in load_estimators()}
    for name, spec in METRICS.items():
        if spec.metric_class.needs_reference:
            continue
        metric = rows[name].new_metric()
        built = spec.build(spec.tasks[0])
        assert type(metric) is type(built)


def test_names_that_are_refused():
    with pytest.raises(ValueError, match="logme"):
        resolve_metrics("logmee")
    with pytest.raises(ValueError, match="regression"):
        resolve_metrics("h_score", task="regression")
    assert "leep" not in build_metrics("all", available=("features",))
    with pytest.raises(ValueError, match="None of the metrics"):
        build_metrics("leep", available=("features",))


def test_metrics_of_one_name_are_told_by_what_differs():
    two = [metrics.HScore(shrinkage="ledoit_wolf"), metrics.HScore(shrinkage=0.5)]
    with pytest.raises(ValueError, match=r"HScore\(shrinkage='ledoit_wolf'\) and HScore\(shrinkage=0.5\): hand"):
        read_metrics(two)


def test_all_are_the_scores_of_a_backbone():
    by_name_only = {"task_hardness", "otce", "task_relatedness"}
    assert set(METRICS) - set(resolve_metrics("all")) == {"linear_mse", "label_mse"} | by_name_only
    assert resolve_metrics(["all", "task_hardness"])[-1] == "task_hardness"
    assert {"etran", "linear_mse", "label_mse"} < set(resolve_metrics("all", task="regression"))


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_scores_of_one_pass(task):
    inputs = make_inputs()
    if task == "multilabel":
        inputs["labels"] = torch.stack([inputs["labels"] == 1, inputs["labels"] >= 2], dim=1).long()
    inputs.pop("labels" if task == "regression" else "targets")
    collection = build_metrics("all", task=task, jackknife_groups=4)
    for batch in (slice(0, 60), slice(60, None)):
        collection.update(**{name: values[batch] for name, values in inputs.items()})
    scores = collection.compute()
    assert set(scores) == set(resolve_metrics("all", task))
    assert all(math.isfinite(score) for score in scores.values())


class Pixels(ModuleBackbone):
    """Random features and source logits of flat digits."""

    def __init__(self, width):
        head = nn.Linear(width, 7)
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), head), input_shape=(1, 8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_screen_by_all_scores_and_by_hardness():
    digits = Digits(max_samples=200)
    torch.manual_seed(0)
    backbones = {"narrow": Pixels(3), "wide": Pixels(24)}
    board = screen(backbones, digits, ["all", "task_hardness"], progress=False)
    assert board.columns == tuple(resolve_metrics(["all", "task_hardness"]))
    assert board.rank_by == "leep"
    board.rank_by = "logme"
    assert [row.status for row in board.rows] == ["ok", "ok"]
    assert all(math.isfinite(row.score(column)) for row in board.rows for column in board.columns)
    assert board.best == "wide"
    assert not board.higher_is_better("task_hardness")
    assert board["narrow"].score("task_hardness") == board["wide"].score("task_hardness")
    official = screen(backbones, digits, {"pactran": {"variant": "official"}}, progress=False)
    assert not official.higher_is_better("pactran")
    assert official.best == min(official.rows, key=lambda row: row.score("pactran")).backbone


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_states_shared_from_the_first_batch_are_states_that_torchmetrics_finds_equal(task):
    names = [name for name in resolve_metrics("all", task) if name != "emms"]
    inputs = make_inputs(5, n=60)
    if task == "multilabel":
        inputs["labels"] = (inputs["features"][:, :3] > 0).long()
    inputs["source_outputs"] = inputs["features"] + 1
    collection = build_metrics(names, task=task)
    plain = MetricCollection({name: METRICS[name].build(task) for name in names})
    for batch in (slice(0, 40), slice(40, 60)):
        for metrics_ in (collection, plain):
            metrics_.update(**{name: values[batch] for name, values in inputs.items()})

    def grouped(metrics_):
        return {frozenset(group) for group in metrics_.compute_groups.values()}

    for group in grouped(collection):
        assert any(group <= equal for equal in grouped(plain))
    assert len(grouped(collection)) <= len(grouped(plain)) + 1  # kNN takes attributes too, by an update of its own
    values, expected = collection.compute(), plain.compute()
    assert {name: float(values[name]) for name in names} == pytest.approx(
        {name: float(expected[name]) for name in names}
    )


def test_shared_states_are_updated_once_also_for_the_first_batch(monkeypatch):
    calls = []
    accumulate = MomentMetric._accumulate
    monkeypatch.setattr(MomentMetric, "_accumulate", lambda *args: (calls.append(1), accumulate(*args))[1])
    collection = build_metrics(["h_score", "h_score_shrunk", "logme"])
    inputs = make_inputs(6)
    for _ in range(2):
        collection.update(features=inputs["features"], labels=inputs["labels"])
    assert len(calls) == 2
    assert len(collection.compute()) == 3


def test_metrics_of_other_packages_may_stand_beside_ours():
    inputs = make_inputs(7)
    collection = collect({"h_score": metrics.HScore(), "logme": metrics.LogME(), "mean": MeanMetric()})
    collection.update(features=inputs["features"], labels=inputs["labels"], value=torch.tensor(2.0))
    assert float(collection.compute()["mean"]) == 2


@pytest.mark.parametrize(("n", "d"), [(2000, 24), (30, 50)])
def test_no_score_depends_on_its_neighbours(n, d):
    inputs = make_inputs(8, n=n, d=d)
    inputs = {"features": inputs["features"] + 100, "labels": inputs["labels"]}
    names = ["logme", "h_score_shrunk", "h_score", "lfc"]
    together = build_metrics(names)
    together.update(**inputs)
    values = together.compute()
    for name in names:
        alone = build_metrics([name])
        alone.update(**inputs)
        assert float(alone.compute()[name]) == pytest.approx(float(values[name]), rel=1e-13)


@pytest.mark.parametrize("name", SCORES)
def test_column_function_and_class_have_one_name(name):
    path, options = SCORES[name]
    kind = path.partition(":")[2]
    words = {"h_score_shrunk": "h_score", "gbc_streaming": "streaming_gbc"}.get(name, name)
    assert kind.lower() == ("pactran" if options.get("prior") else words).replace("_", "")
    function = getattr(functional, {"h_score_shrunk": "h_score", "gbc_streaming": "gbc"}.get(name, name))
    assert callable(function)


def test_long_names_are_the_same_classes():
    assert metrics.NegativeConditionalEntropy is metrics.NCE
    assert metrics.EnergyScore is metrics.Energy


def test_a_config_builds_a_score_of_ones_own():
    read = read_metrics(
        {"logme": None, "mine": {"_target_": "lightning_transfer.metrics.HScore", "jackknife_groups": 4}}
    )
    assert read["logme"] == {}
    assert isinstance(read["mine"], HScore)
    for config, message in (
        ({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, r"`metrics\.mine` to build a Metric"),
        ({"_target_": "lightning_transfer.metrics.HScore", "nope": 1}, r"metrics\.mine: .*nope"),
        ({"_target_": "os.system"}, "is not allowed here"),
    ):
        with pytest.raises(ValueError, match=message):
            read_metrics({"mine": config})
