"""Two gloo processes give the value of one: one launch serves all cases."""

from __future__ import annotations

import warnings

import lightning.pytorch as pl
import pytest
from _training import Broken, FeatureMean, Net, Points, fit, run_in_processes, trace
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.callbacks import TransferabilityMonitor
from lightning_transfer.metrics import LogME

# name: (samples, batch size, metrics, options of the monitor)
CASES = {
    "even": (32, 8, ["logme", "h_score", "knn_accuracy"], {}),
    "uneven": (37, 8, ["logme", "h_score", "knn_accuracy"], {}),
    "a_rank_of_duplicates": (17, 4, ["logme", "h_score"], {}),
    "own_pass": (37, 8, ["logme", "h_score", "knn_accuracy"], {"data": "own"}),
    "fewer_samples_than_ranks": (1, 8, "mean", {}),
    "fewer_samples_than_ranks_in_own_pass": (1, 8, "mean", {"data": "own"}),
    "capped": (37, 8, "mean", {"max_samples": 11}),
}


def scores(devices: int) -> dict[str, dict[str, list[float]]]:
    """The history of every case; training is a single batch that is the same on any number of processes."""
    strategy = "ddp" if devices > 1 else "auto"
    found = {}
    for name, (n, batch_size, metrics, options) in CASES.items():
        points = Points(n, seed=5)
        options = {**options, **({"data": DataLoader(points, batch_size, shuffle=True)} if "data" in options else {})}
        monitor = TransferabilityMonitor(FeatureMean() if metrics == "mean" else metrics, strict=True, **options)
        module = Net(lr=0.0)
        module.body[1] = nn.Identity()  # running statistics would follow each rank's own batches
        _, trainer = fit([monitor], module, None, DataLoader(points, batch_size), devices=devices, strategy=strategy)
        assert {f"transfer/{key}" for key in monitor.values} <= set(trainer.callback_metrics)
        found[name] = {key: [float(record[key]) for record in monitor.history] for key in monitor.values}
    return found


def failures() -> dict[str, object]:
    """A score that fails on one process only; and training, with a monitor and without one."""

    class OnOneRank(Broken):
        def update(self, features, labels):
            if pl.utilities.rank_zero.rank_zero_only.rank == 1:
                raise ArithmeticError("only here")
            super().update(features, labels)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monitor = TransferabilityMonitor({"broken": OnOneRank("never"), "logme": LogME()})
        watched, _ = fit([monitor], devices=2, strategy="ddp")
    plain, _ = fit([], devices=2, strategy="ddp")
    return {
        "values": list(monitor.values),
        "warnings": sum("only here" in str(warning.message) for warning in caught),
        "identical": trace(watched) == trace(plain),
    }


def both() -> dict[str, object]:
    warnings.simplefilter("ignore")
    return {"scores": scores(2), **failures()}


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_give_the_value_of_one(tmp_path):
    ranks = run_in_processes(both, tmp_path)
    alone = scores(1)
    for name, expected in alone.items():
        for rank in ranks:
            for key, values in expected.items():
                assert len(values) == 3, name
                assert rank["scores"][name][key] == pytest.approx(values, rel=1e-6), (name, key)
        assert ranks[0]["scores"][name] == ranks[1]["scores"][name]
    for number, rank in enumerate(ranks):
        assert rank["values"] == ["logme"]
        assert rank["warnings"] == number
        assert rank["identical"]
