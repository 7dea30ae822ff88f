"""TransRate: limits and bad input."""

from __future__ import annotations

import pytest
from _helpers import make_inputs
from hypothesis import given

from lightning_transfer.functional.transrate import transrate
from tests.functional._inputs import pair, quick, random_rotation, some_data


@quick
@given(some_data)
def test_transrate_is_not_negative_and_ignores_rotation(inputs):
    features, labels = pair(inputs)
    score = float(transrate(features, labels))
    assert score >= -1e-9
    rotated = features @ random_rotation(features.shape[1]) + 5.0
    assert float(transrate(rotated, labels)) == pytest.approx(score, rel=1e-8, abs=1e-8)


def test_transrate_refuses_a_distortion_of_zero():
    with pytest.raises(ValueError, match="`eps`"):
        transrate(*pair(make_inputs()), eps=0.0)
