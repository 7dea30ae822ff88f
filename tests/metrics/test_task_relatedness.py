"""The bound as a Metric: batches, ranks, reset, copies."""

import copy
import pickle
import socket

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing as mp
from torchmetrics import MetricCollection

from lightning_transfer.functional.task_relatedness import task_relatedness
from lightning_transfer.metrics.task_relatedness import TaskRelatedness
from lightning_transfer.relatedness import BoundConfig

OPTIONS = {"ground_cost": "logit_range", "rounds": 2}


def stream(metric, features, labels, size=20, **kwargs):
    for start in range(0, len(features), size):
        metric.update(features[start : start + size], labels[start : start + size], **kwargs)


def test_batches_equal_one_call_whatever_their_order(blobs):
    z, y, x, t = blobs()
    expected = task_relatedness(z, y, x, t, **OPTIONS)
    metric = TaskRelatedness(**OPTIONS)
    assert metric.higher_is_better is False
    stream(metric, z.flip(0), y.flip(0), 7, reference=True)
    stream(metric, x, t, 9)
    assert metric.compute().dtype == torch.float64
    assert float(metric.compute()) == pytest.approx(expected.bound, abs=1e-9)
    assert metric.result.label_mismatch == expected.label_mismatch


def test_reference_is_kept_across_reset(blobs):
    z, y, x, t = blobs()
    for streamed in (False, True):
        metric = TaskRelatedness(**OPTIONS)
        if streamed:
            stream(metric, z, y, reference=True)
        else:
            metric.set_reference(z, y)
        stream(metric, x, t)
        before = metric.compute()
        metric.reset()
        assert metric.result is None
        stream(metric, x, t)
        assert torch.equal(metric.compute(), before)
        metric.reset()
        metric.reset_reference()
        stream(metric, x, t)
        with pytest.raises(ValueError, match="set_reference"):
            metric.compute()


def test_forward_copies_pickle_and_collections(blobs):
    z, y, x, t = blobs()
    metric = TaskRelatedness(**OPTIONS)
    metric.set_reference(z, y)
    batch = metric(x, t)
    assert torch.equal(batch, metric.compute())
    other = TaskRelatedness(**OPTIONS)
    assert other(z, y, reference=True) is None
    for twin in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(twin.compute(), batch)
    collection = MetricCollection({"bound": metric.clone()})
    assert torch.equal(collection.compute()["bound"], batch)


def test_unlabelled_targets_and_a_bounded_sample(blobs):
    z, y, x, t = blobs()
    metric = TaskRelatedness(tau=0.5, keep_samples=30)
    metric.set_reference(z, y)
    metric.update(x)
    metric.compute()
    assert metric.result.labels_used == "pseudo"
    assert metric.result.certificate.num_target == 30
    with pytest.raises(ValueError, match="in all target batches or in none"):
        metric.update(x, t)


def test_interval_and_plot(blobs):
    z, y, x, t = blobs()
    metric = TaskRelatedness(tau=0.5, num_resamples=4)
    metric.set_reference(z, y)
    stream(metric, x, t)
    interval = metric.compute_with_interval(0.9)
    assert interval.lower < interval.value == float(metric.compute()) < interval.upper
    assert metric.health().num_samples == len(x)
    metric.plot()


def test_bad_input_changes_nothing(blobs):
    z, y, x, t = blobs()
    metric = TaskRelatedness()
    metric.set_reference(z, y)
    for arguments, message in [
        ((x[:, :3], t), "4 columns like before"),
        ((x * float("nan"), t), "finite"),
        ((x, t.float()), "1D integer"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.update(*arguments)
    assert not metric.kept_features
    with pytest.raises(ValueError, match="after `set_reference`"):
        metric.update(z, y, reference=True)
    with pytest.raises(ValueError, match="for a batch of the reference"):
        TaskRelatedness().update(z, reference=True)
    with pytest.raises(ValueError, match="unexpected"):
        TaskRelatedness(unexpected=1)


def _on_rank(rank, port, data, out):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    z, y, x, t = data
    streamed, fixed = TaskRelatedness(**OPTIONS), TaskRelatedness(**OPTIONS)
    fixed.set_reference(z, y)
    if rank == 0:  # one rank has no reference batch, uneven targets
        stream(streamed, z, y, reference=True)
    part = slice(0, 31) if rank == 0 else slice(31, None)
    for metric in (streamed, fixed):
        stream(metric, x[part], t[part])
        out[2 * rank + (metric is fixed)] = float(metric.compute())
    dist.destroy_process_group()


@pytest.mark.ddp
def test_two_ranks_give_the_value_of_one(blobs):
    data = blobs()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = torch.zeros(4, dtype=torch.float64).share_memory_()
    mp.spawn(_on_rank, (port, data, out), nprocs=2)
    expected = task_relatedness(*data, **OPTIONS).bound
    assert out.tolist() == pytest.approx([expected] * 4, abs=1e-9)


def test_a_config_keeps_its_seed():
    config = BoundConfig(seed=3, rounds=2)
    assert (TaskRelatedness(config=config).config, TaskRelatedness(config=config).seed) == (config, 3)
    assert TaskRelatedness(config=config, seed=0).config.seed == TaskRelatedness().config.seed == 0


@pytest.mark.parametrize("given", [{"label_map": "diagonal"}, {"head": 3}, {"evaluation": (1,)}, {"warm_start": {}}])
def test_what_goes_beside_the_options_is_looked_at_at_once(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}`"):
        TaskRelatedness(**given)


@pytest.mark.parametrize(("gap", "vacuous"), [(0.0, True), (8.0, False)])
def test_health_calls_a_vacuous_bound_so(gap, vacuous):
    generator = torch.Generator().manual_seed(0)
    y, t = torch.arange(40) % 3, torch.arange(36) % 3
    z, x = (gap * torch.eye(3)[of] + torch.randn(len(of), 3, generator=generator) for of in (y, t))
    metric = TaskRelatedness(tau=20.0, rounds=1)
    metric.set_reference(z, y)
    metric.update(x, t)
    metric.compute()
    assert any("vacuous" in message for message in metric.health().messages) == vacuous
