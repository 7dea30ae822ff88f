"""The energy score as a Metric."""

from __future__ import annotations

import torch

from lightning_transfer.metrics import (
    Energy,
)


def test_energy_keeps_one_number_a_sample():
    metric = Energy()
    metric.update(torch.zeros(5, 1000))
    assert metric.kept_source_outputs[0].shape == (5,)
