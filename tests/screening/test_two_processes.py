"""A screen whose passes are shared by two processes beside the same screen in one."""

from __future__ import annotations

import warnings

import pytest
import torch
from _screens import Linear
from _training import run_in_processes
from torch.utils.data import DataLoader

from lightning_transfer import screen

N = 97  # two processes get different numbers of samples
SCORES = ["logme", "h_score_shrunk", "leep", "nce", "knn_accuracy", "transrate", "lfc", "gbc_streaming"]  # of each kind


def _loader(seed: int) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % 3
    pictures = 40 * torch.rand(N, 1, 8, 8, generator=generator)
    pictures[torch.arange(N), 0, labels, seed : seed + 5] += 120
    samples = [
        {"image": picture.byte(), "label": label, "who": f"person {i // 4}"}
        for i, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True))
    ]
    return DataLoader(samples, batch_size=16)


def screened(devices: int) -> dict:
    """Rows of a screen with error bars and the bound: of samples that are independent, and of samples in groups."""
    return {str(groups): _row(devices, groups) for groups in (None, "who")}


def _row(devices: int, groups: str | None) -> dict:
    trainer = {"accelerator": "cpu", "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        board = screen(
            {"linear": Linear(3, 4)}, _loader(0), SCORES, reference=_loader(2), error_bars=True, groups=groups,
            trainer=trainer, relatedness={"rounds": 2}, cache=False, progress=False,
        )  # fmt: skip
    (row,) = board.rows
    assert row.failure is None, row.failure
    return {"scores": row.scores, "errors": row.standard_errors}


@pytest.mark.long
def test_scores_intervals_and_bound_are_those_of_one_process(tmp_path):
    one = screened(1)
    for two in run_in_processes(screened, tmp_path, devices=2):
        for groups, expected in one.items():
            found, rel = two[groups], 1e-6 if groups == "who" else 1  # others are dealt out as they arrive
            assert set(found["scores"]) == {*SCORES, "task_relatedness"}
            assert found["scores"] == pytest.approx(expected["scores"], rel=1e-6, abs=1e-9)
            assert set(found["errors"]) >= set(SCORES)
            assert found["errors"] == pytest.approx(expected["errors"], rel=rel)
