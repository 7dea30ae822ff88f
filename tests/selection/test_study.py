from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer import study
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits, Samples
from lightning_transfer.selection import StudyTable
from tests._screens import Failing, Linear


def make_zoo(*widths: int) -> dict[str, nn.Module]:
    return {f"net{width}": Linear(width) for width in widths}


def make_target(name="digits", **options) -> Digits:
    return Digits(max_samples=100, batch_size=32, name=name, **options)


OPTIONS = {"modes": ["head"], "progress": False}


def test_each_pair_is_a_row_and_a_second_run_only_does_what_is_missing(tmp_path, capsys):
    about = {"net2": {"architecture": "linear", "source": "none"}}
    table = study(make_zoo(2, 4), [make_target()], ["logme"], about=about, output_dir=tmp_path, **OPTIONS)
    assert [(row.backbone, row.target) for row in table.rows] == [("net2", "digits"), ("net4", "digits")]
    row = table.rows[0]
    assert (row.architecture, row.source, row.num_samples, row.num_classes) == ("linear", "none", 100, 10)
    assert row.row.parameters == 128
    assert table.rows[1].outcomes["head"].mean > row.outcomes["head"].mean
    more = study(
        make_zoo(2, 4, 8), [make_target()], ["logme"], about=about, output_dir=tmp_path, modes=["head"], progress=True
    )
    assert len(more) == 3
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("1 of 1: net8 on digits: head 0.")
    assert StudyTable.load(tmp_path).to_text() == more.to_text()
    assert more.judge("head")["spearman"].max() > 0


def test_what_changed_is_done_again(tmp_path):
    study(make_zoo(2), [make_target()], ["logme"], output_dir=tmp_path, **OPTIONS)
    same = study(make_zoo(2), [make_target()], ["logme"], output_dir=tmp_path, **OPTIONS)
    other_data = study(make_zoo(2), [make_target(seed=3)], ["logme"], output_dir=tmp_path, **OPTIONS)
    assert len(same) == len(other_data) == 1
    assert same.rows[0].fingerprint != other_data.rows[0].fingerprint
    zoo = make_zoo(2)
    with torch.no_grad():
        zoo["net2"].weight.add_(1.0)
    other_weights = study(zoo, [make_target(seed=3)], ["logme"], output_dir=tmp_path, **OPTIONS)
    assert other_weights.rows[0].row.fingerprint != same.rows[0].row.fingerprint
    for metrics in (["gbc"], {"logme": {}, "knn_accuracy": {"k": 3}}):
        with pytest.raises(ValueError, match="rows of this study"):
            study(make_zoo(2), [make_target()], metrics, output_dir=tmp_path, **OPTIONS)
    options = {**OPTIONS, "output_dir": tmp_path / "k"}
    study(make_zoo(2), [make_target()], {"knn_accuracy": {"k": 1}}, **options)
    with pytest.raises(ValueError, match="rows of this study"):
        study(make_zoo(2), [make_target()], {"knn_accuracy": {"k": 3}}, **options)


def test_what_is_said_of_a_backbone_is_what_was_said_last(tmp_path):
    options = {**OPTIONS, "metrics": ["logme"], "output_dir": tmp_path}
    first = study(make_zoo(2, 3), [make_target()], about={"net2": {"architecture": "x"}}, **options)
    again = study(make_zoo(2, 3), [make_target()], about={"net2": {"architecture": "y", "source": "s"}}, **options)
    assert [(row.architecture, row.source) for row in again.rows if row.backbone == "net2"] == [("y", "s")]
    assert {row.backbone: row.outcomes for row in again.rows} == {row.backbone: row.outcomes for row in first.rows}
    assert StudyTable.load(tmp_path).to_text() == again.to_text()
    assert study(make_zoo(2, 3), [make_target()], **options).to_text() == again.to_text()


def test_parts_share_the_pairs(tmp_path):
    zoo, targets = make_zoo(2, 3, 4), {"one": make_target(), "two": make_target(seed=1)}
    pairs = []
    for part in ("1/2", "2/2"):
        pairs += [(row.backbone, row.target) for row in study(zoo, targets, ["logme"], part=part, **OPTIONS).rows]
    assert len(pairs) == len(set(pairs)) == 6


def test_a_pair_that_fails_is_a_row_and_is_tried_again(tmp_path):
    zoo = {"a": Failing(RuntimeError("broken")), "b": Linear(3)}
    table = study(zoo, [make_target()], ["logme"], output_dir=tmp_path, **OPTIONS)
    assert [row.failed for row in table.rows] == [True, False]
    assert "broken" in table.rows[0].row.status
    again = study({"a": Linear(3), "b": Linear(3)}, [make_target()], ["logme"], output_dir=tmp_path, **OPTIONS)
    assert [row.failed for row in again.rows] == [False, False]


def test_an_interrupt_keeps_what_is_done(tmp_path):
    zoo = {"a": Linear(3), "b": Failing(KeyboardInterrupt()), "c": Linear(4)}
    table = study(zoo, [make_target()], ["logme"], output_dir=tmp_path, **OPTIONS)
    assert [row.backbone for row in table.rows] == ["a"]
    assert table.info["interrupted"] is True


def test_full_training_is_a_mode():
    net = ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), (1, 8, 8), head=None)
    table = study(
        {"net": net}, make_target(), ["logme"], modes=["full"], epochs=1, seeds=2, learning_rates=[1e-2],
        progress=False, trainer={"accelerator": "cpu"},
    )  # fmt: skip
    assert len(table.rows[0].outcomes["full"].values) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "3/2"}, "`part`"),
        ({"part": "a"}, "`part`"),
        ({"modes": ["most"]}, "`modes`"),
        ({"about": {"net2": {"colour": "red"}}}, "`about`"),
        ({"targets": []}, "at least one target"),
        ({"targets": [make_target(), make_target()]}, "'digits' twice"),
        ({"targets": 3}, "`targets`"),
        ({"seeds": 0, "targets": 3}, "`seeds` to be an integer of at least 1, but got 0"),
    ],
)
def test_bad_input(options, message):
    targets = options.pop("targets", [make_target()])
    with pytest.raises(ValueError, match=message):
        study(make_zoo(2), targets, ["logme"], **{**OPTIONS, **options})


def test_references_bound_targets_of_one_label_a_sample_only():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 5))
    zoo = {"net": ModuleBackbone(network, (1, 8, 8), head="3")}
    torch.manual_seed(0)
    pictures = torch.rand(60, 1, 8, 8)
    places = Samples((pictures, pictures.mean(dim=(2, 3))), name="places", val_fraction=0.2, test_fraction=0.2)
    targets = {"places": places, "digits": Digits(classes=[5, 6, 7], max_samples=60)}
    table = study(
        zoo, targets, ["ridge_probe"], about={"net": {"source": "low"}}, modes=["head"], progress=False,
        references={"low": Digits(classes=[0, 1, 2, 3, 4], max_samples=80)},
    )  # fmt: skip
    assert {row.target: "task_relatedness" in row.row.scores for row in table.rows} == {"places": False, "digits": True}
    assert not [row for row in table.rows if row.failed]
