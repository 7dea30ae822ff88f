# ruff: noqa: E501
"""Weights, arrays and results that try to run code when they are read; each payload would make a folder."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lightning_transfer.backbones import load_backbone, load_weights
from lightning_transfer.data import NpzArrays, Table
from lightning_transfer.jobs import report
from lightning_transfer.jobs.sweep import CompareJobs
from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.screening.merging import add_to_folder

FIGURES = (
    "reweighted_reference_loss", "label_mismatch", "distribution_mismatch", "target_loss", "target_accuracy",
)  # fmt: skip


class Payload:
    def __init__(self, marker) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


class Sneaky(Payload):
    """A state that is set by what it calls."""

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Payload(self.marker), 0, (1,), (1,), False, {})


@pytest.fixture
def marker(tmp_path):
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code ran"


@pytest.mark.parametrize("end", [".pt", ".pth", ".ckpt", ".bin", ".safetensors", ""])
@pytest.mark.parametrize("payload", [Payload, Sneaky])
@pytest.mark.parametrize("new", [True, False])
def test_checkpoints(marker, end, payload, new):
    path = marker.with_name(f"weights{end}")
    content = {"state_dict": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2), "x": payload(marker)}}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match="weights"):
        load_weights(nn.Linear(2, 2), path)


def test_a_bare_pickle_is_no_checkpoint(marker):
    path = marker.with_name("weights.pt")
    path.write_bytes(pickle.dumps({"weight": Payload(marker)}))
    with pytest.raises(ValueError, match=r"weights\.pt"):
        load_weights(nn.Linear(2, 2), path)


def test_a_script_is_no_checkpoint(marker):
    path = marker.with_name("weights.pt")
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(ValueError, match=r"weights\.pt"):
        load_weights(nn.Linear(2, 2), path)


@pytest.mark.parametrize("name", ["inputs", "labels"])
def test_arrays_of_objects(marker, name):
    path = marker.with_name("arrays.npz")
    arrays = {"inputs": np.zeros((4, 2)), "labels": np.arange(4)}
    np.savez(path, allow_pickle=True, **(arrays | {name: np.array([Payload(marker)] * 4, object)}))
    with pytest.raises(ValueError, match=r"arrays\.npz"):
        NpzArrays(path).setup("fit")


def test_a_pickle_in_the_place_of_arrays(marker):
    path = marker.with_name("arrays.npz")
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ValueError, match=r"arrays\.npz"):
        NpzArrays(path).setup("fit")


@pytest.mark.parametrize("end", [".csv", ".parquet", ".csv.zip"])
def test_tables(marker, end):
    path = marker.with_name(f"table{end}")
    path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ValueError, match="table"):
        Table(path, label="y").setup("fit")


def test_an_extension_type_of_parquet_stays_data(marker):
    field = pa.field("a", pa.int64(), metadata={
        "ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Payload(marker)),
    })  # fmt: skip
    schema = pa.schema([field, pa.field("y", pa.string())])
    pq.write_table(pa.table([[1, 2] * 9, ["x", "y"] * 9], schema=schema), marker.with_name("table.parquet"))
    assert Table(marker.with_name("table.parquet"), label="y").class_names == ("x", "y")


@pytest.mark.parametrize("named", ["timm/local-dir:{here}", "hf/{here}", "st/{here}", "{here}"])
def test_folders_of_models(marker, named):
    """Code, modules and pickles beside a config: none is imported or unpickled."""
    folder = marker.with_name("model")
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Net: pass\n")
    config = {
        "model_type": "bert",
        "auto_map": {"AutoModel": "evil.Net", "AutoConfig": "evil.Net"},
        "architecture": "resnet18",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Net"}]))
    torch.save({"x": Payload(marker)}, folder / "pytorch_model.bin")
    with pytest.raises((ValueError, ModuleNotFoundError)):
        load_backbone(named.format(here=folder))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 8, "model_args": {"weights_only": False, "dtype": "auto"}}),
        ("sentence_bert_config.json", {"config_args": {"trust_remote_code": True}}),
        ("router_config.json", {"types": {"q_0": "evil.Net"}, "structure": {"query": ["q_0"]}}),
        ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.util.tensor.torch"}]),
        (
            "modules.json",
            [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer.load"}],
        ),
        ("0_Words/wordembedding_config.json", {"tokenizer_class": "evil.Net", "max_seq_length": 4}),
        ("2_Dense/config.json", {"in_features": 2, "activation_function": "torch.hub.list"}),
        ("2_Dense/config.json", "[" * 100_000),
    ],
)
def test_configs_inside_folders_of_sentence_transformers(marker, file, content):
    folder = marker.with_name("model")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Net: pass\n")
    kinds = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 8}))
    torch.save({"x": Payload(marker)}, folder / "pytorch_model.bin")
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=file.rpartition("/")[2]):
        load_backbone(str(folder))


PYTHON = "import os\nos.mkdir({marker!r})\nclass Net: pass\n"
MODELS = {  # what is added to a folder of a small model: files, and entries of its config
    "code of a model of its own": {"config.json": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Net", "AutoModel": "evil.Net"}}},
    "code beside a known model": {"config.json": {"auto_map": {"AutoConfig": "evil.Net", "AutoModel": "evil.Net"}}},
    "code from elsewhere": {"config.json": {"auto_map": {"AutoModel": "{other}--evil.Net"}}},
    "code of a tokenizer": {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Net", "evil.Net"]}}},
    "a class of a tokenizer": {"tokenizer_config.json": {"tokenizer_class": "evil.Net"}},
    "a class of a tokenizer in the config": {"config.json": {"tokenizer_class": "evil.Net"}},
    "code of pictures": {"preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "evil.Net"}, "image_processor_type": "Evil"}},
    "code of a processor": {"processor_config.json": {"auto_map": {"AutoProcessor": "evil.Net"}}},
    "a kernel of attention": {"config.json": {"_attn_implementation_internal": "{other}", "attn_implementation": "{other}"}},
    "a kernel of experts": {"config.json": {"_experts_implementation_internal": "{other}", "use_kernels": True}},
    "trust": {"config.json": {"trust_remote_code": True, "auto_map": {"AutoModel": "evil.Net"}, "model_type": "evil"}},
    "a way to generate": {"generation_config.json": {"custom_generate": "{other}"}, "custom_generate/generate.py": PYTHON},
    "a quantiser": {"config.json": {"quantization_config": {"quant_method": "evil", "modules": ["evil.Net"]}}},
    "an adapter": {"adapter_config.json": {"base_model_name_or_path": "{other}", "peft_type": "LORA", "auto_mapping": {"parent_library": "evil", "base_model_class": "Net"}}},
    "an adapter alone": {"config.json": None, "adapter_config.json": {"base_model_name_or_path": "{other}"}},
    "weights that lie elsewhere": {"model.safetensors": None, "pytorch_model.bin.index.json": {"metadata": {}, "weight_map": {"x": "../evil.bin"}}},
    "a pickle by another name": {"model.safetensors": b"pickle"},
    "a pickle beside": {"model.safetensors": None, "pytorch_model.bin": b"pickle"},
    "a pickle of numpy": {"model.safetensors": None, "flax_model.msgpack": b"pickle", "tf_model.h5": b"pickle"},
    "a template": {"chat_template.jinja": "{{% for x in ().__class__.__base__.__subclasses__() %}}{{{{ x }}}}{{% endfor %}}"},
    "modules of ours": {"modules.json": [{"idx": 0, "name": "0", "path": "", "type": "evil.Net"}]},
    "options that load": {"sentence_bert_config.json": {"model_args": {"trust_remote_code": True}}, "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]},
}  # fmt: skip


def fill(value, marker):
    """A payload with its places filled in."""
    if isinstance(value, dict):
        return {name: fill(entry, marker) for name, entry in value.items()}
    if isinstance(value, list):
        return [fill(entry, marker) for entry in value]
    return value.format(other=marker.with_name("other"), marker=str(marker)) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder of a small model of pictures."""
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["hf", "st", ""])
@pytest.mark.parametrize("added", MODELS.values(), ids=MODELS)
def test_folders_of_models_with_more_in_them(marker, monkeypatch, vit, added, kind):
    """Whoever is asked says yes; no code runs for all that, and nobody is asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    folder, other = marker.with_name("model"), marker.with_name("other")
    shutil.copytree(vit, folder)
    shutil.copytree(vit, other)
    for place in (folder, other):
        for name in ("evil.py", "__init__.py", "build.py", "layers.py"):
            (place / name).write_text(PYTHON.format(marker=str(marker)))
    torch.save({"x": Payload(marker)}, marker.with_name("evil.bin"))
    for name, content in added.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            torch.save({"x": Payload(marker)}, path)
        elif isinstance(content, str):
            path.write_text(content.format(marker=str(marker)))
        else:
            content = fill(content, marker)
            earlier = json.loads(path.read_text()) if path.exists() and isinstance(content, dict) else {}
            path.write_text(json.dumps({**earlier, **content} if isinstance(content, dict) else content))
    with contextlib.suppress(ValueError, ModuleNotFoundError, TypeError):
        load_backbone(f"{kind}/{folder}" if kind else str(folder))


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet18", "pretrained_cfg": {"file": "{evil}", "custom_load": True}},
        {"architecture": "resnet18", "pretrained_cfg": {"url": "file://{evil}", "custom_load": "hf"}},
        {"architecture": "test_vit", "pretrained_cfg": {"file": "{evil}"}, "model_args": {"act_layer": "os.mkdir"}},
        {"architecture": "test_vit", "model_args": {"norm_layer": "evil.Net", "block_fn": "evil.Net"}},
        {"architecture": "local-dir:{evil}"},
        {"architecture": "../evil"},
    ],
)
def test_folders_of_timm_with_more_in_them(marker, config):
    folder, evil = marker.with_name("model"), marker.with_name("evil.pth")
    folder.mkdir()
    for path in (evil, folder / "pytorch_model.bin", folder / "model.pth", folder / "x.npz", folder / "a.safetensors"):
        torch.save({"x": Payload(marker)}, path)
    (folder / "config.json").write_text(json.dumps(config).replace("{evil}", str(evil)))
    with pytest.raises(ValueError, match="model"):
        load_backbone(f"timm/local-dir:{folder}")


@pytest.mark.parametrize(
    "text",
    [
        {"hf_model_name": "{other}"},
        {"hf_tokenizer_name": "{other}"},
        {"hf_model_name": "{other}", "hf_proj_type": "mlp"},
    ],
)
def test_folders_of_open_clip_with_more_in_them(marker, monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    folder, other = marker.with_name("model"), marker.with_name("other")
    other.mkdir()
    folder.mkdir()
    (other / "evil.py").write_text(PYTHON.format(marker=str(marker)))
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoTokenizer"), "evil.Net")
    (other / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": names}))
    (other / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Net", None]}}))
    model = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": fill(text, marker),
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    torch.save({"x": Payload(marker)}, folder / "open_clip_pytorch_model.bin")
    for modality in ("image", "text"):
        with pytest.raises((ValueError, TypeError)):
            load_backbone(
                {
                    "_target_": "lightning_transfer.backbones.OpenClipBackbone",
                    "model_name": f"local-dir:{folder}",
                    "modality": modality,
                }
            )


def test_results_of_jobs_are_data(marker, capsys):
    """Names with markup, escapes and paths, in the files that a sweep joins."""
    for number, target in enumerate(
        ("../../marker", "[link=file:///]$\\frac{$\x1b]0;x\x07", "=cmd|' /C calc'!A0\r", "\ud800")
    ):
        folder = marker.with_name("sweep") / str(number)
        folder.mkdir(parents=True)
        rows = [
            {"backbone": f"{target}{i}", "scores": {"logme": i, target: 1.0}, "standard_errors": {}, "parameters": 3 + i,
             "status": "ok", "fingerprint": "", "remarks": [target], "parts": {}, "feature_dim": 3}
            for i in range(2)
        ]  # fmt: skip
        board = {
            "format": 2,
            "rank_by": "logme",
            "lower_is_better": [],
            "info": {"target": target},
            "settings": {},
            "rows": rows,
        }
        (folder / "leaderboard.json").write_text(json.dumps(board))
        bound = {"format": 2, "backbone": target, "reference": target, "target": target, "bound": 0.5}
        bound |= dict.fromkeys(FIGURES, 0.25)
        (folder / "relatedness.json").write_text(json.dumps(bound))
        run = {"format": 2, "overrides": [target], "objective": {target: 0.5}, "direction": "max"}
        (folder / "finetune.json").write_text(json.dumps(run))
    damaged = marker.with_name("sweep") / "9"
    damaged.mkdir()
    for name in ("leaderboard.json", "relatedness.json", "finetune.json"):
        (damaged / name).write_text("{")
        (damaged.with_name("10")).mkdir(exist_ok=True)
        (damaged.with_name("10") / name).write_text('{"format": 2}')
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(marker.with_name("sweep"))}}})
    CompareJobs().on_multirun_end(config)
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07", "\r", "\x9b"}
    assert "[link=file:///]" in shown
    assert shown.count("Left out: ") == 6
    outside = {path.name for path in marker.parent.iterdir()}
    assert outside == {"sweep"}
    for table in marker.with_name("sweep").glob("**/leaderboard.csv"):
        assert "\n=" not in table.read_bytes().decode()
        assert "," + "=" not in table.read_bytes().decode()


def test_a_page_and_a_figure_of_names_that_harm(tmp_path):
    names = ["<script>alert(1)</script>", r"$\frac{$", "\ud800", "\x1b[31m", "=1+1", "../../x"]
    rows = [{"backbone": n, "scores": {"logme": i / 7, r"$\x{$": 1.0}, "standard_errors": {}, "parameters": 10**i,
             "status": "ok", "fingerprint": "", "remarks": [], "parts": {}} for i, n in enumerate(names)]  # fmt: skip
    content = {
        "format": 2,
        "rank_by": "logme",
        "lower_is_better": [],
        "info": {"target": r"$\frac{$"},
        "settings": {},
        "rows": rows,
    }
    (tmp_path / "leaderboard.json").write_text(json.dumps(content))
    board = Leaderboard.load(tmp_path)
    paths = board.save(tmp_path / "out")
    assert set(paths) == {"csv", "json", "png", "html"}
    page = paths["html"].read_text()
    assert page.count("<script") == 1  # its own
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert [row.backbone for row in Leaderboard.load(tmp_path / "out").rows] == names
    assert pd.read_csv(paths["csv"], float_precision="round_trip").logme.tolist() == [i / 7 for i in reversed(range(6))]


def nested(depth: int) -> dict:
    value = {"x": 1}
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize("harm", [{"info": nested(700)}, {"settings": nested(150)}, {"info": {"x": 10**400}}])
def test_a_leaderboard_that_could_not_be_written_again_is_none(tmp_path, harm):
    """It stays as it is, and rows of a new screen are not lost beside it."""
    content = {"format": 2, "rank_by": "logme", "lower_is_better": [], "info": {}, "settings": {}, "rows": []}
    (tmp_path / "leaderboard.json").write_text(json.dumps({**content, **harm}))
    with pytest.raises(ValueError, match=r"leaderboard\.json"):
        Leaderboard.load(tmp_path)
    with pytest.warns(UserWarning, match="is left as it is"):
        paths = add_to_folder(Leaderboard([Row("a", {"logme": 1.0})], settings={"x": 1}), tmp_path)
    assert Leaderboard.load(paths["json"])["a"].score("logme") == 1.0


@pytest.mark.parametrize("value", [10**400, "1", None, [1], {"x": 1}, "NaN", nested(300)])
@pytest.mark.parametrize("key", ["bound", "label_mismatch", "label_map", "reference", "target_class_names"])
def test_results_of_a_job_that_lie_cost_a_line(tmp_path, capsys, value, key):
    good = {
        "format": 2,
        "backbone": "net",
        "reference": "r",
        "target": "t",
        "bound": 0.5,
        **dict.fromkeys(FIGURES, 0.25),
    }
    run = {"format": 2, "overrides": ["a"], "objective": {"x": 0.5}, "direction": "max", "history": {}, "test": {}}
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "relatedness.json").write_text(json.dumps({**good, **({key: value} if job == "1" else {})}))
        (tmp_path / job / "finetune.json").write_text(
            json.dumps({**run, **({"objective": {"x": value}, "history": {"m": value}} if job == "1" else {})})
        )
    CompareJobs().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    with contextlib.suppress(ValueError):  # of which the command line makes a line
        report.run([str(tmp_path)])
    capsys.readouterr()
