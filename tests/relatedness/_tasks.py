"""Two related tasks, and the bound of one solve."""

from __future__ import annotations

from functools import partial

import torch

from lightning_transfer.functional.task_relatedness import task_relatedness as cross_fitted

COSTS = ("feature", "logit_range", "logit_margin", "loss")


task_relatedness = partial(cross_fitted, folds=1)  # most of this is about one solve


def make(seed=0, num_reference=3, num_target=3, n_reference=48, n_target=36, width=4, noise=0.7):
    generator = torch.Generator().manual_seed(seed)
    y, t = torch.arange(n_reference) % num_reference, torch.arange(n_target) % num_target
    corners = 3 * torch.randn(max(num_reference, num_target), width, generator=generator)
    z = corners[y] + noise * torch.randn(n_reference, width, generator=generator)
    x = corners[t] + noise * torch.randn(n_target, width, generator=generator)
    return z, y, 0.5 * x @ torch.linalg.qr(torch.randn(width, width, generator=generator))[0] + 1, t
