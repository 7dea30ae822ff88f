from __future__ import annotations

import errno
import json
import math

import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits, Samples
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.selection import Selection, select
from lightning_transfer.selection.outcome import RecordCurve
from lightning_transfer.selection.select import Budget, Curve, RunnerUp, _Halving, _interval, tell
from tests._screens import Linear


def make_zoo(*widths: int) -> dict[str, nn.Module]:
    zoo = {}
    for width in widths:
        torch.manual_seed(width)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU())
        zoo[f"net{width}"] = ModuleBackbone(net, (1, 8, 8), head=None)
    return zoo


OPTIONS = {"metrics": ["logme", "knn_accuracy"], "trainer": {"accelerator": "cpu"}, "learning_rate": 1e-2}


def make_target() -> Digits:
    return Digits(max_samples=120, batch_size=32)


def test_it_ends_with_a_fine_tuned_backbone_within_the_budget(tmp_path):
    target = make_target()
    found = select(make_zoo(1, 8, 16, 32), target, budget="13 epochs", epochs=4, output_dir=tmp_path, **OPTIONS)
    assert found.best in ("net16", "net32")
    assert found.price["epochs"] <= 13
    assert len(found.curves[found.best]) == 4
    assert len(found.curves) > 1
    assert {len(values) for values in found.curves.values()} <= {1, 2, 4}
    assert found.lower < found.value < found.upper
    target.setup()
    module = FineTuningModule.for_target(
        make_zoo(32)["net32"] if found.best == "net32" else make_zoo(16)["net16"], target
    )
    module.load_state_dict(torch.load(found.checkpoint, weights_only=True)["state_dict"])
    batch = target.test_dataset.inputs
    accuracy = (module(batch).argmax(dim=1) == target.test_dataset.truth).double().mean()
    assert float(accuracy) == pytest.approx(found.value)
    assert found.headline()[0].startswith(f"{found.best} is fine-tuned: accuracy")
    assert found.headline()[2].startswith("Compared in trainings: ")
    assert (len(found.curves) < 4) == ("by their scores alone" in found.headline()[-1])
    other = found.runner_up
    assert (
        other.epochs == len(found.curves[other.name]) == max(len(c) for n, c in found.curves.items() if n != found.best)
    )
    assert found.decided == (found.lower > other.upper)
    assert "with one seed only" in found.headline()[3]
    assert found.best in tell(found)


def test_it_goes_on_from_its_folder(tmp_path):
    first = select(make_zoo(8, 16), make_target(), budget="9 epochs", epochs=4, output_dir=tmp_path, **OPTIONS)
    content = json.loads((tmp_path / "select.json").read_text())
    assert content["format"] == 1
    again = select(make_zoo(8, 16), make_target(), budget="9 epochs", epochs=4, output_dir=tmp_path, **OPTIONS)
    assert again.curves == first.curves
    assert again.value == first.value
    with pytest.raises(ValueError, match="another `output_dir`"):
        select(make_zoo(8, 16), make_target(), budget="9 epochs", epochs=3, output_dir=tmp_path, **OPTIONS)


def test_another_backbone_of_the_same_name_is_trained_anew(tmp_path):
    options = {**OPTIONS, "budget": "9 epochs", "epochs": 2, "output_dir": tmp_path}
    first = select(make_zoo(8, 16), make_target(), **options)
    zoo = make_zoo(8, 16)
    with torch.no_grad():
        for parameter in zoo["net16"].parameters():
            parameter.zero_()
    with pytest.warns(UserWarning, match="net16 begins anew: it is not the backbone that it was"):
        other = select(zoo, make_target(), **options)
    assert other.curves["net16"] != first.curves["net16"]
    assert other.curves["net8"] == first.curves["net8"]
    assert other.best == "net8"


class Untrainable(Linear):
    def encode(self, inputs):
        if torch.is_grad_enabled():
            raise RuntimeError("no room")
        return super().encode(inputs)


def test_one_whose_training_fails_is_left_out_and_the_next_takes_its_place(tmp_path):
    zoo = {**make_zoo(2, 3), "bad": Untrainable(64, name="bad")}
    options = {**OPTIONS, "metrics": ["logme", "knn_accuracy"], "epochs": 2}
    found = select(zoo, make_target(), budget="6 epochs", output_dir=tmp_path, **options)
    assert found.board.best == "bad"
    assert {name: len(values) for name, values in found.curves.items()} == {"bad": 0, "net2": 2, "net3": 2}
    assert found.runner_up.name in ("net2", "net3")
    lines = found.headline()
    assert lines[2].startswith("Compared in trainings: net")
    assert "bad" not in lines[2]
    assert lines[-1] == "Failed, and so left out: bad (RuntimeError: no room)."
    again = select(zoo, make_target(), budget="6 epochs", output_dir=tmp_path, **options)
    assert again.value == found.value
    with pytest.raises(ValueError, match=r"No backbone could be trained \(bad: RuntimeError: no room\)"):
        select({"bad": zoo["bad"]}, make_target(), budget="6 epochs", output_dir=tmp_path / "b", **options)


def test_a_full_disk_is_no_failure_of_a_backbone(tmp_path, monkeypatch):
    def full(self, *arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    options = {"budget": "6 epochs", "epochs": 2, "output_dir": tmp_path, **OPTIONS}
    with monkeypatch.context() as patch:
        patch.setattr(_Halving, "_fit", full)
        with pytest.raises(OSError, match="No space left"):
            select(make_zoo(2, 3), make_target(), **options)
    assert set(select(make_zoo(2, 3), make_target(), **options).curves) == {"net2", "net3"}


def test_one_backbone_is_trained_to_the_end(tmp_path):
    alone = select(make_zoo(8), make_target(), budget="9 epochs", epochs=4, output_dir=tmp_path / "a", **OPTIONS)
    assert [len(values) for values in alone.curves.values()] == [4]
    assert alone.headline()[-1] == "There was nothing to choose from."


def test_a_share_pays_for_few(tmp_path):
    found = select(make_zoo(*range(4, 24)), make_target(), budget=0.15, epochs=4, output_dir=tmp_path, **OPTIONS)
    assert found.price["share"] <= 0.15 + 1e-9
    assert len(found.curves[found.best]) >= 3  # the widest cost more than the others


def test_a_small_budget_pays_for_fewer_epochs_or_is_refused(tmp_path):
    found = select(make_zoo(4, 8), make_target(), budget="2.8 epochs", epochs=4, output_dir=tmp_path / "a", **OPTIONS)
    assert max(map(len, found.curves.values())) == 2
    with pytest.raises(ValueError, match="pay for an epoch"):
        select(make_zoo(4, 8), make_target(), budget="1 epochs", epochs=4, output_dir=tmp_path / "b", **OPTIONS)


def test_a_large_budget_leaves_out_none(tmp_path):
    found = select(make_zoo(4, 8, 16), make_target(), budget="14 epochs", epochs=4, output_dir=tmp_path, **OPTIONS)
    assert [len(values) for values in found.curves.values()] == [4, 4, 4]
    assert found.best == max(found.curves, key=lambda name: found.curves[name][-1])
    assert found.headline()[-2].startswith("Compared in trainings: ")
    other = {name: curve for name, curve in found.curves.items() if name != found.best}
    assert found.runner_up.name == max(other, key=lambda name: other[name][-1])
    assert "stopped after" not in found.headline()[-1]


@pytest.mark.parametrize(("budget", "trained"), [("1.5 epochs", ["wide"]), (0.08, ["net30", "net8"])])
def test_a_budget_that_a_screen_would_spend_buys_none(tmp_path, budget, trained):
    zoo = make_zoo(4, 30, 8)
    zoo["wide"] = make_zoo(200)["net200"]  # an epoch of it alone is too dear for the share
    zoo["broken"] = nn.Linear(9, 999)  # does not take the pictures
    options = {**OPTIONS, "metrics": "default"}
    found = select(zoo, make_target(), budget=budget, epochs=4, output_dir=tmp_path, **options)
    assert list(found.curves) == trained
    assert found.board.info["num_samples"] == 0
    lines = found.headline()
    assert lines[2] == "The budget pays for no screen: the largest that it can train come first."
    assert lines[3] == (
        f"Compared in trainings: {next(name for name in trained if name != found.best)}."
        if len(trained) > 1
        else "The budget paid for no other training: the choice is by size alone."
    )
    assert lines[4 + (len(trained) > 1)] == "The others were left out by their sizes alone."
    again = select(zoo, make_target(), budget=budget, epochs=4, output_dir=tmp_path, **options)
    assert again.curves == found.curves
    assert found.price["epochs" if isinstance(budget, str) else "share"] <= float(str(budget).split()[0])
    assert [row.backbone for row in found.board.rows if row.failed] == ["broken"]
    with pytest.raises(ValueError, match="No backbone can be built"):
        select({"broken": zoo["broken"]}, make_target(), budget=0.01, epochs=4, output_dir=tmp_path / "b", **options)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [("90 s", 90, "seconds"), ("1.5 h", 5400, "seconds"), ("2min", 120, "seconds"), ("5 %", 0.05, "share"),
     ("1 epoch", 1, "epochs"), (1.0, 1, "share"), (".5 s", 0.5, "seconds")],
)  # fmt: skip
def test_budgets(text, amount, unit):
    assert Budget.of(text) == Budget(amount, unit)


@pytest.mark.parametrize("budget", ["ten", "0 s", "-1 epochs", 0, 1.5, True, None, "200 %", "5", "1..2 s", "1e999 s"])
def test_wrong_budgets(budget):
    with pytest.raises(ValueError, match="`budget`"):
        Budget.of(budget)


def test_never_a_confident_answer_where_there_is_none(tmp_path):
    price = {"seconds": 1.0, "epochs": 1.0, "share": 0.5}

    def say(*rows, varies=True, other=None, **curves):
        curves = {"a": (0.5, 0.9), **curves}
        board = Leaderboard(rows)
        found = Selection("a", tmp_path, 0.9, 0.8, 0.95, "accuracy", curves, price, board, varies, other)
        return found.headline()[2:]

    one, failed = Row("a", {"logme": 1.0}), Row("b", status="ValueError: no")
    assert say(one) == ["There was nothing to choose from."]
    lines = say(one, failed, varies=False)
    assert lines[0] == "All test data have the same label or target: this value tells nothing of the backbones."
    assert lines[1:] == ["There was nothing to choose from.", "Failed, and so left out: b (ValueError: no)."]
    one_score_failed = Row("b", {"logme": 0.5, "gbc": math.nan}, status="gbc: ValueError: no")
    assert say(one, one_score_failed)[-1] == "The others were left out by their scores alone."
    lines = say(one, failed, Row("c", {"logme": 0.5}))
    assert lines[0].startswith("The budget paid for no other training")
    assert lines[1] == "The others were left out by their scores alone."
    assert lines[2].startswith("Failed, and so left out: b")
    two = one, Row("c", {"logme": 0.5})
    near, far = RunnerUp("c", 2, 0.78, 0.7, 0.82), RunnerUp("c", 1, 0.6, 0.5, 0.7)
    assert say(*two, other=near, c=(0.4, 0.8))[1] == (
        "Within noise: c has 0.780 (0.700 to 0.820); the intervals overlap. Each was trained with one seed only."
    )
    better = RunnerUp("c", 2, 0.97, 0.96, 0.98)
    assert "0.970 (0.960 to 0.980): better on test data, but" in say(*two, other=better, c=(0.4, 0.8))[1]
    assert say(*two, other=far, c=(0.4,))[1] == (
        "c, stopped after 1 of 2 epochs, has 0.600 (0.500 to 0.700). Each was trained with one seed only: another "
        "might order them otherwise."
    )
    assert say(*two, c=(math.nan,))[1].startswith("All other trainings diverged")


def test_data_of_one_target_are_told(tmp_path):
    data = Samples((torch.randn(40, 4), [3.5] * 40), task="regression", val_fraction=0.2, test_fraction=0.2)
    zoo = {"a": ModuleBackbone(nn.Linear(4, 2), (4,), head=None)}
    found = select(zoo, data, budget="9 epochs", epochs=1, output_dir=tmp_path, trainer=OPTIONS["trainer"])
    assert "this value tells nothing of the backbones" in found.headline()[2]


def test_curves_are_compared_where_they_stand():
    assert Curve([0.2, 0.5, 0.4]).latest == 0.4
    assert Curve([0.2, math.nan]).latest == -math.inf
    assert Curve().latest == Curve([0.2]).after(2) == -math.inf
    assert Curve([0.2, 0.5]).after(1) == 0.2  # of one that went on before a selection was taken up again


def test_intervals_of_grouped_test_data():
    generator = torch.Generator().manual_seed(0)
    held, narrow = 0, 0
    for _ in range(200):  # 20 documents of 6 sentences that are right or wrong together, mostly
        chances = torch.rand(20, generator=generator).round() * 0.8 + 0.1
        hits = (torch.rand(20, 6, generator=generator) < chances[:, None]).flatten().long()
        outputs, groups = torch.eye(2)[hits], torch.arange(20).repeat_interleave(6)
        low, high = _interval("classification", outputs, torch.ones(120, dtype=torch.long), groups)
        held += low <= 0.5 <= high
        low, high = _interval("classification", outputs, torch.ones(120, dtype=torch.long))
        narrow += low <= 0.5 <= high
    assert held >= 180 > narrow
    truth, right = torch.arange(40) % 2, torch.eye(2)[torch.arange(40) % 2]
    assert _interval("classification", right, truth) == pytest.approx(
        binomtest(40, 40).proportion_ci(0.95, "wilson"), abs=1e-12
    )
    alone = _interval("classification", right, truth, torch.arange(40) // 10)
    assert alone[0] < binomtest(4, 4).proportion_ci(0.95, "wilson").low
    values = torch.randn(30, 1, generator=generator)
    copies = values.repeat_interleave(4, 0), (values + 0.5).repeat_interleave(4, 0)
    low, high = _interval("regression", *copies, torch.arange(30).repeat_interleave(4))
    assert high - low > 1.5 * (lambda a, b: b - a)(*_interval("regression", *copies))


def test_labels_that_no_sample_has_cannot_be_measured(tmp_path):
    data = Samples((torch.randn(40, 4), torch.zeros(40, 2).long()), val_fraction=0.2, test_fraction=0.2)
    zoo = {"a": ModuleBackbone(nn.Linear(4, 2), (4,), head=None)}
    with pytest.raises(ValueError, match="samples with a label in split 'val'"):
        select(zoo, data, output_dir=tmp_path, trainer=OPTIONS["trainer"])


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="`learning_rate`"):
        select(make_zoo(4), make_target(), output_dir=tmp_path, **{**OPTIONS, "learning_rate": 0})
    with pytest.raises(ValueError, match="No backbone has a score"):
        select({"a": Linear(4)}, make_target(), output_dir=tmp_path, **{**OPTIONS, "metrics": ["leep"]})
    options = {**OPTIONS, "metrics": ["logme", "leep"], "rank_by": "leep"}
    with pytest.raises(ValueError, match="No backbone has a score in LEEP"):
        select({"a": Linear(4)}, make_target(), output_dir=tmp_path / "leep", **options)
    trainer = {**OPTIONS["trainer"], "callbacks": [RecordCurve([], "classification", torch.zeros(0))]}
    with pytest.raises(ValueError, match="`trainer` without `callbacks`"):
        select(make_zoo(4), make_target(), output_dir=tmp_path, **{**OPTIONS, "trainer": trainer})
    assert not list(tmp_path.glob("select.json"))
    with pytest.raises(ValueError, match=r"diverges at the learning rate 1e\+30: net4"):
        select(make_zoo(4), make_target(), budget="9 epochs", epochs=1, output_dir=tmp_path / "b",
               **{**OPTIONS, "learning_rate": 1e30})  # fmt: skip


def test_curves_are_of_all_validation_data_after_each_epoch(tmp_path):
    often = {"num_sanity_val_steps": 1, "limit_val_batches": 1, "val_check_interval": 0.5}
    found = select(
        make_zoo(8), make_target(), budget="9 epochs", epochs=2, output_dir=tmp_path,
        **{**OPTIONS, "trainer": {**OPTIONS["trainer"], **often}},
    )  # fmt: skip
    assert [len(values) for values in found.curves.values()] == [2]
