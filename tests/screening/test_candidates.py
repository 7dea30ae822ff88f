"""What users hand to a screen, checked before anything runs."""

from __future__ import annotations

import pytest
import torch
from _screens import Counted, Linear
from torch import nn

from lightning_transfer.data import Digits
from lightning_transfer.metrics import HScore, TaskRelatedness
from lightning_transfer.screening import alike_tasks, screen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbones": "efficientnet_lite77"}, "Expected argument `backbone` to be one of .*efficientnet_lite0"),
        ({"backbones": []}, "Expected argument `backbones` to name at least one"),
        ({"backbones": [3]}, "Expected argument `backbones` to hold names, modules or configs, but got 3"),
        ({"backbones": {"a": {"_target_": "os.system"}}}, "is not allowed here"),
        ({"target": "digitz"}, "Expected argument `target` to be one of .*digits"),
        ({"target": 3}, "Expected argument `target` to be a datamodule, config or name, but got 3"),
        ({"reference": "nope"}, "Expected argument `reference`"),
        ({"metrics": "nope"}, "Expected argument `metrics` to name some of"),
        ({"metrics": ["linear_mse"]}, "`linear_mse` is for"),
        ({"rank_by": "nope"}, "Expected argument `rank_by` to be one of"),
        ({"split": "nope"}, "Expected argument `split`"),
        ({"backbones": 3}, "Expected argument `backbones` to hold names, modules or configs, but got 3"),
        ({"target": {"_target_": "lightning_transfer.data.Digits", "nope": 1}}, "target: .*nope"),
        ({"target": Digits(val_fraction=0), "split": "val"}, "`split` to name a split of `digits`, but 'val'"),
        ({"metrics": 3}, "Expected argument `metrics` to be a name, names or a dict, but got 3"),
        ({"metrics": ["logme", "H-Score"]}, "but got 'H-Score'; did you mean 'h_score'"),
        ({"metrics": [HScore]}, r"a Metric is handed in built: HScore\(\)"),
        ({"metrics": HScore}, r"a Metric is handed in built: HScore\(\)"),
        ({"target": {"inputs": 1, "labels": 2}}, "the keys inputs, labels; tensors or lists are handed in as a pair"),
        (
            {"backbones": [nn.Flatten(), nn.Flatten()], "target": iter([(torch.zeros(4, 3), torch.arange(4))])},
            "`target` to be data that each of 2 backbones can read, but got batches that come once only",
        ),
        ({"backbones": nn.Flatten}, r"a module is handed in built, Flatten\(\)"),
        ({"backbones": "digits"}, "which is a target .backbones come before it"),
        ({"layers": 3}, "`layers` to be 'all' or names of layers, but got 3"),
        ({"metrics": {"logme": 3}}, "Expected argument `metrics` to hold a dict of options for 'logme', but got 3"),
        ({"metrics": {"logme": {"nope": 3}}}, r"metrics\.logme: .*nope"),
        ({"error_bars": -1}, "Expected argument `error_bars`"),
        ({"error_bars": 2.5}, "Expected argument `error_bars` to be an integer of at least 0, but got 2.5"),
        ({"error_bars": 1}, "Expected argument `error_bars` to be true, false or at least 2 groups, but got 1"),
        (
            {"error_bars": "maybe"},
            "Expected argument `error_bars` to be true, false or at least 2 groups, but got 'maybe'",
        ),
        ({"error_bars": None}, "Expected argument `error_bars` .* got None"),
        ({"relatedness": {"nope": 1}}, "Expected options of `task_relatedness`, but got 'nope'"),
        ({"relatedness": {"tau": -1}}, "`tau` to be a number"),
        ({"relatedness": {"label_map": "nearest"}}, "`label_map` to be one of"),
        ({"relatedness": {"label_map": 3}}, "`label_map` to be 'matched', 'random' or a tensor, but got int"),
        ({"relatedness": {"head": 3}}, "`head` to be a linear layer.* but got int"),
        ({"relatedness": {"evaluation": 3}}, "`evaluation` to be a tuple of four tensors"),
        ({"relatedness": {"warm_start": "x"}}, "`warm_start` to be a `TaskRelatednessResult`, but got str"),
        ({"relatedness": {"max_samples": 50}}, "set `max_samples` beside it"),
        ({"relatedness": 3}, "Expected argument `relatedness` to be a dict, but got 3"),
        ({"seed": "x"}, "Expected argument `seed`"),
        ({"trainer": 3}, "trainer: Expected argument `trainer` to be a Trainer or arguments of one, but got 3"),
        ({"trainer": {"nope": 3}}, "trainer: .*nope"),
        ({"trainer": {"precision": "nope"}}, "trainer: .*nope"),
        ({"resume": 3}, "Expected argument `resume` to be a path, but got 3"),
        ({"output_dir": 3}, "Expected argument `output_dir` to be a path, but got 3"),
    ],
)
def test_bad_arguments_are_refused_before_any_backbone_runs(digits, arguments, message):
    backbone = Counted()
    with pytest.raises(ValueError, match=message):
        screen(**{"backbones": backbone, "target": digits, "metrics": "h_score"} | arguments)
    assert not backbone.seen


def test_names_in_the_table():
    board = screen(
        [Linear(4), Linear(5), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))], Digits(max_samples=60), "h_score"
    )
    assert [row.backbone for row in board.rows] == ["linear", "linear_2", "Sequential"]
    again = screen([Linear(4), Linear(5), Linear(6)], Digits(max_samples=60), "h_score")
    assert [row.backbone for row in again.rows] == ["linear", "linear_2", "linear_3"]


@pytest.mark.parametrize("metrics", [
    [TaskRelatedness()], ["h_score", TaskRelatedness(rounds=1)], {"task_relatedness": {"rounds": 1}},
])  # fmt: skip
def test_the_column_of_the_bound_belongs_to_the_reference(metrics, digits):
    with pytest.raises(ValueError, match=r"leave `task_relatedness` to `reference`.*`relatedness`.*another name"):
        screen(Linear(), digits, metrics, reference=digits)


def test_features_of_one_backbone_are_refused_for_several(digits):
    """Widths agree, so nothing else would tell that they are those of another backbone."""
    z, y = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
    two, evaluation = {"a": Linear(6), "b": Linear(6)}, (z, y, z, y)
    screened = {"target": digits, "metrics": "h_score", "reference": digits, "cache": False}
    for backbones, options in (
        (two, {"relatedness": {"evaluation": evaluation}}),
        (two, {"relatedness": {"head": (torch.ones(10, 6), torch.zeros(10))}}),
        (Linear(6), {"relatedness": {"evaluation": evaluation}, "layers": "all"}),
        (two, {"metrics": {"mine": TaskRelatedness(evaluation=evaluation)}}),
    ):
        with pytest.raises(ValueError, match=r"without '(evaluation|head)' for several (backbones|layers)"):
            screen(backbones, **{**screened, **options})
    board = screen(Linear(6), **screened, relatedness={"evaluation": evaluation, "rounds": 1})
    assert board["linear"].bound["bound"] == board["linear"].score("task_relatedness")
    with pytest.raises(ValueError, match="without 'target_groups' for several pairs of tasks"):
        alike_tasks(Linear(6), [digits, digits], target_groups=y)


@pytest.mark.parametrize("options", [{}, {"race": 0.9}, {"layers": None, "error_bars": True}])
def test_nobody_knows_the_size_of_stored_features(options):
    labels = torch.arange(90) % 3
    stored = {name: torch.randn(90, 4, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("ab")}
    board = screen(stored, labels, "h_score", **options)
    assert [(row.parameters, row.flops) for row in board.rows] == [(None, None)] * 2
    assert not any("Params" in text or "FLOPs" in text for text in (str(board), board.to_markdown(), board.to_html()))
