from __future__ import annotations

import gc
import importlib
import json
import math
import os
import signal
import weakref

import numpy as np
import pytest
import torch
from _screens import Failing, Linear
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from lightning_transfer.backbones import ModuleBackbone, Preprocessing
from lightning_transfer.data import Digits, Samples
from lightning_transfer.metrics import TaskRelatedness
from lightning_transfer.relatedness import BoundConfig
from lightning_transfer.screening import Leaderboard, Row, alike_tasks, relate, screen
from lightning_transfer.screening.merging import add_to_folder


def h_score_of(features: np.ndarray, labels: np.ndarray) -> float:
    means = np.stack([features[labels == label].mean(0) for label in labels])
    return float(np.trace(np.linalg.pinv(np.cov(features.T)) @ np.cov(means.T)))


def test_scores_are_those_of_the_features(digits):
    backbone = Linear()
    board = screen(backbone, digits, ["h_score", "logme"])
    assert board.rank_by == "logme"
    assert board.best == "linear"
    row = board["linear"]
    with torch.no_grad():
        samples = [digits.train_dataset[index] for index in range(160)]
        features = backbone(torch.stack([sample["inputs"] for sample in samples])).features
    labels = torch.stack([sample["labels"] for sample in samples])
    assert row.score("h_score") == pytest.approx(h_score_of(features.double().numpy(), labels.numpy()), rel=1e-5)
    assert (row.status, row.feature_dim, row.parameters) == ("ok", 6, 64 * 6)
    assert row.flops == 2 * 64 * 6
    assert row.images_per_second > 0
    assert row.seconds > 0
    assert torch.__version__.startswith(board.info.pop("versions")["torch"].partition("+")[0])
    assert board.info == {
        "target": "digits",
        "split": "train",
        "task": "classification",
        "num_classes": 10,
        "num_samples": 160,
    }


class Wrapping(Linear):
    """A backbone of one's own that keeps its network under the name ``backbone``."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)


def test_what_a_backbone_calls_its_network_does_not_matter(digits):
    row = screen(Wrapping(), digits, ["h_score"], cache=False).rows[0]
    assert (row.status, row.flops) == ("ok", 2 * 64 * 6)


def test_columns_come_in_the_order_asked_for_and_headless_backbones_have_gaps(digits):
    board = screen({"plain": Linear(8), "headed": Linear(4, 5)}, digits, ["leep", "h_score", "nce"])
    assert board.columns == ("leep", "h_score", "nce")
    assert board.rank_by == "leep"
    assert math.isnan(board["plain"].score("leep"))
    assert board["plain"].status == "ok"
    assert board["headed"].score("leep") < 0
    assert [row.backbone for row in board.ranked()] == ["headed", "plain"]


def test_a_failing_backbone_is_a_row_with_its_reason(digits, tmp_path):
    board = screen(
        {
            "good": Linear(4),
            "bad": Failing(RuntimeError("the layer\n'pooling' is gone")),
            "wrong": {"_target_": "lightning_transfer.backbones.EfficientNetLite", "variant": 77},
            "also good": Linear(12),
        },
        digits,
        "h_score",
        output_dir=tmp_path,
    )
    assert [row.backbone for row in board.rows] == ["good", "bad", "wrong", "also good"]
    assert board["bad"].status.startswith("RuntimeError: ")
    assert "the layer 'pooling' is gone" in board["bad"].status
    assert "\n" not in board["bad"].status
    assert board["bad"].parameters == 384
    assert "77" in board["wrong"].status
    assert board.ranks()["also good"] == 1
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [
        f"leaderboard.{kind}" for kind in ("csv", "html", "json", "png")
    ]


@pytest.mark.parametrize("race", [None, 0.9])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_large_waits_for_the_garbage_collector(fails, race, digits):
    found = []

    class Total(Metric):
        requires, higher_is_better = ("features",), True

        def __init__(self):
            super().__init__()
            self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

        def update(self, features):
            self.total = self.total + features.sum()
            found.append(weakref.ref(self.total))
            if fails:
                raise ValueError("no total")

        def compute(self):
            return self.total.clone()

    zoo = {"net": Linear()}
    found += [weakref.ref(zoo["net"]), *map(weakref.ref, zoo["net"].parameters())]
    gc.collect()
    gc.disable()
    try:
        board = screen(zoo, digits, {"total": Total()}, race=race)
        assert board["net"].failed is fails
        del zoo
        assert len(found) > 2
        assert {reference() for reference in found} == {None}
    finally:
        gc.enable()


def test_each_row_is_on_disk_before_the_next_backbone(digits, tmp_path):
    seen = []

    class Looking(Linear):
        def encode(self, inputs):
            path = tmp_path / "leaderboard.json"
            seen.append([row["backbone"] for row in json.loads(path.read_text())["rows"]] if path.exists() else [])
            return super().encode(inputs)

    screen({"a": Linear(4), "b": Linear(5), "c": Looking(6)}, digits, "h_score", output_dir=tmp_path)
    assert seen[0] == ["a", "b"]
    assert [row.backbone for row in Leaderboard.load(tmp_path).rows] == ["a", "b", "c"]


def test_large_leaderboards_are_not_written_after_each_backbone(digits, tmp_path, monkeypatch):
    module, written = importlib.import_module("lightning_transfer.screening.screen"), []

    def add(board, folder, *, figure, **options):
        written.append((len(board), figure))
        return add_to_folder(board, folder, figure=figure, **options)

    monkeypatch.setattr(module, "add_to_folder", add)
    monkeypatch.setattr(module, "_SMALL", 2)
    monkeypatch.setattr(module, "_BETWEEN_WRITINGS", 1e9)
    screen({str(width): Linear(width) for width in range(4, 8)}, digits, "h_score", output_dir=tmp_path)
    assert written == [(1, False), (2, False), (4, False), (4, True)]
    assert len(Leaderboard.load(tmp_path)) == 4


@pytest.mark.parametrize("count", [1, 3])
def test_ctrl_c_keeps_what_is_done(digits, tmp_path, interrupts_arrive, count):
    class Interrupting(Linear):
        def encode(self, inputs):
            if len(inputs) > 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().encode(inputs)

    board = screen(
        {"a": Linear(4), **{f"b{i}": Interrupting(5) for i in range(count)}}, digits, "h_score", output_dir=tmp_path
    )
    assert board.best == "a"
    assert [row.status for row in board.rows] == ["ok"] + ["interrupted"] * count
    assert board.info["interrupted"] is True
    assert Leaderboard.load(tmp_path).best == "a"
    assert signal.getsignal(signal.SIGINT) is interrupts_arrive


def test_an_exit_that_is_no_interrupt_goes_through(digits):
    with pytest.raises(SystemExit):
        screen(Failing(SystemExit(3), when="first"), digits, "h_score")


def test_one_bad_score_leaves_the_others(digits):
    class Unlucky(Metric):
        full_state_update = False

        def update(self, features, labels):
            self.count = len(features)

        def compute(self):
            raise RuntimeError("no luck")

    class Width(Metric):
        full_state_update = False
        higher_is_better = False

        def __init__(self):
            super().__init__()
            self.add_state("width", torch.tensor(0.0), dist_reduce_fx="max")

        def update(self, features):
            self.width = torch.tensor(float(features.shape[1]))

        def compute(self):
            return self.width

    metrics = {"h_score": {"shrinkage": 0.5}, "unlucky": Unlucky(), "width": Width()}
    board = screen({"a": Linear(4), "b": Linear(8)}, digits, metrics, rank_by="width")
    assert board.columns == ("h_score", "unlucky", "width")
    assert board["a"].status == "unlucky: RuntimeError: no luck"
    assert math.isnan(board["a"].score("unlucky"))
    assert board["a"].score("h_score") > 0
    assert board.best == "a"
    assert "width" in board.lower_is_better


def test_error_bars_and_health(digits):
    board = screen({"small": Linear(4), "wide": Linear(200)}, digits, "h_score", error_bars=8)
    for row in board.rows:
        assert 0 < row.standard_error("h_score") < 3
    assert board["small"].remarks == ()
    assert any("200 features" in remark for remark in board["wide"].remarks)
    assert 0 <= board.prob_better("small", "wide") <= 1
    assert "h_score_se" in board.to_pandas()


def test_max_samples_and_split(digits):
    assert screen(Linear(), digits, "h_score", max_samples=50).info["num_samples"] == 50
    board = screen(Linear(), digits, "h_score", split="test")
    assert board.info["split"] == "test"
    assert board.info["num_samples"] == len(digits.test_dataset)


def test_users_own_module_datamodule_and_trainer():
    class Own(LightningDataModule):
        def train_dataloader(self):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(60, 5, generator=generator)
            return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16, shuffle=True)

    module = ModuleBackbone(nn.Linear(5, 3), input_shape=(5,), head=None)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    board = screen([module], Own(), ["logme"], trainer=trainer)
    assert board.info.pop("versions")
    assert board.info == {"target": "Own", "split": "train", "task": "classification", "num_samples": 60}
    assert board.rows[0].status == "ok"
    again = screen([module], Own(), ["logme"], trainer={"accelerator": "cpu"})
    assert again.rows[0].score("logme") == pytest.approx(board.rows[0].score("logme"), rel=1e-9)


class Sounds(LightningDataModule):
    """Digits in batches whose keys only their owner knows."""

    task = "multiclass"

    def __init__(self, data, **keys):
        super().__init__()
        self.samples = [
            {"sound": sample["inputs"], "label": sample["labels"] * 0, "kind": sample["labels"]}
            for sample in map(data.train_dataset.__getitem__, range(80))
        ]
        vars(self).update(keys)

    def train_dataloader(self):
        return DataLoader(self.samples, 32)


def test_keys_of_batches(digits):
    keys = {"input_key": "sound", "label_key": "kind"}
    reference = Sounds(digits, input_key="sound", label_key="label")
    reference.samples = [{"sound": sample["sound"], "label": sample["kind"]} for sample in reference.samples]
    settings = {"metrics": ["h_score"], "relatedness": {"rounds": 1}, "reference": reference}
    boards = [
        screen(Linear(), Sounds(digits), **keys, **settings),
        screen(Linear(), Sounds(digits, **keys), **settings),
    ]
    assert boards[0].info["task"] == "classification"
    assert boards[0]["linear"].scores == boards[1]["linear"].scores
    assert boards[0]["linear"].score("h_score") > 0.1
    assert boards[0]["linear"].score("task_relatedness") > 0
    assert boards[0].settings["label_key"] == "kind"
    assert "label_key" not in boards[1].settings
    row = screen(Linear(), Sounds(digits), ["h_score"], label_key="kinds", input_key="sound")["linear"]
    assert "'kind', 'label', 'sound'" in row.status


def test_the_bound_is_a_column_where_a_reference_is_given(digits):
    reference = Digits(classes=[0, 1, 2, 3], max_samples=120)
    target = Digits(classes=[4, 5, 6], max_samples=90)
    board = screen(
        {"a": Linear(4), "b": Linear(8)}, target, "h_score", reference=reference, rank_by="task_relatedness",
        relatedness={"rounds": 1, "confidence": 0.9, "baselines": 2},
    )  # fmt: skip
    assert board.columns == ("h_score", "task_relatedness")
    assert [row.status for row in board.rows] == ["ok", "ok"]
    bounds = [row.score("task_relatedness") for row in board.rows]
    assert all(0 < bound <= math.log(3) + 1e-9 for bound in bounds)
    assert board.best_score == min(bounds)
    assert board.settings["relatedness"]["confidence"] == 0.9  # as typed: a larger zoo may go on from here
    for row in board.rows:
        assert row.bound["confidence"] == pytest.approx(0.95)  # of two backbones
        assert row.bound["target_loss"] < row.bound["population_bound"]
        assert len(row.bound["baseline"]["copies"]) == 2
        assert Row.from_dict(json.loads(json.dumps(row.to_dict()))).bound == row.bound
    config = {"config": BoundConfig(rounds=1, confidence=0.9)}
    one = screen(Linear(4), target, "h_score", reference=reference, relatedness=config)
    assert one["linear"].bound["confidence"] == 0.9
    assert one["linear"].bound["population_bound"] < board["a"].bound["population_bound"]
    with pytest.raises(ValueError, match="without 'confidence' for several layers"):
        screen(Linear(4), target, "h_score", reference=reference, relatedness=config, layers="all")
    assert board.info["reference"] == "digits"
    assert not any("vacuous" in remark for row in board.rows for remark in row.remarks)


def test_a_vacuous_bound_is_remarked(digits):
    board = screen(Linear(), digits, "h_score", reference=digits, relatedness={"tau": 50.0, "rounds": 1})
    assert board["linear"].bound["bound"] > board["linear"].bound["guessing"]
    assert any(remark.startswith("the bound is vacuous") for remark in board["linear"].remarks)


def test_real_weights_on_a_few_patches(tmp_path):
    names = ("efficientnet_lite0", "efficientnet_lite0_random")
    board = screen(
        {name: {"_target_": "lightning_transfer.backbones.EfficientNetLite", "variant": 0, "input_size": 64,
                "pretrained": name == names[0]} for name in names},
        "photo_patches", ["default", "ridge_probe"], max_samples=96, output_dir=tmp_path,
    )  # fmt: skip
    assert [row.status for row in board.rows] == ["ok", "ok"]
    assert board["efficientnet_lite0"].parameters == board["efficientnet_lite0_random"].parameters > 4e6
    assert board["efficientnet_lite0"].score("ridge_probe") > board["efficientnet_lite0_random"].score("ridge_probe")
    assert {"logme", "h_score", "leep", "nce", "knn_accuracy"} < set(board.columns)


def test_the_fingerprint_knows_weights_structure_and_preprocessing():
    def wrapped(*layers, **options):
        torch.manual_seed(0)
        return ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), *layers), (1, 8, 8), head=None, **options)

    same, named = wrapped(nn.ReLU()).fingerprint(), wrapped(nn.ReLU(), name="other").fingerprint()
    assert same == named
    others = [
        wrapped(nn.Tanh()),
        wrapped(nn.ReLU(), preprocessing=Preprocessing(channels=1, mean=(0.5,))),
        wrapped(nn.ReLU(), pretrained=False, seed=5),
        wrapped(nn.ReLU(), layer="1"),
        wrapped(nn.ReLU()).half(),
    ]
    assert len({same, *(other.fingerprint() for other in others)}) == 6


def test_a_figure_that_fails_costs_a_line(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_transfer.utilities.figures.png_bytes", lambda figure: 1 / 0)
    with pytest.warns(UserWarning, match=r"The figure of the leaderboard is not written to .*: ZeroDivisionError"):
        board = screen({"a": Linear(4), "b": Linear(5)}, digits, "h_score", output_dir=tmp_path)
    assert [row.status for row in board.rows] == ["ok", "ok"]
    assert Leaderboard.load(tmp_path).rows == board.rows


def test_a_folder_that_cannot_be_written_costs_a_line(digits, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match=r"The leaderboard is not written to `.*file`: ") as warned:
        board = screen({"a": Linear(4), "b": Linear(5)}, digits, "h_score", output_dir=tmp_path / "file")
    assert len([entry for entry in warned if "not written" in str(entry.message)]) == 1
    assert [row.status for row in board.rows] == ["ok", "ok"]


def test_bars_say_which_row_of_how_many(digits, capfd):
    screen({"mine": Linear(4), "yours": Linear(5)}, digits, "h_score", progress=True)
    shown = capfd.readouterr().err
    assert "1 of 2: mine" in shown
    assert "2 of 2: yours" in shown


def test_another_bound_stands_beside_the_column_of_the_reference(digits):
    options = {"rounds": 1, "tau": 0.5, "folds": 1}
    metrics = {"h_score": {}, "at_half": TaskRelatedness(**options)}
    board = screen(Linear(), digits, metrics, reference=digits, relatedness=options)
    assert board.columns == ("h_score", "at_half", "task_relatedness")
    assert board["linear"].score("at_half") == pytest.approx(board["linear"].score("task_relatedness"), rel=1e-6)
    assert not board.higher_is_better("at_half")


def test_modules_take_the_shape_of_the_inputs(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(40, 7, generator=generator), torch.arange(40) // 2 % 2
    board = screen({"net": net, "config": {"_target_": "torch.nn.Flatten"}}, digits, "h_score", cache=False)
    assert [(row.status, row.feature_dim) for row in board.rows] == [("ok", 64), ("ok", 64)]
    board = screen({"net": nn.Linear(7, 3), "other": nn.Linear(6, 3)}, (inputs, labels), "h_score", cache=False)
    assert (board["net"].status, board["net"].feature_dim) == ("ok", 7)
    assert board["other"].failed

    few = [Samples((inputs[half::2, :3], labels[half::2]), name=f"half_{half}") for half in (0, 1)]
    quick = {"rounds": 1, "folds": 1, "cache": False}
    assert alike_tasks(nn.Flatten(), few, **quick).bounds
    assert relate(nn.Flatten(), *few, baselines=0, **quick).bound > 0
