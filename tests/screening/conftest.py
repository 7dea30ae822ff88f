from __future__ import annotations

import math

import pytest

from lightning_transfer.data import Digits
from lightning_transfer.screening import Leaderboard, Row


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits(max_samples=160, batch_size=32)


@pytest.fixture
def board() -> Leaderboard:
    return Leaderboard(
        [
            Row(
                "small",
                {"h_score": 3.0, "logme": 0.40, "task_relatedness": 1.5},
                {"logme": 0.05},
                parameters=1_000,
                flops=5_000,
                feature_dim=8,
                images_per_second=100.0,
                seconds=1.5,
            ),
            Row(
                "large",
                {"h_score": 2.0, "logme": 0.45, "task_relatedness": 1.2},
                {"logme": 0.12},
                parameters=9_000,
                flops=70_000,
                feature_dim=16,
                images_per_second=10.0,
                seconds=12.0,
                remarks=("there are fewer samples than features",),
            ),
            Row("partial", {"h_score": math.nan, "logme": -0.2, "task_relatedness": math.nan}, {}, parameters=4_000),
            Row("broken", status="RuntimeError: no layer <b>pooling</b>"),
        ],
        info={"target": "toy", "split": "train", "num_samples": 1234, "num_classes": 5},
    )
