from __future__ import annotations

import pytest
import torch


@pytest.fixture
def rng_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())
