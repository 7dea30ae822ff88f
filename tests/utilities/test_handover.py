"""Results of a process that ends: metrics read back go on as if nothing had happened."""

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_transfer.metrics import LEEP, LogME
from lightning_transfer.utilities.handover import read_results, write_results


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(20, 3, generator=generator),
        "source_probs": torch.rand(20, 4, generator=generator).softmax(1),
        "labels": torch.arange(20) % 3,
    }


def collection():
    return MetricCollection({"leep": LEEP(), "logme": LogME()})


@pytest.mark.parametrize("num_batches", [1, 3])
def test_metrics_compute_and_go_on_after_the_handover(tmp_path, num_batches):
    first, whole, second = collection(), collection(), collection()
    for seed in range(num_batches):
        first.update(**batch(seed))
        whole.update(**batch(seed))
    second.update(**batch(99))  # what it holds is replaced
    write_results(tmp_path / "results.safetensors", first, {}, first=True)
    assert read_results(tmp_path / "results.safetensors", second) == {}
    for name, value in whole.compute().items():
        torch.testing.assert_close(second[name].compute(), value, rtol=1e-12, atol=0)
    whole.update(**batch(50))
    second.update(**batch(50))
    for name, value in whole.compute().items():
        torch.testing.assert_close(second[name].compute(), value, rtol=1e-10, atol=0)


def test_tensors_come_back_as_they_were_and_views_are_written_whole(tmp_path):
    base = torch.arange(12).reshape(3, 4)
    tensors = {"a.b": base.t(), "half": base[:, 1].to(torch.bfloat16), "grad": torch.ones(2, requires_grad=True)}
    write_results(tmp_path / "r.safetensors", None, tensors, first=True)
    again = read_results(tmp_path / "r.safetensors", None)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) and again[name].dtype == tensors[name].dtype for name in again)


def test_only_the_first_process_writes(tmp_path):
    write_results(tmp_path / "r.safetensors", None, {"a": torch.ones(1)}, first=False)
    assert not list(tmp_path.iterdir())
