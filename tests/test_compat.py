"""Private parts of Lightning and torchmetrics: run these with every version that `_compat.py` names."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from _training import FeatureMean, Net, Points, fit, make_trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lightning_transfer import _compat


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Points(16), 8)

    def val_dataloader(self):
        return [DataLoader(Points(12), 4), DataLoader(Points(8), 4)]

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return (*batch, dataloader_idx)


def _inside(look, module=None, **data):
    """What a function finds at the start of the training."""
    found = []
    callback = LambdaCallback(on_train_start=lambda trainer, module: found.append(look(trainer)))
    make_trainer([callback], max_epochs=1, num_sanity_val_steps=0).fit(module or Net(), **data)
    return found[0]


def test_the_step_of_the_loggers():
    steps = []
    callback = LambdaCallback(on_train_batch_end=lambda trainer, *_: steps.append(_compat.current_step(trainer)))
    fit([callback], max_epochs=1, accumulate_grad_batches=2)
    assert steps == [0, 0, 1, 1]


def test_loaders_are_asked_for_anew():
    train, val = DataLoader(Points(16), 8), DataLoader(Points(12), 8)

    def ask(trainer):
        return [_compat.request_loaders(trainer, split) for split in ("train", "val")]

    assert _inside(ask, train_dataloaders=train, val_dataloaders=val) == [train, val]
    assert _inside(ask, train_dataloaders=train) == [train, None]
    owned = _inside(ask, datamodule=Data())
    assert [len(owned[0]), *map(len, owned[1])] == [2, 3, 2]


@pytest.mark.parametrize(("mode", "in_turn"), [("sequential", True), ("max_size", False), ("min_size", False)])
def test_how_loaders_are_validated(mode, in_turn):
    class Both(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            pass

    loaders = CombinedLoader([DataLoader(Points(12), 4), DataLoader(Points(8), 4)], mode)
    seen = []
    callback = LambdaCallback(on_validation_start=lambda trainer, _: seen.append(_compat.validates_in_turn(trainer)))
    fit([callback], Both(), None, loaders, max_epochs=1)
    assert set(seen) == {in_turn}


def test_hooks_and_datamodule():
    class Taking(Net):
        def unpack(self, batch):
            return batch[0], batch[1]

    module, data = Taking(), Data()
    assert _compat.datamodule_of(module) is None

    def look(trainer):
        return _compat.before_batch_transfer(trainer, (1, 2), 7), _compat.datamodule_of(module)

    assert _inside(look, module, datamodule=data) == ((1, 2, 7), data)


@pytest.mark.parametrize(
    ("strategy", "found"), [("auto", (False, False)), ("ddp", (False, True)), ("ddp_spawn", (True, False))]
)
def test_launchers(strategy, found):
    trainer = make_trainer(strategy=strategy, devices=2 if strategy != "auto" else 1)
    assert (_compat.spawns_processes(trainer), _compat.starts_script_again(trainer)) == found


@pytest.mark.filterwarnings("error")
def test_states_of_metrics():
    metric = FeatureMean()
    assert _compat.default_states(metric).keys() == {"total", "count"}
    metric.total, metric.count = torch.tensor(6.0), torch.tensor(2.0)
    _compat.mark_updated(metric)
    assert float(metric.compute()) == 3


def test_packages_that_add_callbacks_are_sought_once(monkeypatch):
    from importlib.metadata import entry_points

    from lightning.fabric.utilities import registry

    asked = []
    monkeypatch.setattr(_compat, "_entry_points_once", lambda **query: asked.append(query) or entry_points(**query))
    with _compat.callbacks_of_packages_sought_once():
        pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert asked == [{"group": "lightning.pytorch.callbacks_factory"}]
    assert registry.entry_points is entry_points


def test_a_linked_collection_does_what_a_plain_one_does():
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassPrecision, MulticlassRecall

    groups = [["precision", "recall"]]
    plain, linked = (
        kind({"precision": MulticlassPrecision(3), "recall": MulticlassRecall(3)}, compute_groups=groups)
        for kind in (MetricCollection, _compat.LinkedCollection)
    )
    generator = torch.Generator().manual_seed(0)
    for round_ in range(4):
        batch = torch.randint(3, (2, 20), generator=generator)
        for collection in (plain, linked):
            collection.update(*batch)
        if round_ == 1:
            assert linked["recall"].tp is not linked["precision"].tp  # a copy for whoever looks from outside
        if round_ == 2:
            assert plain.compute() == linked.compute()
            plain.reset(), linked.reset()
    assert plain.compute() == linked.compute()
    assert linked.clone().compute() == plain.compute()
