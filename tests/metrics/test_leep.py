"""LEEP as a Metric."""

from __future__ import annotations

import pytest
import torch
from _helpers import feed, make_inputs

from lightning_transfer.functional import leep
from lightning_transfer.metrics import (
    LEEP,
)


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
