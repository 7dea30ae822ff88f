"""What the monitors share: when they look, with which weights and over which batches, and what a look leaves behind."""

from __future__ import annotations

import gc
import itertools
import warnings

import lightning.pytorch as pl
import pytest
import torch
from _training import Net, Points, Stream, features_of, fit, make_trainer, trace
from lightning.pytorch.callbacks import EMAWeightAveraging, LambdaCallback, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from lightning_transfer.callbacks import FeatureMonitor, TaskRelatednessMonitor, TransferabilityMonitor

VAL = Points(37, seed=1)


class Mean(FeatureMonitor):
    """The mean feature, of the samples and of a further pass over ``further``."""

    def __init__(self, further=None, **options):
        super().__init__(strict=True, **options)
        self.further, self.batches, self.after = further, [], []

    def gather(self, trainer, pl_module):
        if self.further is not None:
            self.run_pass(trainer, pl_module, self.further, lambda inputs, *_: self.after.append(inputs["features"]))

    def reset(self):
        self.batches, self.after = [], []

    def update(self, inputs, places, dataloader_idx):
        self.batches.append(inputs["features"])

    def compute(self, trainer, pl_module):
        sides = {"mean": self.batches, "further": self.after}
        return {name: float(torch.cat(parts).mean()) for name, parts in sides.items() if parts}


def _val(points=VAL, **options):
    return DataLoader(points, batch_size=8, **options)


# which weights

AVERAGING = {
    "first": lambda *monitors: [EMAWeightAveraging(decay=0.5), *monitors],
    "last": lambda *monitors: [*monitors, EMAWeightAveraging(decay=0.5)],
}


@pytest.mark.parametrize("order", AVERAGING)
def test_averaged_weights_are_those_of_all_passes_of_a_look(order):
    hooked, own = Mean(further=_val(), prefix="hooked"), Mean(further=_val(), data=_val(), prefix="own")
    seen = []

    class Noting(Net):
        def on_validation_batch_start(self, batch, batch_idx):
            if batch_idx == 0 and not self.trainer.sanity_checking:
                seen.append(float(features_of(self, VAL).mean()))

    watched, _ = fit(AVERAGING[order](hooked, own), Noting(), None, _val())
    assert [record["mean"] for record in hooked.history[1:]] == pytest.approx(seen, rel=1e-5)
    for one, other in zip(hooked.history, own.history, strict=True):
        assert one["mean"] == pytest.approx(one["further"], rel=1e-5)
        assert one == pytest.approx(other, rel=1e-5)
    plain, _ = fit([EMAWeightAveraging(decay=0.5)], Noting(), None, _val())
    assert trace(watched) == trace(plain)


def test_averaged_weights_do_not_part_a_task_from_itself():
    monitor = TaskRelatednessMonitor(_val(), options={"tau": 1.0}, settle=1, strict=True)
    fit([EMAWeightAveraging(decay=0.5), monitor], None, None, _val())
    assert len(monitor.history) == 3
    for record in monitor.history:
        assert record["distribution_mismatch"] == pytest.approx(0, abs=1e-4)
        assert record["label_mismatch"] == pytest.approx(0, abs=1e-4)


# which batches


def _fit_texts(monitors, module):
    mask, kind = torch.ones(6), torch.zeros(6)
    samples = [
        {"input_ids": x, "attention_mask": mask, "token_type_ids": kind, "labels": y}
        for x, y in zip(VAL.inputs, VAL.labels, strict=True)
    ]
    return fit(monitors, module, DataLoader(samples, 16), DataLoader(samples, 8))


class Text(Net):
    def run(self, batch):
        return self(batch["input_ids"], attention_mask=batch["attention_mask"])

    def training_step(self, batch, batch_idx):
        return self.run(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.run(batch)


class Named(Text):
    def forward(self, input_ids, attention_mask=None):  # and no token_type_ids
        return super().forward(input_ids * attention_mask)


class Keywords(Text):
    def run(self, batch):
        return self(**{name: value for name, value in batch.items() if name != "labels"})

    def forward(self, **inputs):
        return super().forward(inputs["input_ids"] * inputs["attention_mask"])


class Labelled(Text):
    def run(self, batch):
        return self(batch["input_ids"], batch["labels"])

    def forward(self, input_ids, labels, *, attention_mask=None):
        assert len(labels) == len(input_ids)
        return super().forward(input_ids)


class Whole(Text):
    def run(self, batch):
        return self(batch)

    def forward(self, batch):
        return super().forward(batch["input_ids"])


@pytest.mark.parametrize("kind", [Named, Keywords, Labelled, Whole])
def test_step_zero_of_modules_that_take_their_inputs_by_name(kind):
    hooked, own = Mean(prefix="hooked"), Mean(data="train", prefix="own")
    _fit_texts([hooked, own], kind())
    expected = float(features_of(Net(), VAL).mean())
    assert hooked.history[0]["mean"] == own.history[0]["mean"] == pytest.approx(expected, rel=1e-5)
    assert hooked.values == pytest.approx(own.values, rel=1e-5)


def test_samplers_that_give_dicts():
    class Indexed(Points):
        def __getitem__(self, index):
            return super().__getitem__(index["place"])

    points = Indexed(20, seed=1)
    loader = DataLoader(points, 8, sampler=[{"place": place} for place in range(20)])
    monitor = Mean(data="train")
    module, _ = fit([monitor], None, loader, loader)
    assert len(monitor.history) == 3
    assert monitor.values["mean"] == pytest.approx(float(features_of(module, points).mean()), rel=1e-5)


@pytest.mark.parametrize("mode", ["max_size", "max_size_cycle", "min_size", "sequential"])
def test_loaders_that_are_validated_at_once(mode):
    class Both(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pairs = [pair for pair in batch if pair is not None] if isinstance(batch[0], list | tuple) else [batch]
            for pair in pairs:
                self(pair[0])

    sets = [Points(37, seed=1), Points(20, seed=2)]
    monitor = Mean()
    plain, _ = fit([], Both(), None, CombinedLoader([_val(points) for points in sets], mode))
    watched, _ = fit([monitor], Both(), None, CombinedLoader([_val(points) for points in sets], mode))
    expected = torch.cat([features_of(watched, points) for points in sets])
    assert [record["step"] for record in monitor.history] == [0, 3, 7]
    assert monitor.values["mean"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert trace(watched) == trace(plain)


def test_keys_of_batches():
    samples = [{"sound": x, "label": 0 * y, "species": y} for x, y in zip(VAL.inputs, VAL.labels, strict=True)]

    class Sounds(Net):
        def unpack(self, batch):
            return batch["sound"], batch["species"]

    class Data(pl.LightningDataModule):
        input_key, label_key = "sound", "species"

        def train_dataloader(self):
            return DataLoader(samples, 16)

        val_dataloader = train_dataloader

    given = [
        TransferabilityMonitor("h_score", input_key="sound", label_key="species", data=data, prefix=str(data))
        for data in ("val", "train")
    ]
    fit(given, Sounds(), DataLoader(samples, 16), DataLoader(samples, 16))
    fit(plain := [TransferabilityMonitor("h_score")], Net(), DataLoader(VAL, 16), DataLoader(VAL, 16))
    for one, two, three in zip(given[0].history, given[1].history, plain[0].history, strict=True):
        assert one == pytest.approx(two, rel=1e-6)
        assert one == pytest.approx(three, rel=1e-6)
    said = [
        TransferabilityMonitor("h_score"),
        TaskRelatednessMonitor((torch.randn(30, 8), torch.arange(30) % 3), settle=1),
    ]
    module = Sounds()
    pl.seed_everything(3, verbose=False)
    make_trainer(said).fit(module, Data())
    assert said[0].values == pytest.approx(given[0].values, rel=1e-6)
    assert said[1].results[0].labels_used == "given"


def test_labels_that_are_not_found_are_said_with_what_there_is():
    samples = [{"inputs": x, "kind": y} for x, y in zip(VAL.inputs, VAL.labels, strict=True)]

    class Kinds(Net):
        def unpack(self, batch):
            return batch["inputs"], batch["kind"]

    with pytest.warns(UserWarning, match=r"`h_score` needs \['labels'\].*'inputs', 'kind'.*`label_key`"):
        fit([TransferabilityMonitor("h_score")], Kinds(), DataLoader(samples, 16), DataLoader(samples, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.uint8])
def test_classes_of_another_dtype(dtype):
    class Binary(Net):
        def unpack(self, batch):
            return batch[0], batch[1].long()

    labels = VAL.labels > 0
    loaders = [DataLoader(list(zip(VAL.inputs, labels.to(kind), strict=True)), 8) for kind in (dtype, torch.int64)]
    monitors = [TransferabilityMonitor("h_score", data=loader) for loader in loaders]
    for monitor, loader in zip(monitors, loaders, strict=True):
        fit([monitor], Binary(), loader, loader, max_epochs=1)
    assert monitors[0].history == monitors[1].history


# when


class Counting(Net):
    """Counts the batches that run outside training."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, inputs):
        self.calls += not self.training
        return super().forward(inputs)


@pytest.mark.parametrize("interval", [0.25, 0.5, 1.0, 3])
def test_a_pass_of_its_own_is_made_once_an_epoch(interval):
    monitor = Mean(data=_val())
    options = {"val_check_interval": interval, "num_sanity_val_steps": 0}
    watched, _ = fit([monitor], Counting(), None, _val(), **options)
    plain, _ = fit([], Counting(), None, _val(), **options)
    assert watched.calls - plain.calls == 3 * 5
    assert [record["epoch"] for record in monitor.history] == [0, 0, 1]
    assert monitor.values["mean"] == pytest.approx(float(features_of(watched, VAL).mean()), rel=1e-5)
    assert trace(watched) == trace(plain)


def test_checkpoints_of_the_last_validation_know_the_values_of_an_own_pass(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, monitor="transfer/mean", mode="max", save_top_k=1)
    monitor = Mean(data=_val(), before_fit=False)
    seen = []
    noting = LambdaCallback(on_validation_end=lambda trainer, _: seen.append(len(monitor.history)))
    fit([noting, monitor, checkpoint], enable_checkpointing=True, num_sanity_val_steps=0)
    assert seen == [1, 2]
    assert float(checkpoint.best_model_score) == pytest.approx(max(record["mean"] for record in monitor.history))


class Endless(IterableDataset):
    def __iter__(self):
        return (VAL[index % len(VAL)] for index in itertools.count())


@pytest.mark.parametrize("data", ["val", "own"])
def test_training_without_an_end_counts_validations(data):
    monitor = Mean(every_n_epochs=2, data=_val() if data == "own" else data)
    options = {"val_check_interval": 3, "max_steps": 14, "max_epochs": -1}
    fit([monitor], None, DataLoader(Endless(), 8), _val(), **options)
    assert [record["step"] for record in monitor.history] == [0, 5, 11]


def test_a_stream_with_an_end_counts_its_epochs_all_the_same():
    monitor = Mean(every_n_epochs=2)
    fit([monitor], None, DataLoader(Stream(20), 8), _val(), max_epochs=5)
    assert [record["epoch"] for record in monitor.history] == [0, 1, 3]


def test_that_nothing_was_due_is_said():
    with pytest.warns(UserWarning, match=r"before an epoch or a validation was due \(`every_n_epochs=2`\)"):
        fit([Mean(every_n_epochs=2)], None, DataLoader(Endless(), 8), max_steps=3, max_epochs=-1, limit_val_batches=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was due")
        fit([Mean(every_n_epochs=2)], max_epochs=1)


# what is left behind


@pytest.mark.parametrize("layer", [None, "body"])
def test_submodules_can_be_scripted_during_the_fit(layer):
    scripted = []

    class Scripting(Net):
        def on_validation_epoch_end(self):
            scripted.append(torch.jit.script(self.head if layer is None else self.body))

        on_train_epoch_start = on_validation_epoch_end

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fit([TransferabilityMonitor("logme", layer=layer)], Scripting(), max_epochs=1)
    assert len(scripted) == 3


def _tensors():
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize(
    "make",
    [
        lambda: TransferabilityMonitor(["logme", "h_score", "knn_accuracy"]),
        lambda: TransferabilityMonitor("all", data="train"),
        lambda: TaskRelatednessMonitor(_val(), settle=1, options={"rounds": 1}),
    ],
    ids=["hooked", "own", "bound"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_look_leaves_no_tensors(make):
    counts = []
    noting = LambdaCallback(on_train_epoch_start=lambda *_: counts.append(_tensors()))
    fit([make(), noting], max_epochs=5)
    assert counts[2] == counts[3] == counts[4]


def test_an_interrupted_look_is_forgotten():
    class Failing(Net):
        def validation_step(self, batch, batch_idx):
            if batch_idx == 2 and not self.trainer.sanity_checking:
                raise RuntimeError("stop")
            self(batch[0])

    monitor = Mean(before_fit=False)
    with pytest.raises(RuntimeError, match="stop"):
        fit([monitor], Failing())
    assert not monitor.batches
    fit([monitor], max_epochs=1)
    assert len(monitor.history) == 1


# names of before


def test_published_is_the_old_name_of_a_hook():
    with pytest.warns(FutureWarning, match=r"Old\.published.*after_publish"):

        class Old(Mean):
            def published(self, trainer):
                self.told = dict(self.values)

    monitor = Old(before_fit=False)
    fit([monitor], max_epochs=1)
    assert monitor.told == monitor.values
