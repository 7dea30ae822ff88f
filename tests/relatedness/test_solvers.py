"""The solver on problems that used to hang it, or whose answer hung on the order of things."""

import pytest
import torch

from lightning_transfer.functional.task_relatedness import task_relatedness


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ground_cost", ["logit_range", "loss"])
def test_dead_features_end(ground_cost):
    result = task_relatedness(
        torch.zeros(40, 4), torch.arange(40) % 4, noise(30, 4), torch.arange(30) % 3, ground_cost=ground_cost, rounds=1
    )
    assert result.target_loss <= result.bound < float("inf")


@pytest.mark.parametrize("scale", [1e5, 1e6, 1e9, 1e12])
def test_large_features_end(scale):
    z, y, x, t = noise(60, 8), torch.arange(60) % 6, noise(48, 8, seed=1), torch.arange(48) % 4
    result = task_relatedness(z * scale, y, x * scale, t, tau=1.0, standardize=False)
    assert result.target_loss <= result.bound < float("inf")


def test_directions_of_a_rank_deficient_head_do_not_depend_on_the_order_of_columns():
    y = torch.arange(30) % 3
    z = torch.zeros(30, 3).double()
    z[:, 0] = y + 0.1 * noise(30)
    x = z.clone()
    x[:, 1] = 50
    weight = torch.tensor([[1.0, 0, 0], [2, 0, 0], [4, 0, 0]]).double()
    for columns in ([0, 1, 2], [0, 2, 1], [1, 0, 2]):
        result = task_relatedness(
            z[:, columns], y, x[:, columns], y, head=(weight[:, columns], torch.zeros(3).double()), standardize=False,
            transforms=[], label_map=torch.eye(3), ground_cost="feature", folds=1,
        )  # fmt: skip
        assert result.distribution_mismatch == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("tau", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_identical_tasks_have_no_label_mismatch_at_any_tau(tau, seed):
    y = torch.arange(48) % 4
    widths = torch.tensor([0.1, 0.5, 2.0, 6.0])
    z = noise(4, 5, seed=seed)[y] + widths[y][:, None] * noise(48, 5, seed=seed + 9)
    result = task_relatedness(z, y, z, y, tau=tau, ground_cost="feature", feature_map="identity", folds=1)
    assert result.label_mismatch == 0
    assert result.distribution_mismatch == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_never_above_logit_margin_on_the_data_that_both_were_fitted_on(seed):
    y, t = torch.arange(60) % 3, torch.arange(45) % 3
    z, x = noise(3, 4, seed=seed)[y] + noise(60, 4), noise(3, 4, seed=seed + 1)[t] + noise(45, 4, seed=5)
    loss, margin = (
        task_relatedness(z, y, x, t, ground_cost=cost, folds=1, rounds=1, baselines=int(cost == "loss"))
        for cost in ("loss", "logit_margin")
    )
    assert loss.bound <= margin.bound
    assert loss.margin_mismatch >= loss.distribution_mismatch - 1e-12
    assert loss.bound >= loss.target_loss
