"""Both towers of open_clip."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image

from lightning_transfer.backbones import (
    load_backbone,
)
from tests.backbones._libraries import IMAGES, TEXTS, assert_tensors_are_cut_like_pictures

pytestmark = pytest.mark.usefixtures("rng_is_left_alone")


@pytest.fixture
def open_clip(tmp_path, monkeypatch):
    library = pytest.importorskip("open_clip")
    factory = sys.modules["open_clip.factory"]
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8}
    text = {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    library.add_model_config(tmp_path / "tiny-clip.json")
    return library


def test_both_towers_of_open_clip(open_clip):
    state = torch.get_rng_state()
    images, texts = (
        load_backbone("open_clip/tiny-clip", pretrained=False, modality=modality).eval()
        for modality in ("image", "text")
    )
    assert_tensors_are_cut_like_pictures(images)
    torch.testing.assert_close(images(IMAGES).features, images.network.encode_image(images.preprocess(IMAGES)))
    ids = open_clip.get_tokenizer("tiny-clip")(TEXTS)
    torch.testing.assert_close(texts(TEXTS).features, texts.network.encode_text(ids))
    assert (images.input_shape, texts.max_length, images.feature_dim) == ((3, 32, 32), 12, 16)
    picture = Image.effect_noise((50, 70), 60).convert("RGB")
    own = open_clip.create_model_and_transforms("tiny-clip", load_weights=False)[2]
    torch.set_rng_state(state)
    torch.testing.assert_close(images.transform(picture), own(picture), rtol=0, atol=1e-5)


def test_open_clip_without_weights(open_clip):
    with pytest.raises(ValueError, match=r"`model_name` to be a model of open_clip, .*; near: tiny-clip"):
        load_backbone("open_clip/tiny-clap")
    with pytest.raises(ValueError, match=r"`weights` to be one of \['openai'"):
        load_backbone("open_clip/RN50")
