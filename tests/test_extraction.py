import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset
from torchmetrics import MetricCollection

from lightning_transfer.backbones import ModuleBackbone, load_backbone
from lightning_transfer.data import Digits, PhotoPatches
from lightning_transfer.extraction import extract
from lightning_transfer.metrics import LEEP, NCE, HScore, KNNAccuracy, LinearMSE, LogME
from lightning_transfer.screening import screen

N, D, K = 101, 6, 3
CPU = {"accelerator": "cpu"}


def _data(n=N):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % K
    inputs = torch.randn(n, D, generator=generator) + labels[:, None]
    return inputs, labels


def _backbone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))
    return ModuleBackbone(net, (D,), name="small")


def _metrics():
    return MetricCollection({"h": HScore(), "logme": LogME(), "leep": LEEP(), "nce": NCE(), "knn": KNNAccuracy()})


def _direct(backbone, inputs, labels):
    metrics = _metrics()
    with torch.no_grad():
        features, logits = backbone.eval()(inputs)
    metrics.update(
        features=features, labels=labels, source_probs=logits.softmax(1), source_labels=logits.argmax(1),
        source_outputs=logits, targets=features,
    )  # fmt: skip
    return {name: float(value) for name, value in metrics.compute().items()}


def _loader(**arguments):
    return DataLoader(TensorDataset(*_data()), **{"batch_size": 16, **arguments})


class TupleModule(LightningDataModule):
    def __init__(self, **arguments):
        super().__init__()
        self.arguments = arguments
        self.stages = []
        self.moved = 0

    def setup(self, stage):
        self.stages.append(stage)

    def train_dataloader(self):
        return _loader(shuffle=True, drop_last=True, **self.arguments)

    def val_dataloader(self):
        return [_loader(), _loader()]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.moved += 1
        inputs, labels = batch
        return (inputs + 100 if self.trainer.training else inputs, labels)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*_data(), strict=True))


class DictSamples(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        inputs, labels = _data()
        return {"image": inputs[index], "label": labels[index]}


class WholeBatches(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        inputs, labels = _data()
        part = slice(index * 40, (index + 1) * 40)
        return inputs[part], labels[part]


@pytest.mark.parametrize(
    "data",
    [
        lambda: TupleModule(),
        lambda: TupleModule(num_workers=1, persistent_workers=True),
        lambda: _loader(),
        lambda: _loader(shuffle=True, drop_last=True),
        lambda: DataLoader(Stream(), batch_size=16),
        lambda: DataLoader(DictSamples(), batch_size=30),
        lambda: DataLoader(WholeBatches(), batch_size=None),
        lambda: [tuple(part) for part in zip(*(t.split(16) for t in _data()), strict=True)],
        lambda: (batch for batch in [_data()]),
        lambda: [DataLoader(TensorDataset(*(t[s] for t in _data())), 16) for s in (slice(50), slice(50, None))],
        lambda: CombinedLoader({"all": _loader()}, "sequential"),
    ],
)
def test_metrics_get_every_sample_once_from_anybodys_data(data):
    backbone = _backbone()
    expected = _direct(backbone, *_data())
    result = extract(backbone, data(), _metrics(), trainer=CPU)
    assert {name: float(v) for name, v in result.metrics.compute().items()} == pytest.approx(expected, rel=1e-6)
    assert result.num_samples == N
    assert result.seconds > 0
    assert result.images_per_second == pytest.approx(N / result.seconds)


def test_a_users_hooks_see_evaluation():
    module = TupleModule()
    result = extract(_backbone(), module, trainer=CPU, keep=("features",))
    assert module.stages == ["fit"]
    assert module.moved == 7
    features = _backbone().eval()(_data()[0]).features
    torch.testing.assert_close(result.kept["features"], features)


def test_several_validation_loaders_are_one_split():
    assert extract(_backbone(), TupleModule(), trainer=CPU, split="val").num_samples == 2 * N


@pytest.mark.parametrize("name", ["a file.npz", "a.safetensors"])
def test_what_is_kept_is_saved(name, tmp_path):
    from safetensors.torch import load_file

    extraction = extract(_backbone(), [_data()], keep=("features", "labels"))
    path = extraction.save(tmp_path / "folder" / name)
    read = load_file(path) if path.suffix == ".safetensors" else np.load(path, allow_pickle=False)
    assert np.array_equal(read["features"], extraction.kept["features"].numpy())
    assert read["labels"].tolist() == _data()[1].tolist()


def test_names_are_taken_as_by_a_screen(tmp_path):
    kept = extract("efficientnet_lite0_random", "digits", max_samples=6, keep=("features",)).kept
    assert kept["features"].shape == (6, 1280)
    np.savez(tmp_path / "mine.npz", inputs=np.zeros((4, 5), np.float32), labels=np.arange(4))
    backbone = ModuleBackbone(nn.Linear(5, 3), input_shape=(5,), head=None)
    assert len(extract(backbone, str(tmp_path / "mine.npz"), keep=("labels",)).kept["labels"]) == 3  # one validates
    with pytest.raises(ValueError, match=r"`groups` to hold one id a sample of `digits.*`, which has no columns"):
        extract(backbone, "digits_0_4", group_key="patient")
    with pytest.raises(ValueError, match=r"`data` to be one of .*digits.* or a path, .*'digts'; did you mean 'digits'"):
        extract(backbone, "digts")


def test_groups_of_a_table_by_its_path_are_no_inputs(tmp_path):
    rows = [f"{i % 5},{i % 3},{'uv'[i % 2]},p{i // 4}" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,kind,patient", *rows]))
    backbone = ModuleBackbone(nn.Linear(2, 3), input_shape=(2,), head=None)
    kept = extract(
        backbone, str(tmp_path / "t.csv"), label_key="kind", group_key="patient", keep=("labels", "groups")
    ).kept
    assert len(kept["labels"]) == len(kept["groups"])
    assert 1 < len(kept["groups"].unique()) <= 10
    keys = {"label_key": "kind", "groups": "patient", "cache": False}
    (row,) = screen({"net": backbone}, str(tmp_path / "t.csv"), ["logme"], **keys).rows
    assert row.status == "ok"


def test_what_cannot_be_saved(tmp_path):
    extraction = extract(_backbone(), [_data()], keep=("features",))
    with pytest.raises(ValueError, match=r"to end in \.npz or \.safetensors"):
        extraction.save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="nothing was kept"):
        extract(_backbone(), [_data()]).save(tmp_path / "a.npz")


def test_what_is_kept_is_in_order():
    inputs, labels = _data()
    backbone = _backbone().eval()
    names = ("features", "labels", "source_probs", "source_labels", "source_outputs")
    kept = extract(backbone, _loader(shuffle=True), trainer=CPU, keep=names).kept
    with torch.no_grad():
        features, logits = backbone(inputs)
    torch.testing.assert_close(kept["features"], features)
    torch.testing.assert_close(kept["source_outputs"], logits)
    torch.testing.assert_close(kept["source_probs"], logits.softmax(dim=1))
    assert torch.equal(kept["source_labels"], logits.argmax(dim=1))
    assert torch.equal(kept["labels"], labels)


@pytest.mark.parametrize("limit", [1, 40, N, 500])
@pytest.mark.parametrize("data", [_loader, lambda: DataLoader(Stream(), batch_size=16), lambda: [_data()]])
def test_max_samples(limit, data):
    result = extract(_backbone(), data(), trainer=CPU, max_samples=limit, keep=("labels",))
    assert result.num_samples == min(limit, N) == len(result.kept["labels"])


def test_max_samples_draws_a_seeded_subset():
    data = DataLoader(TensorDataset(torch.arange(N * D, dtype=torch.float32).view(N, D), torch.arange(N)), 16)
    ids = [
        extract(_backbone(), data, trainer=CPU, max_samples=20, keep=("labels",), seed=s).kept["labels"]
        for s in (0, 0, 1)
    ]
    assert torch.equal(ids[0], ids[1])
    assert not torch.equal(ids[0], ids[2])
    assert torch.equal(ids[0], ids[0].unique())
    assert int(ids[0].max()) > 50  # not just the first ones


def test_regression_targets():
    inputs, _ = _data()
    targets = inputs[:, :2] * 2
    result = extract(_backbone(), [(inputs, targets)], LinearMSE(), trainer=CPU, keep=("targets",))
    assert torch.equal(result.kept["targets"], targets)
    assert torch.isfinite(result.metrics.compute())


def test_metrics_are_reset_first():
    metrics = _metrics()
    for _ in range(2):
        result = extract(_backbone(), _loader(), metrics, trainer=CPU)
    assert {n: float(v) for n, v in result.metrics.compute().items()} == pytest.approx(_direct(_backbone(), *_data()))


def test_nothing_is_left_behind(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    backbone = _backbone().train()
    backbone.module[1].eval()
    modes = [child.training for child in backbone.modules()]
    state = {name: (value, value.clone()) for name, value in backbone.state_dict(keep_vars=True).items()}
    rng = torch.get_rng_state(), np.random.get_state()[1].copy()
    level = logging.getLogger("lightning.pytorch").level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(backbone, _loader(shuffle=True), _metrics(), trainer=CPU)
    assert [child.training for child in backbone.modules()] == modes
    assert all(backbone.state_dict(keep_vars=True)[n] is v and torch.equal(v, old) for n, (v, old) in state.items())
    assert torch.equal(rng[0], torch.get_rng_state())
    assert np.array_equal(rng[1], np.random.get_state()[1])
    assert not any(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level == level


def test_features_can_be_trained_on_afterwards():
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    assert trainer.predict_loop.inference_mode
    kept = extract(_backbone(), _loader(), trainer=trainer, keep=("features", "labels")).kept
    assert trainer.predict_loop.inference_mode
    probe = nn.Linear(8, K)
    nn.functional.cross_entropy(probe(kept["features"]), kept["labels"]).backward()
    assert not kept["features"].requires_grad
    assert not kept["features"].is_inference()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision_is_the_trainers(precision):
    backbone = _backbone()
    weight = backbone.module[0].weight
    result = extract(backbone, _loader(), _metrics(), trainer={**CPU, "precision": precision}, keep=("features",))
    assert result.kept["features"].dtype == (torch.float64 if precision == "64-true" else torch.float32)
    torch.testing.assert_close(
        result.kept["features"].float(), backbone.eval()(_data()[0]).features, rtol=0.1, atol=0.1
    )
    assert backbone.module[0].weight is weight
    assert weight.dtype == torch.float32
    assert float(result.metrics["h"].compute()) == pytest.approx(_direct(backbone, *_data())["h"], rel=0.1)


def test_a_trainer_config_of_hydra_is_taken():
    trainer = {"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "limit_predict_batches": 2}
    assert extract(_backbone(), _loader(), trainer=trainer).num_samples == 32


def test_the_bar_goes_to_standard_error(capfd):
    extract(_backbone(), _loader(), trainer=CPU, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "small" in err


def test_real_weights_score_real_images():
    data = PhotoPatches(max_samples=150)
    scores = {}
    for name in ("efficientnet_lite0", "efficientnet_lite0_random"):
        backbone = load_backbone(name, input_size=48)
        scores[name] = extract(backbone, data, LogME(), trainer=CPU).metrics.compute()
    assert scores["efficientnet_lite0"] > scores["efficientnet_lite0_random"]


def test_a_sampler_of_the_users_own_chooses_and_its_generator_stays():
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    sampler = SubsetRandomSampler([7, 3, 5], generator=generator)
    kept = extract(_backbone(), _loader(sampler=sampler), trainer=CPU, keep=("features",)).kept
    torch.testing.assert_close(kept["features"], _backbone().eval()(_data()[0][[3, 5, 7]]).features)
    assert torch.equal(generator.get_state(), state)


def test_keys_of_batches():
    inputs, labels = _data()
    batches = [{"sound": inputs, "species": labels.float(), "label": labels * 0}]
    keys = {"input_key": "sound", "label_key": "species"}
    result = extract(_backbone(), batches, LogME(), trainer=CPU, max_samples=50, **keys)
    assert result.num_samples == 50
    expected = extract(_backbone(), [(inputs[:50], labels[:50])], LogME(), trainer=CPU).metrics.compute()
    assert result.metrics.compute() == expected


@pytest.mark.parametrize(
    ("metric", "labels"),
    [(LogME(), _data()[1].double()), (LogME(task="regression"), _data()[1]), (HScore(), _data()[1].to(torch.uint8))],
    ids=["classes_as_floats", "whole_targets", "bytes"],
)
def test_labels_of_another_dtype(metric, labels):
    ready = labels.double() if isinstance(metric, type(LogME(task="regression"))) else labels.long()
    values = [
        float(extract(_backbone(), [(_data()[0], given)], metric.clone(), trainer=CPU).metrics.compute())
        for given in (labels, ready)
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": ("colours",)}, "`keep`"),
        ({"keep": ("targets",)}, "keep.*targets"),
        ({"split": "all"}, "`split`"),
        ({"max_samples": 0}, "`max_samples`"),
        ({"data": []}, "samples"),
        ({"data": DataLoader(TensorDataset(torch.zeros(0, D), torch.zeros(0).long()), 4)}, "samples"),
        ({"data": [_data()[0]]}, "metric `h` needs.*labels.*one Tensor.*`label_key`"),
        ({"data": [{"x": _data()[0], "kind": _data()[1]}]}, "metric `h` needs.*'kind', 'x'.*`label_key`"),
        ({"data": [(_data()[0], _data()[0])]}, "small, batch 0: .*whole numbers"),
        ({"data": [(torch.full((2, D), torch.nan), torch.tensor([0, 1]))]}, "small, batch 0: .*finite"),
        ({"data": [(torch.zeros(2, D), torch.tensor([0, -1]))]}, "small, batch 0: .*`labels`"),
    ],
)
def test_bad_input_is_refused_with_its_place(arguments, message):
    arguments = {"data": _loader(), "metrics": _metrics(), **arguments}
    with pytest.raises(ValueError, match=message):
        extract(_backbone(), trainer=CPU, **arguments)


def test_a_failing_backbone_is_named():
    with pytest.raises(RuntimeError, match=r"small, batch 0: .*shapes"):
        extract(_backbone(), [(torch.zeros(2, D + 1), torch.tensor([0, 1]))], trainer=CPU)


def test_random_states_and_modes_survive_a_failure():
    backbone = _backbone().train()
    rng = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="batch 0"):
        extract(backbone, DataLoader(TensorDataset(torch.zeros(4, D + 1)), 2, shuffle=True), trainer=CPU)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(child.training for child in backbone.modules())


def test_a_datamodule_forgets_the_trainer_of_the_pass():
    data = Digits(max_samples=40)
    backbone = ModuleBackbone(torch.nn.Flatten(), (1, 8, 8), head=None)
    extract(backbone, data, trainer=CPU)
    assert data.trainer is None
    with pytest.raises(ValueError, match="keep"):
        extract(backbone, data, trainer=CPU, keep=("source_probs",))
    assert data.trainer is None
    labels = extract(backbone, data, trainer=CPU, keep="labels")
    assert set(labels.kept) == {"labels"}
    assert str(labels).startswith("40 samples in ")
    assert str(labels).endswith(" s: labels (40,)")


@pytest.mark.ddp
def test_spawned_processes_give_the_value_of_one():
    inputs, labels = _data()
    backbone = _backbone()
    trainer = {**CPU, "devices": 2, "strategy": "ddp_spawn"}
    result = extract(backbone, _loader(shuffle=True), _metrics(), trainer=trainer, keep=("features", "labels"))
    assert result.num_samples == N
    assert torch.equal(result.kept["labels"], labels)
    torch.testing.assert_close(result.kept["features"], backbone.eval()(inputs).features.detach())
    found = {name: float(value) for name, value in result.metrics.compute().items()}
    assert found == pytest.approx(_direct(backbone, inputs, labels), rel=1e-6)


SCRIPT = """
import json, sys, torch
from torch import nn
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.extraction import extract
from lightning_transfer.metrics import HScore, KNNAccuracy
from torchmetrics import MetricCollection

inputs, labels = torch.eye(9)[:, :4] + torch.arange(36).view(9, 4) ** 2 % 7, torch.arange(9) % 2
backbone = ModuleBackbone(nn.Identity(), (4,), head=None)
batches = [(inputs[i : i + 2], labels[i : i + 2]) for i in range(0, 9, 2)]
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, labels), 2)
out = []
devices = int(sys.argv[1])
for data, limit in ((batches, None), (loader, None), (loader, 5), (loader, 1)):
    metrics = MetricCollection({"h": HScore(), "knn": KNNAccuracy()})
    trainer = {"accelerator": "cpu", "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
    result = extract(backbone, data, metrics, trainer=trainer, max_samples=limit, keep=("labels",))
    scores = [float(value) for value in metrics.compute().values()] if limit != 1 else [0.0, 0.0]
    out.append([result.num_samples, *scores, sorted(result.kept["labels"].tolist())])
print(json.dumps(out))
"""


@pytest.mark.ddp
def test_two_launched_processes_give_the_value_of_one(tmp_path):
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}

    def start(devices, **env):
        command = [sys.executable, str(tmp_path / "script.py"), str(devices)]
        return subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True, cwd=tmp_path)

    processes = [start(1), *(start(2, **common, LOCAL_RANK=str(rank)) for rank in range(2))]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    one, *two = (json.loads(output.splitlines()[-1]) for output in outputs)
    assert [entry[0] for entry in one] == [9, 9, 5, 1]
    for rank in two:
        for entry, expected in zip(rank, one, strict=True):
            assert entry[:3] == pytest.approx(expected[:3], rel=1e-9)
            assert entry[3] == expected[3]


def test_a_pair_is_no_two_batches():
    backbone = ModuleBackbone(nn.Linear(4, 2), input_shape=(4,), head=None)
    inputs, labels = torch.randn(12, 4), torch.arange(12) % 3
    kept = [
        extract(backbone, data, keep=["features", "labels"]).kept for data in ((inputs, labels), [(inputs, labels)])
    ]
    for name in ("features", "labels"):
        assert torch.equal(kept[0][name], kept[1][name])
