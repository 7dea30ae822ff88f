"""Data by name, config and path."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data import Digits, NpzArrays
from lightning_transfer.data.loading import load_data


def test_names_configs_and_paths(tmp_path, monkeypatch):
    assert load_data("digits_0_4", "target").num_classes == 5
    assert load_data("digits_0_4", "data").num_classes == 5
    config = {"_target_": "lightning_transfer.data.Digits", "max_samples": 20}
    assert load_data(config, "reference").max_samples == 20
    ready = Digits()
    assert load_data(ready, "target") is ready
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "mine.npz", inputs=np.zeros((4, 5), np.float32), labels=np.arange(4))
    for path in (tmp_path / "mine.npz", "~/mine.npz"):
        assert isinstance(load_data(path, "target"), NpzArrays)


@pytest.mark.parametrize("name", ["digts", Path("digts"), "no/such/folder", "", "~nobody-of-that-name/x", "a" * 5000])
def test_what_is_neither_a_name_nor_there(name):
    with pytest.raises(ValueError, match=r"`target` to be one of .*digits.*, or a path, .*no such name") as caught:
        load_data(name, "target")
    assert ("did you mean 'digits'" in str(caught.value)) == (str(name) == "digts")


def test_configs_of_something_else():
    with pytest.raises(ValueError, match=r"`data` to be a datamodule, config or name, but got Linear"):
        load_data({"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}, "data")
    with pytest.raises(ValueError, match=r"target: Digits takes no `nope`; known are .*classes"):
        load_data({"_target_": "lightning_transfer.data.Digits", "nope": 1}, "target")


def test_keys_that_nothing_reads_are_said():
    with pytest.warns(UserWarning, match="target: label_key='nope' is not read, since Digits says itself"):
        load_data("digits", "target", {"input_key": None, "label_key": "nope"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data("digits", "reference", {"label_key": "nope"})  # the keys are about the target
        load_data((torch.zeros(4, 2), torch.arange(4)), "target", {"input_key": 0, "label_key": 1})
