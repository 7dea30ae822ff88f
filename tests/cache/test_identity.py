"""What data hold is told by their content, wherever it lies."""

from __future__ import annotations

import io
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_transfer.backbones import Backbone, BackboneOutput
from lightning_transfer.cache.files import FileHashes
from lightning_transfer.cache.identity import BackboneIdentity, DataIdentity, NoIdentityError, versions_of
from lightning_transfer.data import HuggingFace, Samples, Shards
from lightning_transfer.inputs import split_batch
from lightning_transfer.passes import ScoringPass

LABELS = [0, 1, 0, 1]


def name_of(data) -> str:
    keys = {"input_key": None, "label_key": None}
    source = ScoringPass(data, keys=keys, transform=SimpleNamespace(wants_originals=True))
    source.setup("predict")
    return DataIdentity(FileHashes()).of(source.predict_dataloader(), source.owner, keys)


def picture(value: int = 0) -> Image.Image:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    pixels[3, 3, 2] += value
    return Image.fromarray(pixels)


def png(value: int = 0) -> bytes:
    stream = io.BytesIO()
    picture(value).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda value: [picture(), picture(value)] * 2,
        lambda value: [png(), png(value)] * 2,
        lambda value: ["a text", f"a text{value}"] * 2,
        lambda value: np.stack([np.asarray(picture()), np.asarray(picture(value))] * 2),
        lambda value: torch.arange(8).reshape(4, 2).float() + value,
        lambda value: [[1.0, 2.0], [3.0, 4.0 + value]] * 2,
    ],
    ids=["pictures", "bytes", "texts", "arrays", "tensors", "numbers"],
)
def test_inputs_in_memory(make):
    names = [name_of(Samples((make(value), labels))) for value, labels in ((0, LABELS), (0, LABELS[::-1]), (1, LABELS))]
    assert names[0] == names[1] != names[2]


def test_files_by_path(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    first = name_of(Samples((paths, LABELS)))
    assert name_of(Samples((paths, LABELS[::-1]))) == first
    paths[2].write_bytes(png(9))
    assert name_of(Samples((paths, LABELS))) != first


def write_shard(path, value: int, labels) -> None:
    with tarfile.open(path, "w") as archive:
        for number, label in enumerate(labels):
            for end, content in (("png", png(value if number == 2 else number)), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{number}.{end}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_shards(tmp_path):
    names = []
    for number, value in enumerate((2, 2, 9)):
        write_shard(tmp_path / f"{number}.tar", value, LABELS)
        names.append(name_of(Shards(tmp_path / f"{number}.tar", val_fraction=0, test_fraction=0)))
    assert names[0] == names[1] != names[2]


def test_data_sets_of_the_library_by_its_own_fingerprint(tmp_path):
    datasets = pytest.importorskip("datasets")
    content = {"text": list("abcd"), "label": LABELS, "other": [1, 1, 0, 0]}
    whole = datasets.Dataset.from_dict(content)
    options = {"val_fraction": 0, "test_fraction": 0}
    first = name_of(HuggingFace(whole, **options))
    assert name_of(HuggingFace(whole, label_key="other", **options)) == first
    changed = datasets.Dataset.from_dict(content | {"text": list("abcx")})
    assert name_of(HuggingFace(changed, **options)) != first
    whole.save_to_disk(str(tmp_path / "saved"))
    saved = [name_of(HuggingFace(tmp_path / "saved", **options)) for _ in range(2)]
    assert saved[0] == saved[1]
    noisy = whole.with_transform(lambda rows: {"text": [str(torch.rand(1))] * len(rows["text"]), "label": [0]})
    with pytest.raises(NoIdentityError, match="different values"):
        name_of(HuggingFace(noisy, **options))


def test_pictures_outside_a_data_set_of_the_library(tmp_path):
    datasets = pytest.importorskip("datasets")
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))

    def read(rows):
        whole = datasets.Dataset.from_dict({"image": list(map(str, paths)), "label": LABELS})
        whole = whole.cast_column("image", datasets.Image())
        return name_of(HuggingFace(whole.select(rows), val_fraction=0, test_fraction=0))

    first = [read([0, 1, 2]), read([0, 1, 3])]
    assert [read([0, 1, 2]), read([0, 1, 3])] == first
    paths[2].write_bytes(png(9))
    assert read([0, 1, 2]) != first[0]
    assert read([0, 1, 3]) == first[1]


def test_hooks_that_may_change_batches_take_the_identity_away():
    class Doubled(Samples):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return {**batch, "inputs": batch["inputs"] * 2}

    with pytest.raises(NoIdentityError, match="`on_after_batch_transfer` may change"):
        name_of(Doubled((torch.eye(4), LABELS)))


class Words(Backbone):
    """Counts letters by a table that is no part of its weights."""

    def __init__(self, letters: str) -> None:
        super().__init__(name="words", feature_dim=2, num_source_classes=None, input_shape=(4,), preprocessing=None)
        self.layer = nn.Linear(4, 2)
        nn.init.ones_(self.layer.weight)
        nn.init.ones_(self.layer.bias)
        self.tokenizer = SimpleNamespace(get_vocab=lambda: {letter: number for number, letter in enumerate(letters)})

    def tokenize(self, texts):
        known = self.tokenizer.get_vocab()
        return {"input_ids": torch.tensor([[known.get(letter, -1) for letter in text[:4].ljust(4)] for text in texts])}

    def encode(self, inputs):
        return BackboneOutput(self.layer(inputs), None)


def test_a_tokeniser_is_part_of_a_backbone():
    parts = [BackboneIdentity(Words(letters)).parts() for letters in ("ab", "ab", "ba", "The ", "Teh ")]
    assert parts[0] == parts[1]
    assert len({part["inputs"] for part in parts}) == 4
    assert len({part["weights"] for part in parts}) == 1


def test_a_network_that_fails_on_trial_has_no_identity():
    class Broken(Words):
        def encode(self, inputs):
            raise KeyError("inside")

    with pytest.raises(NoIdentityError, match="a trial of it gave KeyError"):
        BackboneIdentity(Broken("ab"))


def test_versions_are_those_of_what_is_used(monkeypatch):
    assert versions_of({"torch", "no_such_package"}) == {"torch": torch.__version__}
    parts = BackboneIdentity(Words("ab")).parts()
    assert set(parts["versions"]) == {"torch"}
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert BackboneIdentity(Words("ab")).parts() != parts


def test_batches_without_a_name_of_their_own():
    batches = [(torch.eye(4), torch.tensor(LABELS))]
    assert split_batch(batches[0])[0].shape == (4, 4)
    with pytest.raises(NoIdentityError, match="a stream or an iterable"):
        name_of(batches)
