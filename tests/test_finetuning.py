from __future__ import annotations

import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from _training import Diary, digest, make_trainer, random_state, run_in_processes
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.data import Digits
from lightning_transfer.finetuning import FineTuningModule

MODES = ("head", "full", "head_then_full")


def _backbone():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10)
    )
    return ModuleBackbone(net, input_shape=(1, 8, 8))


def _fit(module, data=None, callbacks=(), **options):
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(callbacks, **{"num_sanity_val_steps": 0, **options})
    trainer.fit(module, datamodule=data or Digits(max_samples=300, batch_size=32))
    return trainer


def _weights(module):
    return {name: value.clone() for name, value in module.backbone.state_dict().items()}


def _moved(module, before):
    return {name for name, value in module.backbone.state_dict().items() if not torch.equal(value, before[name])}


class Phases(pl.Callback):
    """Notes after each epoch which tensors of the backbone have moved since the epoch before."""

    def __init__(self):
        self.moved = []

    def on_fit_start(self, trainer, pl_module):
        self.before = _weights(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.moved.append(_moved(pl_module, self.before))
        self.before = _weights(pl_module)


@pytest.mark.parametrize("mode", MODES)
def test_modes_train_what_they_say(mode):
    module, phases = FineTuningModule(_backbone(), 10, mode=mode), Phases()
    _fit(module, callbacks=[phases], max_epochs=2)
    body = {name for name in phases.before if not name.startswith("module.6")}  # the original head never moves
    expected = {"head": [set(), set()], "full": [body, body], "head_then_full": [set(), body]}
    assert phases.moved == expected[mode]
    assert module.backbone.module[2].training is (mode != "head")


def _with_statistics(backbone, momentum=0.01):
    norm = backbone.module[2]
    norm.running_mean += 0.5
    norm.running_var *= 2
    norm.momentum = momentum
    return backbone


@pytest.mark.parametrize("mode", ["full", "head_then_full"])
def test_statistics_of_pre_training_stay_unless_asked(mode):
    module = FineTuningModule(_with_statistics(_backbone()), 10, mode=mode)
    before = _weights(module)
    _fit(module, max_epochs=2)
    moved = _moved(module, before)
    assert {"module.2.weight", "module.2.bias", "module.1.weight"} <= moved
    assert not {name for name in moved if "running" in name or "tracked" in name}
    assert not module.backbone.module[2].training
    assert module.backbone.module[4].training
    learning = FineTuningModule(_with_statistics(_backbone()), 10, mode=mode, batch_norm="train")
    assert learning.backbone.module[2].momentum == 0.01
    _fit(learning, max_epochs=2)
    assert {"module.2.running_mean", "module.2.running_var"} <= _moved(learning, before)


def test_layers_without_statistics_learn_theirs_soon():
    backbone = _backbone()
    backbone.module[2].momentum = 0.01
    module = FineTuningModule(backbone, 10)
    before = _weights(module)
    assert backbone.module[2].momentum == 0.1
    _fit(module, max_epochs=1)
    assert {"module.2.running_mean", "module.2.running_var"} <= _moved(module, before)


def test_a_resumed_run_keeps_the_statistics_too(tmp_path):
    data = Digits(max_samples=300, batch_size=32)
    saved = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    module = FineTuningModule(_with_statistics(_backbone()), 10)
    _fit(module, data, [saved], max_epochs=1, enable_checkpointing=True)
    resumed = FineTuningModule(_with_statistics(_backbone()), 10)
    trainer = make_trainer([], num_sanity_val_steps=0, max_epochs=2)
    trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.current_epoch == 2
    assert torch.equal(resumed.backbone.module[2].running_mean, module.backbone.module[2].running_mean)


def test_classification_learns_and_logs():
    quick = partial(torch.optim.AdamW, lr=1e-2)
    module, diary = FineTuningModule(_backbone(), 10, backbone_factor=1.0, optimizer=quick), Diary()
    trainer = _fit(
        module, callbacks=[TransferabilityMonitor(["logme", "leep"])], max_epochs=6, logger=diary, log_every_n_steps=1
    )
    names = set().union(*(row for _, row in diary.rows))
    assert {"train/loss", "val/loss", "val/accuracy", "transfer-logme", "transfer-leep"} <= names
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.6
    (tested,) = trainer.test(module, datamodule=trainer.datamodule, verbose=False)
    assert tested["test/accuracy"] > 0.6
    probabilities = torch.cat(trainer.predict(module, datamodule=trainer.datamodule))
    assert probabilities.sum(dim=1).allclose(torch.ones(300))


class Table(pl.LightningDataModule):
    def __init__(self, answers):
        super().__init__()
        self.inputs = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        self.answers = answers(self.inputs.flatten(1))

    def _loader(self, shuffle=False):
        rows = [{"inputs": x, **a} for x, a in zip(self.inputs, self.answers, strict=True)]
        return DataLoader(rows, batch_size=16, shuffle=shuffle)

    def train_dataloader(self):
        return self._loader(shuffle=True)

    def val_dataloader(self):
        return self._loader()

    def predict_dataloader(self):
        return self._loader()


def test_regression_standardises_its_targets():
    data = Table(lambda x: [{"targets": 500 + 100 * row[:2]} for row in x])
    targets = torch.stack([row["targets"] for row in data.answers])
    module = FineTuningModule(
        _backbone(), 2, task="regression", backbone_factor=1.0, target_mean=targets.mean(0).tolist(),
        target_std=targets.std(0).tolist(), optimizer=partial(torch.optim.AdamW, lr=5e-3),
    )  # fmt: skip
    trainer = _fit(module, data, [TransferabilityMonitor(["logme", "linear_mse"])], max_epochs=12)
    assert float(trainer.callback_metrics["val/r2"]) > 0.5
    assert {"transfer/logme", "transfer/linear_mse"} <= set(trainer.callback_metrics)
    predicted = torch.cat(trainer.predict(module, datamodule=data))
    assert (predicted - targets).abs().mean() < 25


def test_several_labels_a_sample():
    data = Table(lambda x: [{"labels": (row[:3] > 0.5).long()} for row in x])
    module = FineTuningModule(_backbone(), 3, task="multilabel", backbone_factor=1.0)
    trainer = _fit(module, data, max_epochs=2)
    assert module.objective == "val/accuracy"
    assert 0 <= float(trainer.callback_metrics["val/accuracy"]) <= 1
    predicted = torch.cat(trainer.predict(module, datamodule=data))
    assert predicted.shape == (120, 3)
    assert predicted.min() > 0


def test_for_target_reads_task_and_scale():
    module = FineTuningModule.for_target(_backbone(), Digits(), mode="head")
    assert (module.task, module.head.out_features) == ("classification", 10)

    class Targets(Digits):
        task, train_dataset = "regression", type("T", (), {"truth": torch.tensor([[1.0, 5.0], [3.0, 5.0]])})

    module = FineTuningModule.for_target(_backbone(), Targets())
    assert module.target_mean.tolist() == [2.0, 5.0]
    assert module.target_std[0] == pytest.approx(math.sqrt(2))
    assert module.target_std[1] > 0


def test_parts_learn_at_different_rates():
    module = FineTuningModule(_backbone(), 10, backbone_factor=0.1, layer_decay=0.5, blocks=3)
    groups = list(module.parameter_groups())
    assert sorted({group["factor"] for group in groups}) == [0.025, 0.05, 0.1, 1.0]
    assert all(("weight_decay" in group) == (group["params"][0].ndim == 1) for group in groups)
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert len(trained) == sum(len(group["params"]) for group in groups)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [("constant", [1.0, 1.0, 1.0]), ("linear", [0.6, 0.3, 0.0]), ("cosine", [0.7, 0.25, 0.0])],
)
def test_schedules(scheduler, expected):
    share = FineTuningModule(_backbone(), 10, scheduler=scheduler, warmup=0.2)._share_of_rate(100)
    rising = [share(step) for step in range(20)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 0.1
    assert share(20) == pytest.approx(1.0)
    assert [share(step) for step in (52, 76, 100)] == pytest.approx(expected, abs=0.06)


def test_a_schedule_needs_an_end():
    module = FineTuningModule(_backbone(), 10)
    module.trainer = make_trainer()
    with pytest.raises(ValueError, match=r"`max_time`.*finetuning\.scheduler=constant"):
        module._share_of_rate(math.inf)
    assert FineTuningModule(_backbone(), 10, scheduler="constant")._share_of_rate(math.inf)(5) == 1.0


def test_the_clock_is_an_end_too(monkeypatch):
    module = FineTuningModule(_backbone(), 10, scheduler="linear", warmup=0.2)
    module.trainer = make_trainer(max_time={"seconds": 10}, max_epochs=-1)
    share = module._share_of_rate(math.inf)
    rates = []
    for spent in (0.0, 1.0, 2.0, 6.0, 10.0, 11.0):
        monkeypatch.setattr(Timer, "time_elapsed", lambda *_, spent=spent: spent)
        rates.append(share(0))
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("task", "ranking"), ("mode", "none"), ("scheduler", "step"), ("warmup", 2), ("blocks", 0), ("num_outputs", 0)],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=argument):
        FineTuningModule(**{"backbone": _backbone(), "num_outputs": 3, argument: value})


def test_batches_without_labels_are_refused():
    module = FineTuningModule(_backbone(), 2, task="regression")
    with pytest.raises(ValueError, match=r"`targets`.*'inputs', 'kind'.*`label_key`"):
        module._step({"inputs": torch.zeros(3, 1, 8, 8), "kind": torch.tensor([0, 1, 0])})


@pytest.mark.parametrize(
    ("task", "truth", "same"),
    [
        ("multilabel", torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0, 1], [1, 1], [0, 0]])),
        ("classification", torch.tensor([True, False, True]), torch.tensor([1, 0, 1])),
        ("regression", torch.tensor([[0, 1], [5, 1], [7, 0]]), torch.tensor([[0.0, 1.0], [5.0, 1.0], [7.0, 0.0]])),
    ],
)
def test_labels_of_another_dtype(task, truth, same):
    module = FineTuningModule(_backbone(), 2, task=task).eval()
    inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module._step((inputs, truth))[0], module._step((inputs, same))[0])


def test_head_then_full_in_several_processes_asks_for_the_right_strategy():
    module = FineTuningModule(_backbone(), 3, mode="head_then_full")
    module._trainer = type("T", (), {"strategy": object(), "world_size": 2, "current_epoch": 0})()
    with pytest.raises(MisconfigurationException, match="find_unused"):
        module.on_fit_start()


class Ordered(Digits):
    """The same batches in every run, resumed or not."""

    def train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=64)


@pytest.mark.parametrize("mode", MODES)
def test_resume_continues_where_it_stopped(mode, tmp_path):
    def fit(epochs, callbacks=(), ckpt_path=None, **options):
        module = FineTuningModule(_backbone(), 10, mode=mode, scheduler="constant", warmup=0)
        pl.seed_everything(0, verbose=False)
        trainer = make_trainer(callbacks, max_epochs=epochs, **options)
        trainer.fit(module, datamodule=Ordered(max_samples=200), ckpt_path=ckpt_path, weights_only=True)
        return module

    whole, keep = fit(3), ModelCheckpoint(tmp_path)
    stopped = fit(1, [keep], enable_checkpointing=True)
    resumed = fit(3, ckpt_path=keep.best_model_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert not torch.equal(stopped.head.weight, resumed.head.weight)
    loaded = FineTuningModule.load_from_checkpoint(keep.best_model_path, backbone=_backbone(), weights_only=True)
    assert loaded.mode == mode
    assert all(torch.equal(a, b) for a, b in zip(stopped.parameters(), loaded.parameters(), strict=True))


def watched(devices=2, modes=MODES):
    """Fine-tune with both monitors and without any; what the monitors saw and whether the trainings were the same."""
    found = {}
    for mode in modes:
        unused = "_find_unused_parameters_true" if mode == "head_then_full" else ""
        options = {"devices": devices, "strategy": f"ddp{unused}" if devices > 1 else "auto", "max_epochs": 2}

        def fit(callbacks, mode=mode, options=options):
            module = FineTuningModule(_backbone(), 10, mode=mode)
            trainer = _fit(module, Digits(max_samples=201, batch_size=32), callbacks, **options)
            return trainer, (digest(*module.state_dict().values()), random_state())

        scores = TransferabilityMonitor(["logme", "h_score_shrunk", "leep", "nce"], strict=True)
        bound = TaskRelatednessMonitor(
            Digits(classes=[0, 1, 2, 3, 4]), reference_samples=101, strict=True, settle=1,
            options={"rounds": 1, "tau": 0.5, "ground_cost": "feature"},
        )  # fmt: skip
        trainer, after = fit([scores, bound])
        found[mode] = {
            "scores": scores.history,
            "bounds": bound.history,
            "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "identical": after == fit([])[1],
        }
    return found


@pytest.mark.ddp
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fine_tuning_in_two_processes_with_both_monitors(tmp_path):
    ranks, alone = run_in_processes(watched, tmp_path), watched(1, ["head"])["head"]
    for mode in MODES:
        first, second = (rank[mode] for rank in ranks)
        assert first["identical"]
        assert second["identical"]
        for monitor in ("scores", "bounds"):
            assert first[monitor] == second[monitor]
            assert len(first[monitor]) == 3
            for name, value in alone[monitor][0].items():  # nothing is trained yet
                assert first[monitor][0][name] == pytest.approx(value, rel=1e-4), (mode, name)
        assert {"transfer/logme", "transfer/leep", "transfer/task_relatedness"} <= set(first["metrics"])
        assert first["metrics"]["val/accuracy"] == second["metrics"]["val/accuracy"]
    for record in ranks[0]["head"]["scores"][1:]:  # a frozen backbone: the features stay what they were
        for name in ("logme", "h_score_shrunk", "leep", "nce"):
            assert record[name] == pytest.approx(alone["scores"][0][name], rel=1e-4)
    assert ranks[0]["full"]["scores"][2]["logme"] != pytest.approx(alone["scores"][0]["logme"], rel=1e-4)


@pytest.mark.parametrize("options", [{"lr": "fast"}, {"lr": -1}, {"speed": 1}])
def test_arguments_that_an_optimizer_does_not_take(options):
    module = FineTuningModule(_backbone(), 10, optimizer=partial(torch.optim.AdamW, **options))
    with pytest.raises(ValueError, match=r"optimizer to take its arguments, but got: .*(speed|rate|float)"):
        module.configure_optimizers()
