"""Texts and tokens as inputs."""

from __future__ import annotations

import pytest
import torch

from lightning_transfer.backbones import (
    TransformersBackbone,
)
from tests.backbones._libraries import SMALL, save_model, save_tokenizer


def _bert(**kwargs):
    from transformers import BertConfig

    return BertConfig(vocab_size=9, **SMALL, **kwargs)


@pytest.mark.parametrize("class_name", ["GPT2Model", "T5EncoderModel", "BertModel"])
def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path, class_name):
    import transformers

    small = {"T5EncoderModel": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}}
    config = getattr(transformers, class_name.replace("EncoderModel", "Model").replace("Model", "Config"))
    options = small.get(class_name, {**SMALL, "n_embd": 16, "n_layer": 1, "n_head": 2})
    save_model(tmp_path, class_name, config(vocab_size=120, **options))
    for file in tmp_path.glob("*token*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"^There is no tokenizer in .*: add its files \(`tokenizer.json` or"):
        TransformersBackbone(tmp_path)


def test_text_is_cut_at_the_positions_that_there_are(tmp_path):
    from transformers import RobertaConfig

    save_model(tmp_path, "RobertaModel", RobertaConfig(vocab_size=9, max_position_embeddings=12, **SMALL))
    backbone = TransformersBackbone(tmp_path)
    assert backbone(["word " * 50]).features.shape == (1, 16)
    ids = torch.ones(1, backbone.max_length + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"at most {backbone.max_length}.* but got {backbone.max_length + 1}"):
        backbone({"input_ids": ids})


def test_bad_text_is_refused(tmp_path):
    _bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="list of strings"):
        TransformersBackbone(tmp_path, pretrained=False)("one string")
