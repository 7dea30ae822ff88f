"""N-LEEP as a Metric."""

from __future__ import annotations

import importlib

from _helpers import feed, make_inputs

from lightning_transfer.metrics import (
    NLEEP,
)


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
