from __future__ import annotations

import shutil
import warnings

import lightning.pytorch as pl
import pytest
import torch
from _training import (
    CLASSES,
    Broken,
    Diary,
    FeatureMean,
    Net,
    Points,
    Stream,
    features_of,
    fit,
    kinds_in,
    make_trainer,
    trace,
)
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from torchmetrics import MetricCollection

from lightning_transfer.backbones import Backbone, BackboneOutput
from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
from lightning_transfer.functional import h_score, leep, log_maximum_evidence, logme
from lightning_transfer.metrics import HScore, LogME

SCORES = ["logme", "h_score"]
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")


def _train_loader(**options):
    return DataLoader(Points(60, noise="global"), batch_size=16, shuffle=True, **options)


def _expected(module, points):
    features = features_of(module, points).double()
    return {"logme": log_maximum_evidence(features, points.labels), "h_score": h_score(features, points.labels)}


# training is what it was


class FailsAtStart(Net):
    """Its forward fails whenever nobody is training or validating it."""

    def forward(self, inputs):
        if not self.training and self.trainer.global_step == 0 and not self.trainer.sanity_checking:
            torch.rand(2)
            raise RuntimeError("in the middle of the pass")
        return super().forward(inputs)


CASES = {
    "hooked": (lambda: [TransferabilityMonitor(SCORES)], {}),
    "own_pass_over_train": (lambda: [TransferabilityMonitor(SCORES, data="train")], {}),
    "own_loader": (lambda: [TransferabilityMonitor(SCORES, data=_train_loader())], {}),
    "two_monitors": (lambda: [TransferabilityMonitor("logme"), TransferabilityMonitor("h_score", data="train")], {}),
    "fails_in_update": (lambda: [TransferabilityMonitor(Broken("update"))], {}),
    "fails_in_compute": (lambda: [TransferabilityMonitor(Broken("compute"), data="train")], {}),
    "fails_in_the_data": (
        lambda: [TransferabilityMonitor("logme", data=DataLoader(Points(30, noise="global", fails_at=20), 8))],
        {},
    ),
    "accumulated_gradients": (lambda: [TransferabilityMonitor(SCORES, data="train")], {"accumulate_grad_batches": 3}),
    "bfloat16": (lambda: [TransferabilityMonitor(SCORES)], {"precision": "bf16-mixed"}),
    "no_sanity_check": (lambda: [TransferabilityMonitor(SCORES)], {"num_sanity_val_steps": 0}),
    "many_validations": (lambda: [TransferabilityMonitor(SCORES, data="train")], {"val_check_interval": 2}),
    "reloaded": (lambda: [TransferabilityMonitor(SCORES, data="train")], {"reload_dataloaders_every_n_epochs": 1}),
}


@QUIET
@pytest.mark.parametrize("case", CASES)
def test_training_is_bit_identical(case):
    make, options = CASES[case]
    plain, _ = fit(train=_train_loader(), **options)
    watched, _ = fit(make(), train=_train_loader(), **options)
    assert trace(watched) == trace(plain)


@QUIET
def test_training_is_bit_identical_when_the_pass_raises():
    watched, trainer = fit([TransferabilityMonitor("logme")], FailsAtStart(), _train_loader())
    plain, _ = fit((), FailsAtStart(), _train_loader())
    assert trace(watched) == trace(plain)
    assert "transfer/logme" in trainer.callback_metrics  # of the validation after the first epoch


@pytest.mark.parametrize(
    "make",
    [
        lambda: (FailsAtStart(), TransferabilityMonitor("logme", strict=True)),
        lambda: (Net(), TransferabilityMonitor(Broken("compute"), strict=True)),
        lambda: (Net(), TransferabilityMonitor("logme", data=DataLoader(Points(30, fails_at=20), 8), strict=True)),
    ],
    ids=["forward", "compute", "data"],
)
def test_a_strict_monitor_leaves_no_trace_when_it_raises(make):
    def run(module, callback):
        with pytest.raises((RuntimeError, ArithmeticError, OSError)):
            fit([callback], module)
        return trace(module)

    def fail(trainer, module):
        raise OSError("another callback's")

    module, monitor = make()
    watched = run(module, monitor)
    assert watched == run(Net(), LambdaCallback(on_fit_start=fail))
    assert not module.head._forward_pre_hooks


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(8), nn.LazyBatchNorm1d], ids=["weights", "buffers"])
def test_lazy_layers_are_built_by_the_training(make, sanity):
    """A look before would draw their weights from the random state of that moment."""

    class LazyNet(Net):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(make(), nn.LazyLinear(CLASSES))

    monitor = TransferabilityMonitor("logme", layer="body")
    with pytest.warns(UserWarning, match="lazy layers"):
        watched, _ = fit([monitor], LazyNet(), num_sanity_val_steps=sanity)
    assert trace(watched) == trace(fit([], LazyNet(), num_sanity_val_steps=sanity)[0])
    assert [record["step"] for record in monitor.history] == [3, 7]


def test_samplers_that_count_their_epochs():
    class Counting(torch.utils.data.Sampler):
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            return iter(torch.randperm(60, generator=torch.Generator().manual_seed(self.epoch)).tolist())

        def __len__(self):
            return 60

    def run(callbacks):
        return trace(fit(callbacks, train=DataLoader(Points(60), 16, sampler=Counting()))[0])

    assert run([TransferabilityMonitor("logme", data="train")]) == run([])


@pytest.mark.filterwarnings("ignore")
def test_a_tuner_that_restores_the_trainer_leaves_the_first_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monitor = TransferabilityMonitor("logme")
    fit([monitor, LearningRateFinder(num_training_steps=4)])
    assert [record["step"] for record in monitor.history] == [0, 3, 7]


def test_generators_of_the_users_own_are_left_alone():
    def run(callbacks):
        generator = torch.Generator().manual_seed(1)
        train = DataLoader(Points(60, noise="own"), batch_size=16, shuffle=True, generator=generator)
        module, _ = fit(callbacks, train=train)
        return trace(module), generator.get_state().tolist(), train.dataset.rng.random()

    assert run([TransferabilityMonitor("logme", data="train")]) == run([])


def test_persistent_workers_see_every_batch():
    def run(callbacks):
        workers = {"num_workers": 1, "persistent_workers": True}
        module, _ = fit(callbacks, None, _train_loader(**workers), DataLoader(Points(20, seed=1), 8, **workers))
        return module

    monitors = [TransferabilityMonitor("logme"), TransferabilityMonitor("logme", data="train")]
    watched = run(monitors)
    assert len(watched.digests) == 2 * 4
    assert [len(monitor.history) for monitor in monitors] == [3, 3]
    assert trace(watched) == trace(run([]))


NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("g++") is None,
    reason="inductor turns the module into C++ and finds no g++ for it; eager is tested all the same",
)


@pytest.mark.parametrize(
    ("backend", "data"),
    [
        ("eager", "val"),
        ("eager", "train"),
        pytest.param("inductor", "val", marks=[NEEDS_COMPILER, pytest.mark.long]),
    ],
)
def test_compiled_modules(backend, data):
    """Inductor compiles for some fifteen seconds where it has nothing in its cache."""

    def run(callbacks):
        torch._dynamo.reset()
        torch.manual_seed(7)
        module = Net()
        module.body = torch.compile(module.body, backend=backend)
        return fit(callbacks, module)

    monitor = TransferabilityMonitor(SCORES, data=data, layer="body.2" if data == "val" else None)
    watched, _ = run([monitor])
    assert trace(watched) == trace(run([])[0])
    assert [record["step"] for record in monitor.history] == [0, 3, 7]


class Silent(Net):
    """Logs nothing and looks at nothing: what is left is quick to trace."""

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch[0])


def test_a_module_compiled_as_a_whole():
    torch._dynamo.reset()
    monitor = TransferabilityMonitor(SCORES)
    pl.seed_everything(3, verbose=False)
    module, points = Silent(), Points(32, seed=1)
    compiled = torch.compile(module, backend="eager")
    make_trainer([monitor], max_epochs=1).fit(compiled, DataLoader(Points(32), 16), DataLoader(points, 16))
    assert monitor.values == pytest.approx({k: float(v) for k, v in _expected(module, points).items()}, rel=1e-6)


# values


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_values_are_those_of_the_features_now(kind):
    points, monitor, diary = Points(37, kind, seed=1), TransferabilityMonitor(SCORES), Diary()
    untrained = Net()
    before = _expected(untrained, points)
    module, trainer = fit([monitor], untrained, DataLoader(Points(60, kind), 16), DataLoader(points, 8), logger=diary)
    after = _expected(module, points)
    for name in SCORES:
        assert monitor.history[0][name] == pytest.approx(float(before[name]), rel=1e-6)
        assert float(trainer.callback_metrics[f"transfer/{name}"]) == pytest.approx(float(after[name]), rel=1e-6)
        assert trainer.callback_metrics[f"transfer/{name}"].dtype == torch.float64
    rows = [(step, row["epoch"], row["transfer-h_score"]) for step, row in diary.rows if "transfer-h_score" in row]
    assert rows == [(record["step"], record["epoch"], record["h_score"]) for record in monitor.history]
    assert [record["step"] for record in monitor.history] == [0, 3, 7]


def test_no_extra_forward_pass_while_training():
    class Counting(Net):
        calls = 0

        def forward(self, inputs):
            self.calls += not self.training
            return super().forward(inputs)

    module, _ = fit([TransferabilityMonitor("logme", before_fit=False)], Counting(), num_sanity_val_steps=0)
    assert module.calls == 2 * 5


def test_own_pass_equals_the_hook():
    points = Points(37, seed=1)
    hooked, own = (
        TransferabilityMonitor(SCORES),
        TransferabilityMonitor(SCORES, data=DataLoader(points, 5, shuffle=True)),
    )
    fit([hooked, own])
    for record, other in zip(hooked.history, own.history, strict=True):
        assert record == pytest.approx(other, rel=1e-6)


@pytest.mark.parametrize("data", ["val", "train"])
def test_max_samples_are_spread_evenly(data):
    points = Points(37, seed=1)
    monitor = TransferabilityMonitor(FeatureMean(), data=data, max_samples=10)
    module, _ = fit([monitor], None, DataLoader(points, 8, shuffle=True), DataLoader(points, 8))
    kept = [index * 37 // 10 for index in range(10)]
    assert monitor.values["feature_mean"] == pytest.approx(
        float(features_of(module, points)[kept].sum() / 10), rel=1e-5
    )


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_n_epochs(every):
    monitor = TransferabilityMonitor("logme", every_n_epochs=every, before_fit=False)
    own = TransferabilityMonitor("logme", every_n_epochs=every, before_fit=False, data="train")
    fit([monitor, own], max_epochs=4)
    epochs = [epoch for epoch in range(4) if (epoch + 1) % every == 0]
    assert [record["epoch"] for record in monitor.history] == [record["epoch"] for record in own.history] == epochs


class Text(Silent):
    """Takes its inputs by name, or has no forward but a predict_step."""

    def forward(self, input_ids, attention_mask):
        return self.head(self.body(self.frozen(input_ids * attention_mask)))

    def training_step(self, batch, batch_idx):
        return self(batch["input_ids"], batch["attention_mask"]).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch["input_ids"], batch["attention_mask"])


class Predicting(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def test_inputs_by_name():
    points, mask = Points(37, seed=1), torch.ones(6)
    samples = [{"input_ids": x, "attention_mask": mask, "labels": y} for x, y in points]
    hooked, own = TransferabilityMonitor(SCORES), TransferabilityMonitor(SCORES, data=DataLoader(samples, 5))
    fit([hooked, own], Text(), DataLoader(samples, 16), DataLoader(samples, 8))
    assert hooked.values == pytest.approx(own.values, rel=1e-6)


def test_a_module_with_a_predict_step_only():
    monitor = TransferabilityMonitor(SCORES, data="train", strict=True)
    fit([monitor], Predicting())
    assert len(monitor.history) == 3


def test_train_data_without_any_validation():
    monitor = TransferabilityMonitor("logme", data="train")
    fit([monitor], limit_val_batches=0)
    assert [(record["epoch"], record["step"]) for record in monitor.history] == [(0, 0), (0, 4), (1, 8)]


@pytest.mark.parametrize(
    "metrics",
    [LogME(), [LogME(), "h_score"], MetricCollection({"logme": LogME(), "h": HScore()}), {"logme": LogME()}, "logme"],
    ids=["metric", "mixed", "collection", "dict", "name"],
)
def test_metrics_by_name_instance_or_collection(metrics):
    monitor = TransferabilityMonitor(metrics)
    fit([monitor], max_epochs=1)
    assert "logme" in monitor.values
    assert len(monitor.values) == (2 if isinstance(metrics, list | MetricCollection) else 1)


class Regression(Silent):
    task = "regression"


def test_regression_targets():
    points = Points(37, seed=1)
    loader = DataLoader([(x, x[:2].sum(0, keepdim=True)) for x in points.inputs], 8)
    monitor = TransferabilityMonitor(["logme", "linear_mse"])
    fit([monitor], Regression(), loader, loader)
    assert set(monitor.values) == {"logme", "linear_mse"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_attributes_of_any_dtype_where_the_module_has_that_task(dtype):
    points = Points(37, seed=1)
    loader = DataLoader([(x, (x[:2] > 0).to(dtype)) for x in points.inputs], 8)
    without = TransferabilityMonitor("logme")
    with pytest.warns(UserWarning, match="for classification .the attribute `task` of the module"):
        fit([without], Silent(), loader, loader)
    module = Silent()
    module.task = "multilabel"
    monitor = TransferabilityMonitor("logme")
    fit([monitor], module, loader, loader)
    assert not without.values
    assert set(monitor.values) == {"logme"}


class Source(Backbone):
    def __init__(self):
        super().__init__(name="s", feature_dim=5, num_source_classes=4, input_shape=(6,), preprocessing=None)
        torch.manual_seed(1)
        self.body, self.classifier = nn.Linear(6, 5), nn.Linear(5, 4)

    @property
    def head(self):
        return self.classifier

    def encode(self, inputs):
        features = self.body(inputs)
        return BackboneOutput(features, self.classifier(features))


class OnBackbone(Net):
    def __init__(self):
        super().__init__()
        self.backbone, self.top = Source(), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.top(self.backbone(inputs).features)


def test_source_probabilities_come_from_the_original_head():
    points = Points(37, seed=1)
    monitor = TransferabilityMonitor(["leep", "nce", "logme"])
    module, _ = fit([monitor], OnBackbone(), None, DataLoader(points, 8))
    with torch.no_grad():
        probabilities = module.backbone(points.inputs).logits.softmax(1)
    assert monitor.values["leep"] == pytest.approx(float(leep(probabilities, points.labels)), rel=1e-5)
    assert set(monitor.values) == {"leep", "nce", "logme"}


def test_scores_that_need_a_source_head_are_left_out_with_a_warning():
    monitor = TransferabilityMonitor(["leep", "logme"])
    with pytest.warns(UserWarning, match="leep.*cannot be computed without"):
        fit([monitor])
    assert set(monitor.values) == {"logme"}


@pytest.mark.parametrize(
    ("layer", "read"),
    [(None, "head"), ("head", "head"), ("body", "head"), ("frozen", "frozen"), ("frozen.0", "linear")],
)
def test_layers(layer, read):
    points, monitor = Points(37, seed=1), TransferabilityMonitor(FeatureMean(), layer=layer)
    module, _ = fit([monitor], None, None, DataLoader(points, 37), max_epochs=1)
    module.eval()
    with torch.no_grad():
        tensors = {
            "head": features_of(module, points),
            "frozen": module.frozen(points.inputs),
            "linear": module.frozen[0](points.inputs),
        }
    assert monitor.values["feature_mean"] == pytest.approx(float(tensors[read].sum() / 37), rel=1e-5)


class Maps(Silent):
    """Pixels in, features of pixels out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, padding=1)

    def forward(self, inputs):
        return self.conv(inputs)


@pytest.mark.parametrize("dense", [False, True])
def test_feature_maps_are_pooled_unless_labels_are_dense(dense):
    images = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24 * 16).reshape(24, 4, 4) % 3 if dense else torch.arange(24) % 3
    loader = DataLoader(list(zip(images, labels, strict=True)), 8)
    monitor = TransferabilityMonitor("h_score", layer="conv")
    module, _ = fit([monitor], Maps(), loader, loader)
    with torch.no_grad():
        maps = module.conv(images)
    features = maps.movedim(1, -1).reshape(-1, 5) if dense else maps.mean((2, 3))
    assert monitor.values["h_score"] == pytest.approx(float(h_score(features, labels.flatten())), rel=1e-5)


# the Trainer's modes


class Staged(pl.LightningDataModule):
    """Adds noise in training only, on the device."""

    def train_dataloader(self):
        return DataLoader(Points(60), batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Points(37, seed=1), batch_size=8)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return (batch[0] + 100 * self.trainer.training, batch[1])


@pytest.mark.parametrize("other", [False, True])
def test_evaluation_transforms_are_used(other):
    pl.seed_everything(3, verbose=False)
    monitor = TransferabilityMonitor(FeatureMean(), data=Staged() if other else "train", layer="frozen.0")
    module, data = Net(), Staged()
    points = Points(37, seed=1) if other else Points(60)
    with torch.no_grad():
        expected = float(module.frozen[0](points.inputs).sum() / len(points))
    make_trainer([monitor], max_epochs=1).fit(module, data)
    assert monitor.history[0]["feature_mean"] == pytest.approx(expected, rel=1e-5)
    assert not other or monitor.data.trainer is None


@QUIET
@pytest.mark.parametrize("data", ["val", "train"])
@pytest.mark.parametrize("options", [{"fast_dev_run": 2}, {"barebones": True}, {"logger": False}, {"logger": True}])
def test_modes_of_the_trainer(options, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if options.get("barebones"):
        options = {**options, "logger": None, "enable_checkpointing": None, "enable_model_summary": None}
    monitor = TransferabilityMonitor(SCORES, data=data)
    _, trainer = fit([monitor], **options)
    assert {"transfer/logme", "transfer/h_score"} <= set(trainer.callback_metrics)
    assert len(monitor.history) == (2 if options.get("fast_dev_run") else 3)


def test_iterable_data():
    points, monitor = Points(37, seed=1), TransferabilityMonitor(SCORES)
    own = TransferabilityMonitor(SCORES, data="train", max_samples=20, prefix="train")
    module, _ = fit([monitor, own], None, DataLoader(Stream(60), 16), DataLoader(Stream(37, seed=1), 8))
    assert monitor.values == pytest.approx({k: float(v) for k, v in _expected(module, points).items()}, rel=1e-6)
    assert len(own.history) == 3
    plain, _ = fit([], None, DataLoader(Stream(60), 16), DataLoader(Stream(37, seed=1), 8))
    assert trace(module) == trace(plain)


def test_several_loaders_and_two_monitors():
    sets = [Points(37, seed=1), Points(20, seed=2)]
    monitor, other = TransferabilityMonitor("logme"), TransferabilityMonitor("h_score", prefix="other")
    module, trainer = fit([monitor, other], None, None, [DataLoader(points, 8) for points in sets])
    for index, points in enumerate(sets):
        expected = _expected(module, points)
        logged = trainer.callback_metrics
        assert float(logged[f"transfer/logme/dataloader_idx_{index}"]) == pytest.approx(float(expected["logme"]))
        assert float(logged[f"other/h_score/dataloader_idx_{index}"]) == pytest.approx(float(expected["h_score"]))


def test_bfloat16_features_are_scored_in_double_precision():
    monitor = TransferabilityMonitor(SCORES, data=DataLoader(Points(37, seed=1), 37))
    hooked = TransferabilityMonitor(SCORES)
    fit([monitor, hooked], precision="bf16-mixed")
    assert monitor.values == pytest.approx(hooked.values, rel=1e-9)


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy])
@pytest.mark.parametrize("make", [TransferabilityMonitor, lambda: TaskRelatednessMonitor(DataLoader(Points(20), 8))])
def test_sharded_strategies_are_refused_in_setup(make, strategy):
    class Sharded:
        pass

    Sharded.strategy = strategy.__new__(strategy)  # made without DeepSpeed, or the devices that they need
    with pytest.raises(MisconfigurationException, match=f"does not support sharded.*{strategy.__name__}"):
        make().setup(Sharded, Net(), "fit")
    make().setup(Sharded, Net(), "validate")


def test_nothing_to_look_at_is_said_once():
    monitor = TransferabilityMonitor("logme")
    with pytest.warns(UserWarning, match="saw no samples") as caught:
        fit([monitor], limit_val_batches=0)
    assert sum("saw no samples" in str(warning.message) for warning in caught) == 1
    assert monitor.values == {}


def test_hooks_are_gone_after_the_fit():
    module, trainer = fit([TransferabilityMonitor("logme")])
    assert not module.head._forward_pre_hooks
    trainer.validate(module, DataLoader(Points(20), 8), verbose=False)


def test_one_callback_serves_two_fits():
    monitor = TransferabilityMonitor("logme")
    fit([monitor], max_epochs=1)
    first = monitor.history.copy()
    fit([monitor], max_epochs=1)
    assert monitor.history == [*first, *first]


# what listens to the values


def test_checkpoints_and_early_stopping_can_monitor(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="transfer/logme", mode="max", filename="{epoch}")
    stopping = EarlyStopping("transfer/logme", mode="max", patience=1, min_delta=1e9)
    monitor = TransferabilityMonitor("logme")
    _, trainer = fit([monitor, checkpoint, stopping], enable_checkpointing=True, max_epochs=9)
    assert trainer.current_epoch == 2
    assert float(checkpoint.best_model_score) == max(record["logme"] for record in monitor.history[1:])


def test_checkpoints_and_early_stopping_find_the_values_of_step_zero(tmp_path):
    """Nothing is looked at again before the third epoch ends, and nothing is validated before the first one does."""
    checkpoint = ModelCheckpoint(tmp_path, monitor="transfer/logme", mode="max", every_n_train_steps=1)
    stopping = EarlyStopping("transfer/logme", mode="max", patience=1, strict=True)
    monitor = TransferabilityMonitor("logme", every_n_epochs=3)
    scores = []
    noting = LambdaCallback(on_train_batch_end=lambda *_: scores.append(checkpoint.best_model_score))
    _, trainer = fit([monitor, stopping, noting, checkpoint], enable_checkpointing=True, max_epochs=3)
    assert float(scores[1]) == monitor.history[0]["logme"]
    assert trainer.current_epoch == 2  # one epoch without improvement
    assert len(monitor.history) == 1


def test_first_row_of_the_logger_is_step_zero(tmp_path):
    logger = CSVLogger(tmp_path)
    fit([TransferabilityMonitor("logme")], logger=logger)
    header, first, *_ = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["step"] == "0"
    assert float(row["transfer/logme"]) < 0


def test_stop_and_resume(tmp_path):
    whole = TransferabilityMonitor(SCORES)
    fit([whole], max_epochs=4)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit([TransferabilityMonitor(SCORES), checkpoint], enable_checkpointing=True, max_epochs=2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (state,) = (state for key, state in saved["callbacks"].items() if key.startswith("TransferabilityMonitor"))
    assert kinds_in(state) <= {str, int, float}

    seen = []
    peek = LambdaCallback(on_train_start=lambda trainer, module: seen.append(dict(trainer.callback_metrics)))
    resumed = TransferabilityMonitor(SCORES)
    pl.seed_everything(3, verbose=False)
    trainer = make_trainer([resumed, peek], max_epochs=4)
    loaders = DataLoader(Points(60), 16), DataLoader(Points(37, seed=1), 8)
    trainer.fit(Net(), *loaders, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert {f"transfer/{name}" for name in SCORES} <= set(seen[0])
    assert [record["epoch"] for record in resumed.history] == [0, 0, 1, 2, 3]
    assert resumed.history[:3] == whole.history[:3]


def test_testing_a_checkpoint_leaves_the_history_alone(tmp_path):
    monitor, checkpoint = TransferabilityMonitor("logme"), ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1)

    class Tested(Net):
        def test_step(self, batch, batch_idx):
            self(batch[0])

    module, trainer = fit([monitor, checkpoint], Tested(), enable_checkpointing=True)
    history = monitor.history.copy()
    first = min(tmp_path.glob("*.ckpt"))
    trainer.test(module, DataLoader(Points(20), 8), ckpt_path=first, verbose=False)
    assert monitor.history == history
    trainer = make_trainer([monitor], max_epochs=1)
    trainer.fit(module, DataLoader(Points(60), 16), DataLoader(Points(37, seed=1), 8))
    assert len(monitor.history) == len(history) + 2


# failures


@pytest.mark.parametrize("where", ["update", "compute", "nan"])
def test_a_failing_score_is_a_warning_once_and_takes_no_other_with_it(where):
    monitor = TransferabilityMonitor({"broken": Broken(where), "logme": LogME()})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, trainer = fit([monitor])
    ours = [str(warning.message) for warning in caught if "TransferabilityMonitor" in str(warning.message)]
    assert len(ours) == 1
    assert "broken" in ours[0]
    assert "transfer/broken" not in trainer.callback_metrics
    assert len(monitor.history) == 3
    assert set(monitor.values) == {"logme"}


@pytest.mark.parametrize("where", ["update", "compute"])
@pytest.mark.parametrize("before_fit", [True, False])
def test_strict_lets_it_through(where, before_fit):
    with pytest.raises(ArithmeticError, match="today"):
        fit([TransferabilityMonitor(Broken(where), strict=True, before_fit=before_fit)])


def test_a_layer_that_does_not_run_is_said():
    module = Net()
    module.unused = nn.Linear(3, 3)
    with pytest.warns(UserWarning, match="did not run"):
        fit([TransferabilityMonitor("logme")], module)


def test_a_layer_without_a_tensor_does_not_break_the_validation_step():
    class Odd(nn.Module):
        def forward(self, x):
            return {"text": "no tensor"} if not self.training else None

    class WithOdd(Net):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, inputs):
            self.odd(inputs)
            return super().forward(inputs)

    with pytest.warns(UserWarning, match="did not run"):
        fit([TransferabilityMonitor("logme", layer="odd")], WithOdd())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransferabilityMonitor("logmee"), "logmee"),
        (lambda: TransferabilityMonitor("logme", layer="hed"), "'head'.*'hed'"),
        (lambda: TransferabilityMonitor("logme", layer="qq"), "such as .*'head'.*'qq'"),
        (lambda: TransferabilityMonitor("logme", stop_metric="h_score"), "stop_metric"),
    ],
)
def test_mistakes_are_said_when_the_fit_starts(make, message):
    with pytest.raises(ValueError, match=message):
        fit([make()])


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data", "test"),
        ("data", 5),
        ("prefix", 3),
        ("metrics", []),
        ("every_n_epochs", 0),
        ("max_samples", 0),
        ("stop_quantile", 2.0),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=argument):
        TransferabilityMonitor(**{"metrics": "logme", argument: value})


# hopeless runs


def test_stop_below_a_number():
    monitor = TransferabilityMonitor("logme", stop_below=1e9)
    _, trainer = fit([monitor])
    assert trainer.global_step == 0
    assert "1e+09" in monitor.stopped_reason
    _, trainer = fit([TransferabilityMonitor("logme", stop_below=1e9)], min_epochs=1)
    assert trainer.current_epoch == 1
    _, trainer = fit([TransferabilityMonitor("logme", stop_below=-1e9)])
    assert trainer.current_epoch == 2


class Reversed(FeatureMean):
    higher_is_better = False


@pytest.mark.parametrize(("stop_below", "stops"), [(-1e9, True), (1e9, False)])
def test_a_score_of_which_less_is_better_must_not_rise_above_it(stop_below, stops):
    monitor = TransferabilityMonitor([LogME(), Reversed()], stop_metric="reversed", stop_below=stop_below)
    _, trainer = fit([monitor])
    assert (trainer.global_step == 0) == stops
    assert ("reversed" in monitor.stopped_reason) == stops


@pytest.mark.parametrize(("quantile", "stops"), [(0.0, False), (1.0, True)])
def test_stop_below_a_leaderboard(quantile, stops, tmp_path):
    from lightning_transfer.screening import Leaderboard, Row

    board = Leaderboard([Row("a", {"logme": -9.0}), Row("b", {"logme": 9.0}), Row("c", status="failed")])
    path = board.save(tmp_path, figure=False)["json"]
    monitor = TransferabilityMonitor("logme", stop_below=path, stop_quantile=quantile)
    _, trainer = fit([monitor])
    assert (trainer.current_epoch == 0) == stops
    assert ("leaderboard" in monitor.stopped_reason) == stops


def test_stop_below_a_leaderboard_that_cannot_be_used_is_said_when_the_fit_starts(tmp_path):
    from lightning_transfer.screening import Leaderboard, Row

    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        fit([TransferabilityMonitor("logme", stop_below=tmp_path / "missing.json")])
    path = Leaderboard([Row("a", {"logme": -9.0})]).save(tmp_path, figure=False)["json"]
    with pytest.raises(ValueError, match="h_score"):
        fit([TransferabilityMonitor("h_score", stop_below=path)])


def test_hook_and_own_pass_agree_over_joined_sets():
    points = ConcatDataset([Points(20, seed=1), Points(17, seed=2)])
    hooked, own = TransferabilityMonitor("logme"), TransferabilityMonitor("logme", data=DataLoader(points, 4))
    fit([hooked, own], None, None, DataLoader(points, 8))
    assert hooked.values == pytest.approx(own.values, rel=1e-6)


class _Named(Points):
    """Samples that call the class ids targets."""

    def __getitem__(self, index):
        inputs, label = super().__getitem__(index)
        return {"inputs": inputs, "targets": label}


class _ReadsTargets(Net):
    def unpack(self, batch):
        return batch["inputs"], batch["targets"]


@pytest.mark.parametrize("task", [None, "classification", "regression"])
def test_whole_numbers_under_targets(task):
    module = _ReadsTargets()
    module.task = task
    monitor = TransferabilityMonitor("logme", strict=True)
    loaders = (DataLoader(_Named(n, seed=seed), batch_size=8) for n, seed in ((60, 0), (37, 1)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit([monitor], module, *loaders)
    assert any("whole numbers under `targets`" in str(warning.message) for warning in caught) is (task is None)
    points = Points(37, seed=1)
    truth = points.labels.double() if task == "regression" else points.labels
    assert monitor.values["logme"] == pytest.approx(float(logme(features_of(module, points), truth)), rel=1e-5)
