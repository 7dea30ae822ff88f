"""Values, errors and training on a GPU beside the CPU; `benchmarks/gpu.py` measures its speed."""

from __future__ import annotations

import math

import pytest
import torch
from _helpers import feed, load_estimators, make_inputs, rows
from _screens import Linear
from _training import Points, fit, trace
from torch.utils.data import DataLoader

from lightning_transfer import screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.data import Digits
from lightning_transfer.extraction import extract
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.functional import task_relatedness
from lightning_transfer.metrics.registry import build_metrics

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
ESTIMATORS = load_estimators()
every = pytest.mark.parametrize("row", ESTIMATORS, ids=lambda row: row.name)
GPU = {"accelerator": "gpu", "devices": 1}


def _sent(inputs):
    return {name: value.cuda() for name, value in inputs.items()}


def _assert_same(value, expected):
    assert float(value) == pytest.approx(float(expected), rel=1e-6, abs=1e-9)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_metrics_and_functions_give_the_values_of_the_cpu(row, dtype):
    if dtype == torch.bfloat16 and "source_probs" in row.inputs:
        pytest.skip("rounded to bfloat16, probabilities are no probabilities")
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in row.make().items()}
    expected = row.score(inputs)
    _assert_same(row.score(_sent(inputs)), expected)
    metric = feed(row.new_metric().cuda(), _sent(inputs), [64, 13])
    assert metric.compute().device.type == "cuda"
    _assert_same(metric.compute(), expected)


@pytest.mark.parametrize("names", [("logme", "h_score", "h_score_shrunk"), ("linear_mse",), ("gbc_streaming",)])
@pytest.mark.parametrize("groups", [1, 7])
def test_large_batches_are_summed_as_small_ones_are(names, groups):
    inputs = make_inputs(n=5000, d=1100, classes=30)
    task, kind = ("regression", "targets") if "linear_mse" in names else ("classification", "labels")
    options = {name: {"jackknife_groups": groups} for name in names}
    found = []
    for device, sizes in (("cpu", [700, 2000]), ("cuda", [3000])):
        metrics = build_metrics(names, task=task, options=options).to(device)
        batch = {key: inputs[key].to(device) for key in ("features", kind)}
        start = 0
        for size in (*sizes, 5000 - sum(sizes)):
            metrics.update(**rows(batch, slice(start, start + size)))
            start += size
        found.append({name: float(value) for name, value in metrics.compute().items()})
        if groups > 1:
            found[-1] |= {
                name + "_error": metric.compute_with_interval().standard_error for name, metric in metrics.items()
            }
    assert found[1] == pytest.approx(found[0], rel=1e-6)


@pytest.mark.parametrize("ground_cost", ["loss", "feature"])
def test_the_bound_is_that_of_the_cpu(ground_cost):
    reference, target = (make_inputs(seed, n=200, d=6) for seed in (0, 1))
    sides = [reference["features"], reference["labels"], target["features"], target["labels"]]
    here = task_relatedness(*sides, ground_cost=ground_cost)
    there = task_relatedness(*(side.cuda() for side in sides), ground_cost=ground_cost)
    assert float(there.bound) == pytest.approx(float(here.bound), rel=1e-6)


def _backbone():
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(192, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    return ModuleBackbone(torch.nn.Sequential(*layers), input_shape=(3, 8, 8), head="3", name="net")


def _batches(sizes=(300, 300, 7)):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(sum(sizes), 3, 8, 8, generator=generator)
    labels = torch.randint(5, (sum(sizes),), generator=generator)
    return list(zip(pictures.split(sizes), labels.split(sizes), strict=True))


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_a_pass_feeds_every_score_with_every_sample_once(place):
    names = ["logme", "h_score", "h_score_shrunk", "leep", "nce", "knn_accuracy", "nleep", "lfc"]
    batches = [(pictures.to(place), labels.to(place)) for pictures, labels in _batches()]
    network = _backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    keep = ("features", "labels", "source_probs", "source_labels")
    found = extract(network, batches, build_metrics(names), trainer=GPU, keep=keep)
    assert found.num_samples == 607
    assert torch.equal(found.kept["labels"], torch.cat([labels for _, labels in batches]).cpu())
    alone = build_metrics(names)
    alone.update(**found.kept)
    expected = {name: float(value) for name, value in alone.compute().items()}
    assert {name: float(value) for name, value in found.metrics.compute().items()} == pytest.approx(expected, rel=1e-6)
    assert all(
        value.device.type == "cpu" and torch.equal(value, before[name]) for name, value in network.state_dict().items()
    )


def test_what_a_module_holds_comes_back_and_groups_may_be_text():
    from torchmetrics.classification import MulticlassAccuracy

    network = _backbone()
    network.accuracy = MulticlassAccuracy(5)
    batches = [{"image": x, "label": y, "who": [str(i % 7) for i in range(len(y))]} for x, y in _batches()]
    found = extract(network, batches, build_metrics(["logme", "knn_accuracy"]), trainer=GPU, group_key="who")
    assert found.num_samples == 607
    assert network.accuracy.tp.device.type == network.accuracy.device.type == "cpu"
    network.accuracy.update(torch.tensor([1]), torch.tensor([1]))


@pytest.mark.parametrize("spoil", ["range", "nan", "label"])
def test_a_pass_tells_what_is_wrong_and_with_which_backbone(spoil):
    batches = _batches()
    pictures, labels = (part.clone() for part in batches[1])
    if spoil == "label":
        labels[4] = -3
    else:
        pictures[4] = {"range": 2.0, "nan": math.nan}[spoil]
    batches[1] = (pictures, labels)
    message = {"range": r"net, batch 1: .*lie in \[0, 1\]", "nan": "net.*finite", "label": "net.*class ids from 0"}
    with pytest.raises(ValueError, match=message[spoil]):
        extract(_backbone(), batches, build_metrics(["logme"]), trainer=GPU)


def test_a_screen_ranks_as_on_the_cpu():
    zoo = {f"linear{width}": Linear(width, 4, name=f"linear{width}") for width in (4, 9, 16)}
    here, there = (
        screen(zoo, Digits(max_samples=400, batch_size=64), trainer=trainer, error_bars=True)
        for trainer in ({"accelerator": "cpu"}, GPU)
    )
    assert [row.backbone for row in there.rows] == [row.backbone for row in here.rows]
    for ours, theirs in zip(there.rows, here.rows, strict=True):
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-4)
        assert ours.standard_errors == pytest.approx(theirs.standard_errors, rel=1e-2, abs=1e-6)


def test_training_is_bit_identical_beside_monitors():
    plain, _ = fit(accelerator="gpu")
    reference = DataLoader(Points(40, seed=8), batch_size=16)
    monitors = [TransferabilityMonitor(["logme", "h_score"], data="train"), TaskRelatednessMonitor(reference)]
    watched, trainer = fit(monitors, accelerator="gpu")
    assert trace(watched) == trace(plain)
    assert {"transfer/logme", "transfer/task_relatedness"} <= set(trainer.callback_metrics)


@pytest.mark.parametrize("mode", ["head", "full"])
def test_fine_tuning_runs(mode):
    import lightning.pytorch as pl

    layers = torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    backbone = ModuleBackbone(torch.nn.Sequential(*layers), input_shape=(1, 8, 8), head="3")
    module = FineTuningModule(backbone, 10, mode=mode)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 2}
    trainer = pl.Trainer(**GPU, **options)
    trainer.fit(module, datamodule=Digits(max_samples=300, batch_size=32))
    assert module.device.type in ("cpu", "cuda")
    assert torch.isfinite(torch.cat([value.flatten() for value in module.parameters()])).all()
