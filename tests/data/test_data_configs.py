from __future__ import annotations

import inspect
from importlib.resources import files

import pytest
from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import OmegaConf

from lightning_transfer.configs import known_configs
from lightning_transfer.data import PictureTable, Table, TextTable, TransferDataModule
from lightning_transfer.utilities.instantiate import instantiate

NAMES = sorted(path.name.removesuffix(".yaml") for path in (files("lightning_transfer.conf") / "target").iterdir())
OFFLINE = ["diabetes", "digits", "digits_0_4", "digits_5_9", "photo_patches"]


def composed(group, name, *overrides):
    with initialize_config_module("lightning_transfer.conf", version_base="1.3"):
        return compose(overrides=[f"+{group}={name}", *overrides])[group]


def parameters(cls):
    own = set(inspect.signature(cls).parameters) - {"kwargs"}
    if cls in (TextTable, PictureTable):  # the inputs are one column, which is no number
        own |= set(inspect.signature(Table).parameters) - {"kwargs", "features", "categories", "standardize"}
    return own | (set(inspect.signature(TransferDataModule).parameters))


@pytest.mark.parametrize("name", NAMES)
def test_config_names_every_argument(name, monkeypatch):
    monkeypatch.setenv("LIGHTNING_TRANSFER_DATA", "/somewhere")
    target, reference = composed("target", name), composed("reference", name)
    cls = get_class(target["_target_"])
    assert issubclass(cls, TransferDataModule)
    assert set(target) - {"_target_"} == parameters(cls)
    assert set(reference) == set(target)
    if name != "emoji":
        assert reference == target
    if not OmegaConf.missing_keys(target):
        instantiate(target)


def test_every_target_is_a_reference_too():
    assert known_configs("reference") == NAMES


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_configs_are_read(name):
    data = instantiate(composed("target", name, "target.max_samples=40"))
    assert data.name == name
    assert len(data.train_dataset) == 40


def test_halves_come_from_the_command_line_too():
    ready = instantiate(composed("reference", "digits_0_4"))
    chosen = instantiate(composed("reference", "digits", "reference.classes=[0,1,2,3,'4']"))
    assert ready.class_names == chosen.class_names == tuple("01234")
    assert len(ready.train_dataset) == len(chosen.train_dataset)


def test_lists_from_configs(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["a,b,c,d", *["1,2,3,4", "2,3,4,5"] * 10]))
    overrides = [f"target.path={path}", "target.targets=[c,d]", "target.features=[a,b]"]
    data = instantiate(composed("target", "table", *overrides))
    assert data.target_names == ("c", "d")
