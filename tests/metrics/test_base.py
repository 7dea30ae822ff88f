"""What every Metric shares: its identity, a cache that goes with its states, states of inference mode, config files."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import weakref

import jsonargparse
import pytest
import torch
from _helpers import feed, load_estimators, make_inputs, rows
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.wrappers import Running

from lightning_transfer import functional
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks import TransferabilityMonitor
from lightning_transfer.data import Digits
from lightning_transfer.metrics import GBC, LEEP, NLEEP, HScore, KNNAccuracy, LogME, PACTran, TransRate
from lightning_transfer.metrics.base import memo
from lightning_transfer.metrics.registry import METRICS, name_of, read_metrics
from lightning_transfer.screening import screen

ESTIMATORS = load_estimators()
every = pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
VARIANTS = {"h_score_shrunk", "gbc_streaming"}  # columns of one function with an option


# ---- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METRICS.keys() - VARIANTS))
def test_functions_are_called_like_columns(name):
    assert callable(getattr(functional, name))
    assert name in functional.__all__
    for module in ("logme", "energy_score", "negative_conditional_entropy", name):  # no module takes their place
        if importlib.util.find_spec(f"lightning_transfer.functional.{module}"):
            importlib.import_module(f"lightning_transfer.functional.{module}")
    assert not isinstance(getattr(functional, name), type(functional))


def test_options_change_the_name():
    assert (HScore().name, HScore(shrinkage=0.1).name) == ("h_score", "h_score_shrunk")
    assert (GBC().name, GBC(pca_dim=None).name) == ("gbc", "gbc_streaming")
    assert PACTran("gamma").title == "PACTran (Gamma)"
    assert (PACTran().higher_is_better, PACTran(variant="official").higher_is_better) == (True, False)
    assert name_of(MeanMetric()) == "mean_metric"


def test_metrics_handed_in_keep_their_names():
    metrics = [LEEP(), "h_score", NLEEP(), MeanMetric()]
    assert list(read_metrics(metrics)) == ["leep", "h_score", "nleep", "mean_metric"]
    assert list(read_metrics({"mine": LogME(), "logme": None, "gbc": {"pca_dim": 3}})) == ["mine", "logme", "gbc"]
    assert list(read_metrics(MetricCollection({"mine": LogME()}, prefix="a_"))) == ["a_mine"]
    assert list(read_metrics(HScore())) == ["h_score"]
    assert list(read_metrics(["logme", "logme"])) == ["logme"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([HScore(), HScore()], "`h_score` for HScore.*HScore"),
        (["logme", LogME()], "one score of a name, but got `logme`"),
        (["logmee"], "to name some of .*'logmee'"),
        ({"logme": 3}, "dict of options for 'logme', but got 3"),
        (3, "a name, names or a dict, but got 3"),
    ],
)
def test_nothing_is_dropped_in_silence(metrics, message):
    for use in (read_metrics, TransferabilityMonitor):
        with pytest.raises(ValueError, match=message):
            use(metrics)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_screen_takes_metrics():
    digits = Digits(max_samples=120)
    pixels = ModuleBackbone(torch.nn.Flatten(), input_shape=(1, 8, 8), head=None)
    board = screen({"pixels": pixels}, digits, [KNNAccuracy(k=3), "h_score"], progress=False)
    assert set(board.columns) == {"knn_accuracy", "h_score"}
    board = screen({"pixels": pixels}, digits, LogME(), progress=False)
    assert board.columns == ("logme",)
    with pytest.raises(ValueError, match="one score of a name"):
        screen({"pixels": pixels}, digits, ["default", LogME()], progress=False)
    with pytest.raises(ValueError, match=r"`reference` for the metrics \['otce'\]"):
        screen({"pixels": pixels}, digits, "otce", progress=False)
    board = screen({"pixels": pixels}, digits, "otce", reference=Digits(max_samples=90), progress=False)
    assert set(board.columns) == {"otce", "task_relatedness"}
    assert board.rows[0].status == "ok"


@pytest.mark.parametrize("name", METRICS)
def test_classes_are_made_from_config_files(name):
    spec = METRICS[name]
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--metric", type=Metric)
    path = f"lightning_transfer.metrics.{spec.metric_class.__name__}"
    for task in spec.tasks:
        config = {"class_path": path, "init_args": {**spec.options, "task": task}}
        metric = parser.instantiate_classes(parser.parse_object({"metric": config})).metric
        assert type(metric) is spec.metric_class
        assert (metric.task, metric.name) == (task, name)
    assert "_" not in spec.metric_class.__name__


@pytest.mark.parametrize("name", METRICS)
def test_unknown_arguments_and_tasks_are_refused_at_construction(name):
    with pytest.raises((TypeError, ValueError), match="nonsense"):
        METRICS[name].metric_class(nonsense=3)
    with pytest.raises(ValueError, match=r"`task`.*'nonsense'"):
        METRICS[name].metric_class(task="nonsense")


# ---- what is computed from states goes with them ---------------------------------------------------------------------


def living_tensors():
    gc.collect()
    return sum(isinstance(found, torch.Tensor) for found in gc.get_objects())


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_deleted_or_reset_metric_leaves_nothing(row):
    inputs = row.make()

    def look():
        metric = feed(row.new_metric(), inputs)
        metric.compute()
        found = weakref.ref(metric)
        states = [weakref.ref(metric.seen)]
        metric.reset()
        assert states[0]() is None
        metric.update(**inputs)
        metric.compute()
        return found

    found = look()
    gc.collect()
    assert found() is None
    if row.name in ("logme", "nce", "leep", "gbc_streaming"):  # one of each base; counting takes a second
        before = living_tensors()
        look()
        assert living_tensors() <= before


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_collection_that_is_used_again_and_again_does_not_grow():
    inputs = make_inputs()
    inputs = {"features": inputs["features"], "labels": inputs["labels"]}
    collection = MetricCollection([HScore(), LogME(), KNNAccuracy(), TransRate(keep_samples=50)])
    counts = []
    for _ in range(4):
        collection.update(**inputs)
        collection.compute()
        collection.reset()
        counts.append(living_tensors())
    assert counts[3] <= counts[1]


def test_copies_start_without_what_was_computed():
    metric = feed(LogME(), {name: make_inputs()[name] for name in LogME.requires})
    value = metric.compute()
    assert memo(metric.seen)
    for twin in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert not memo(twin.seen)
        twin._computed = None
        assert twin.compute() == value


# ---- inference mode, windows -----------------------------------------------------------------------------------------


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_states_of_inference_mode_can_be_changed_after_it(row):
    inputs = row.make()
    n = len(inputs[row.inputs[0]])
    expected = float(row.score(inputs))
    metric = row.new_metric()
    with torch.inference_mode():
        metric.reset()
        metric.update(**rows(inputs, slice(0, n // 2)))
    metric.update(**rows(inputs, slice(n // 2, n)))
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-7, abs=1e-7)
    with torch.inference_mode():
        made = row.new_metric()
        made.update(**rows(inputs, slice(0, n // 2)))
        made.compute()
    made.update(**rows(inputs, slice(n // 2, n)))
    assert float(made.compute()) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@every
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_running_window_is_the_value_of_the_window(row):
    inputs = row.make()
    n = len(inputs[row.inputs[0]])
    window = Running(row.new_metric(), window=2)
    for start, stop in ((0, n // 4), (n // 4, n // 2), (n // 2, n)):
        window.update(**rows(inputs, slice(start, stop)))
    expected = feed(row.new_metric(), rows(inputs, slice(n // 4, n))).compute()
    assert float(window.compute()) == pytest.approx(float(expected), rel=1e-7, abs=1e-7)
