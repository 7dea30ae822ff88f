"""transformers: text and pictures, features and logits are the library's own."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lightning_transfer.backbones import (
    TransformersBackbone,
    load_backbone,
)
from tests.backbones._libraries import (
    CLOSE,
    IMAGES,
    SMALL,
    TEXTS,
    VISION,
    assert_tensors_are_cut_like_pictures,
    save_model,
    save_tokenizer,
)


def _bert(**kwargs):
    from transformers import BertConfig

    return BertConfig(vocab_size=9, **SMALL, **kwargs)


def test_text(tmp_path):
    model = save_model(tmp_path, "BertModel", _bert())
    backbone = TransformersBackbone(tmp_path, max_length=5).eval()
    features, logits = backbone(TEXTS)
    tokens = dict(backbone.tokenize(TEXTS))
    states = model(**tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features[0], states[-1][0].mean(0))
    torch.testing.assert_close(features[1], states[-1][1, :3].mean(0))
    torch.testing.assert_close(backbone(tokens).features, features)
    assert (logits, backbone.name, backbone.feature_dim, backbone.input_shape) == (None, tmp_path.name, 16, (5,))
    for layers, expected in (("mean", torch.stack(states[1:]).mean(0)), (0, states[0]), (-1, states[-1])):
        chosen = TransformersBackbone(tmp_path, layers=layers, pooling="cls").eval()
        torch.testing.assert_close(chosen(TEXTS).features, expected[:, 0])


def _gpt2():
    from transformers import GPT2Config

    return GPT2Config(vocab_size=9, n_embd=16, n_layer=2, n_head=2, n_positions=32)


@pytest.mark.parametrize("class_name", ["GPT2Model", "GPT2LMHeadModel"])
def test_causal_language_models_use_the_last_token(tmp_path, class_name):
    model = save_model(tmp_path, class_name, _gpt2(), padding=False, marks=False)
    backbone = TransformersBackbone(tmp_path).eval()
    alone = [getattr(model, "transformer", model)(**backbone.tokenize([text])).last_hidden_state for text in TEXTS]
    torch.testing.assert_close(backbone(TEXTS).features, torch.cat([state[:, -1] for state in alone]), **CLOSE)
    assert backbone.max_length == 32


def test_a_sequence_classifier_gives_its_logits(tmp_path):
    model = save_model(tmp_path, "GPT2ForSequenceClassification", _gpt2(), padding=False, marks=False)
    backbone = TransformersBackbone(tmp_path).eval()
    features, logits = backbone(TEXTS)
    torch.testing.assert_close(backbone.head(features), logits)
    torch.testing.assert_close(logits[:1], model(**backbone.tokenize(TEXTS[:1])).logits, **CLOSE)


def test_networks_get_what_they_have_a_parameter_for(tmp_path, monkeypatch):
    model = save_model(tmp_path, "GPT2Model", _gpt2(), padding=False, marks=False)
    whole = type(model).forward

    def forward(self, input_ids=None, attention_mask=None, output_hidden_states=None):
        return whole(self, input_ids, attention_mask=attention_mask, output_hidden_states=output_hidden_states)

    backbone = TransformersBackbone(tmp_path).eval()
    tokens = dict(backbone.tokenize(TEXTS))
    expected = backbone(tokens).features
    monkeypatch.setattr(type(model), "forward", forward)
    given = backbone({**tokens, "token_type_ids": torch.zeros_like(tokens["input_ids"])})
    torch.testing.assert_close(given.features, expected)


def test_of_an_encoder_decoder_the_encoder_is_taken(tmp_path):
    from transformers import T5Config

    config = T5Config(vocab_size=9, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    model = save_model(tmp_path, "T5ForConditionalGeneration", config)
    backbone = TransformersBackbone(tmp_path).eval()
    expected = model.encoder(**backbone.tokenize(TEXTS[:1])).last_hidden_state.mean(1)
    torch.testing.assert_close(backbone(TEXTS).features[:1], expected, **CLOSE)


def test_both_towers_of_clip(tmp_path):
    from transformers import CLIPConfig

    text = {"vocab_size": 9, "max_position_embeddings": 77, "eos_token_id": 2, **SMALL}
    model = save_model(tmp_path, "CLIPModel", CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))
    images, texts = (TransformersBackbone(tmp_path, modality=modality).eval() for modality in ("auto", "text"))
    expected = model.get_image_features(**images.preprocess(IMAGES))
    torch.testing.assert_close(images(IMAGES).features, getattr(expected, "pooler_output", expected))
    expected = model.get_text_features(**texts.tokenize(TEXTS))
    torch.testing.assert_close(texts(TEXTS).features, getattr(expected, "pooler_output", expected))
    assert (texts.max_length, texts.feature_dim, images.input_shape) == (77, 8, (3, 32, 32))
    with pytest.raises(ValueError, match="two towers"):
        TransformersBackbone(tmp_path, layers="mean")


def test_a_masked_autoencoder_sees_the_whole_picture(tmp_path):
    from transformers import ViTMAEConfig

    model = save_model(tmp_path, "ViTMAEForPreTraining", ViTMAEConfig(**VISION, decoder_hidden_size=16))
    backbone = TransformersBackbone(tmp_path, pooling="none").eval()
    tokens = backbone(IMAGES).features
    assert tokens.shape == (3, 17, 16)
    assert torch.equal(tokens, backbone(IMAGES).features)
    model.config.mask_ratio = model.vit.embeddings.config.mask_ratio = 0.0
    order = torch.arange(16.0).expand(3, -1)
    expected = model.vit(**backbone.preprocess(IMAGES), noise=order).last_hidden_state
    torch.testing.assert_close(tokens, expected)


@pytest.mark.parametrize(
    ("class_name", "channels"), [("ViTForImageClassification", 3), ("ViTForImageClassification", 1)]
)
def test_image_classifiers_give_logits(tmp_path, class_name, channels):
    from transformers import ViTConfig

    model = save_model(tmp_path, class_name, ViTConfig(**VISION, num_labels=4, num_channels=channels))
    backbone = TransformersBackbone(tmp_path).eval()
    features, logits = backbone(IMAGES)
    torch.testing.assert_close(logits, model(**backbone.preprocess(IMAGES)).logits)
    torch.testing.assert_close(backbone.head(features), logits)
    assert (features.shape, backbone.input_shape) == ((3, 16), (channels, 32, 32))
    assert TransformersBackbone(tmp_path, pooling="mean").head is None


def test_images_without_a_class_token_are_averaged(tmp_path):
    from transformers import SwinConfig

    config = SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4)
    model = save_model(tmp_path, "SwinForImageClassification", config)
    backbone = TransformersBackbone(tmp_path).eval()
    features, logits = backbone(IMAGES)
    torch.testing.assert_close(backbone.head(features), logits)
    torch.testing.assert_close(logits, model(**backbone.preprocess(IMAGES)).logits)


@pytest.mark.parametrize(
    ("config", "class_name", "message"),
    [
        ("Wav2Vec2Config", "Wav2Vec2Model", "takes `input_values`, neither pictures nor text"),
        ("ASTConfig", "ASTForAudioClassification", "takes `input_values`, neither pictures nor text"),
        ("VideoMAEConfig", "VideoMAEModel", "cannot be used as a backbone: not enough values"),
    ],
)
def test_sound_and_video_are_refused_in_one_line(tmp_path, config, class_name, message):
    import transformers

    save_config = getattr(transformers, config)(**SMALL, architectures=[class_name])
    save_config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        TransformersBackbone(tmp_path, pretrained=False)
    assert "\n" not in str(caught.value)


def test_a_network_that_draws_at_random_is_refused(tmp_path):
    from transformers import ReformerConfig

    config = ReformerConfig(
        vocab_size=9, hidden_size=16, attention_head_size=8, num_attention_heads=2, feed_forward_size=32,
        axial_pos_embds=False, attn_layers=["lsh"], lsh_attn_chunk_length=4, num_buckets=4, is_decoder=False,
        max_position_embeddings=64, architectures=["ReformerModel"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="different values for the same inputs in two passes"):
        TransformersBackbone(tmp_path, pretrained=False, max_length=64)


def test_weights_that_the_files_lack_are_not_made_up(tmp_path):
    save_model(tmp_path, "BertModel", _bert())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] + 1}))
    with pytest.raises(ValueError, match=r"its files lack \d+ of the weights .* such as encoder\.layer"):
        TransformersBackbone(tmp_path)
    assert TransformersBackbone(tmp_path, pretrained=False).name.endswith("_random")


def test_the_control_reads_no_weights(tmp_path):
    _bert(architectures=["BertModel"]).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    backbones = [load_backbone(f"transformers/{tmp_path}", pretrained=False, seed=2) for _ in range(2)]
    assert torch.equal(*(next(backbone.parameters()) for backbone in backbones))
    assert backbones[0].name == f"{tmp_path.name}_random"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"layers": "first"}, "layers"), ({"layers": 9}, "layers"), ({"modality": "sound"}, "modality"),
     ({"modality": "image"}, "to be 'text'"), ({"trust_remote_code": True}, "never run")],
)  # fmt: skip
def test_bad_choices_are_refused(tmp_path, arguments, message):
    _bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=message):
        TransformersBackbone(tmp_path, pretrained=False, **arguments)


def test_weights_that_are_not_at_hand_cost_one_line():
    with pytest.raises(ValueError, match=r"Cannot build `hf/google/absent`.*pretrained=False") as caught:
        load_backbone("transformers/google/absent", local_files_only=True)
    assert "\n" not in str(caught.value)


def test_the_image_processor_of_a_transformers_model(tmp_path):
    from transformers import AutoImageProcessor, CLIPImageProcessor, ViTConfig

    save_model(tmp_path, "ViTModel", ViTConfig(**VISION))
    square = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size=square).save_pretrained(tmp_path)
    backbone = TransformersBackbone(tmp_path)
    picture = Image.effect_noise((50, 70), 60).convert("RGB")
    own = AutoImageProcessor.from_pretrained(tmp_path)(images=picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(backbone.transform(picture), own, rtol=0, atol=1e-5)
    assert (backbone.preprocessing.crop, backbone.preprocessing.size) == (0.8, (32, 32))
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(tmp_path)
    assert_tensors_are_cut_like_pictures(TransformersBackbone(tmp_path))


@pytest.mark.parametrize(("side", "share"), [(32, 0.8), (384, 1.0)])
def test_an_image_processor_that_cuts_off_a_share(tmp_path, side, share):
    from transformers import ConvNextConfig, ConvNextImageProcessor

    save_model(tmp_path, "ConvNextModel", ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, image_size=side))
    ConvNextImageProcessor(size={"shortest_edge": side}, crop_pct=0.8).save_pretrained(tmp_path)
    backbone = TransformersBackbone(tmp_path)
    assert backbone.preprocessing.crop == share
    assert_tensors_are_cut_like_pictures(backbone)
