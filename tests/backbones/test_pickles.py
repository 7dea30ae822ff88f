"""Pickles of checkpoints: those of PyTorch pass, those that ask for more than they hold are refused unread."""

from __future__ import annotations

import collections
import io
import pickle
import resource
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import load_weights
from lightning_transfer.backbones.pickles import check_checkpoint, check_folder

NET = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
ORDINARY = {
    "a state dict": NET.state_dict(),
    "a checkpoint of Lightning": {
        "epoch": 3, "pytorch-lightning_version": "2.6", "state_dict": NET.state_dict(), "loops": {"fit": [1, None]},
        "lr_schedulers": [{"milestones": collections.Counter([3, 5]), "base_lrs": [0.1]}],
        "optimizer_states": [torch.optim.Adam(NET.parameters()).state_dict()], "hyper_parameters": {"x": (1, (2, 3))},
    },
    "bytes and sets": {"w": torch.ones(2), "b": b"abc" * 400, "a": bytearray(b"xyz"), "s": {1, "two"}, "c": 1j},
    "kinds of tensors": {
        "half": torch.ones(2).half(), "meta": torch.ones(2, device="meta"), "sparse": torch.eye(3).to_sparse(),
        "parameter": nn.Parameter(torch.ones(2)), "size": torch.Size((2, 3)), "dtype": torch.float16,
        "view": torch.arange(9)[::2], "device": torch.device("cpu"), "none": torch.empty(0),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "bool": torch.ones(2).bool(),
    },
}  # fmt: skip


@pytest.mark.parametrize("content", ORDINARY.values(), ids=ORDINARY)
@pytest.mark.parametrize("new", [True, False])
def test_what_pytorch_writes_passes(content, new):
    if not new:
        content = {k: v for k, v in content.items() if k != "sparse"}
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=new)
    file.seek(0)
    check_checkpoint(file, len(file.getvalue()))
    file.seek(0)
    torch.load(file, weights_only=True)


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Filled:
    """Pickles as a dict with an entry, whose key is not hashed until it is read."""

    def __reduce__(self):
        return collections.OrderedDict, (), None, None, iter([(deep(), 1)])


def endless() -> Call:
    """A tensor of one number, 2**40 times."""
    storage = torch.zeros(1, dtype=torch.int64).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.int64, _internal=True)
    return Call(torch._utils._rebuild_tensor_v2, typed, 0, (2**40,), (0,), False, collections.OrderedDict())


def deep() -> tuple:
    nested = (1, 2)
    for _ in range(60):
        nested = (nested, nested)
    return nested


LONG = "x" * 100_000
BOMBS = {
    "bytes without end": lambda: Call(bytearray, 2**40),
    "bytes of a tensor": lambda: Call(bytearray, torch.tensor(2**40)),
    "a tensor of a size": lambda: Call(torch.Tensor, 2**20, 2**20),
    "a storage of a size": lambda: Call(torch.UntypedStorage, 2**40),
    "a set of a tensor": lambda: Call(set, endless()),
    "a counter of a tensor": lambda: Call(collections.Counter, endless()),
    "a copy of a tensor": lambda: Call(
        torch._utils._rebuild_device_tensor_from_cpu_tensor, endless(), torch.float32, "cpu", False
    ),
    "a rebuilding that calls": lambda: Call(
        torch._tensor._rebuild_from_type_v2, torch.Tensor, torch.Tensor, (2**20, 2**20), {}
    ),
    "keys whose hash has no end": lambda: Filled(),
    "members of a set whose hash has no end": lambda: Call(set, [deep()]),
    "a text encoded often": lambda: [Call(__import__("_codecs").encode, LONG, "latin1") for _ in range(20_000)],
}


@contextmanager
def little_memory():
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_what_asks_for_more_than_it_holds_is_refused_unread(tmp_path, monkeypatch, bomb, new):
    path = tmp_path / "pytorch_model.bin"
    content = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": bomb()}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    monkeypatch.setattr(torch, "load", None)  # the check comes first
    with little_memory():
        with pytest.raises(ValueError, match=r"pytorch_model\.bin.*(calls|keys|claims)"):
            load_weights(nn.Linear(2, 3), path)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
            check_folder(tmp_path)


def test_archives_that_readers_may_read_differently(tmp_path):
    good = tmp_path / "good.pt"
    torch.save(nn.Linear(2, 3).state_dict(), good)
    load_weights(nn.Linear(2, 3), good)
    content = good.read_bytes()
    for number, changed in enumerate((content + b"more", b"PK\3\4" + content, content[:-2] + b"\1\0!")):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=rf"{number}\.pt"):
            load_weights(nn.Linear(2, 3), path)
    for name, claims in (("twice", {"good/data.pkl": b"x"}), ("bomb", {"good/data/9": bytes(2**27)})):
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content)
        with (
            zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
            pytest.warns() if name == "twice" else open(good),
        ):
            for member, value in claims.items():
                archive.writestr(member, value)
        with pytest.raises(ValueError, match=rf"{name}\.pt.*(twice|larger)"):
            load_weights(nn.Linear(2, 3), path)


def test_states_of_training_beside_a_model_are_left_alone(tmp_path):
    (tmp_path / "training_args.bin").write_bytes(pickle.dumps(Call(bytearray, 3)))
    torch.save(NET.state_dict(), tmp_path / "pytorch_model.bin")
    check_folder(tmp_path)


def halved(value):
    return value


def test_what_the_user_trusts_passes(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": Call(halved, 3)}, path)
    with pytest.raises(ValueError, match="halved"):
        load_weights(nn.Linear(2, 3), path)
    with torch.serialization.safe_globals([halved]):
        load_weights(nn.Linear(2, 3), path)
