"""Zoo, sources and targets of the study, and how each is trained."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_transfer.backbones import EfficientNetLite, ModuleBackbone, SentenceEncoder
from lightning_transfer.backbones.base import BackboneOutput
from lightning_transfer.backbones.text import TextBackbone
from lightning_transfer.data import Digits, DrawnTriangles, NpzArrays, PhotoPatches, Samples
from lightning_transfer.data.base import TransferDataModule

SIDE = 32
LITE_SIDE = 48
LITE_STAGES = (3, 5)  # of seven, after which an EfficientNet-Lite is cut as well
ARCHITECTURES = {
    "resnet": "test_resnet",
    "efficientnet": "test_efficientnet",
    "vit": "test_vit",
    "convnext": "test_convnext",
    "byobnet": "test_byobnet",
    "mambaout": "test_mambaout",
}
SOURCES = {"photos": 25, "emoji": 25, "emoji_early": 4, "rotation": 25, "digits_0_4": 25, "none": 0}  # epochs
TRAIN = 240  # images of a target
TOPICS = (
    "computers", "drugs", "education", "food", "law", "love", "medicine", "pets", "politics", "science", "sports",
    "work",
)  # fmt: skip
TEXTS = 120  # of training; each is cut at so many tokens:
TOKENS = 24
DEPTHS = (1, 2, 4, 6)  # layers of MiniLM that are kept
RECIPE = {
    "modes": ["full", "head"],
    "max_samples": TRAIN,
    "epochs": 12,
    "learning_rates": [3e-4, 1e-3, 3e-3],
    "seeds": 3,
}


def make_network(architecture: str, num_classes: int, seed: int = 0) -> nn.Module:
    """A network of timm's own tests, with seeded random weights."""
    import timm

    torch.manual_seed(seed)
    options = {"img_size": SIDE, "patch_size": 8} if architecture == "vit" else {}
    return timm.create_model(ARCHITECTURES[architecture], num_classes=num_classes, **options)


def make_source(source: str, emoji: Path) -> TransferDataModule:
    """What networks are trained on before they are transferred."""
    if source == "photos":
        return PhotoPatches(batch_size=64)
    if source == "digits_0_4":
        return Digits(classes=[0, 1, 2, 3, 4], batch_size=64)
    if source.startswith("emoji"):
        return NpzArrays(str(emoji), inputs="google", labels="category", batch_size=64)
    with np.load(emoji) as arrays:
        pictures = torch.from_numpy(arrays["google"]).permute(0, 3, 1, 2)
    turns = torch.arange(len(pictures)) % 4
    turned = torch.stack([picture.rot90(int(turn), (1, 2)) for picture, turn in zip(pictures, turns, strict=True)])
    return Samples((turned, turns), name="rotation", val_fraction=0.1, test_fraction=0.1, batch_size=64)


def make_targets(emoji: Path) -> dict[str, TransferDataModule]:
    """The targets by name; training splits are small, which is when transfer matters."""
    common = {"max_samples": TRAIN, "batch_size": 32}
    return {
        "emoji_other_style": NpzArrays(str(emoji), inputs="twitter", labels="category", **common),
        "digits_5_9": Digits(classes=[5, 6, 7, 8, 9], **common),
        "photos": PhotoPatches(**common),
        "attributes": DrawnTriangles("attributes", samples=500, image_size=SIDE, **common),
        "corners": DrawnTriangles("corners", samples=500, image_size=SIDE, **common),
        "emoji_few_shot": NpzArrays(
            str(emoji), inputs="twitter", labels="category", max_samples=90, batch_size=32, seed=1
        ),
        "emoji_noisy": _noisy(NpzArrays(str(emoji), inputs="twitter", labels="category", seed=2, **common)),
        "emoji_fine": NpzArrays(
            str(emoji), inputs="twitter", labels="subcategory", classes=list(range(0, 98, 4)), batch_size=32
        ),
        "digits_few_shot": Digits(classes=[5, 6, 7, 8, 9], max_samples=50, batch_size=32, seed=1),
        "digits_noisy": _noisy(Digits(classes=[5, 6, 7, 8, 9], seed=2, **common)),
    }


def _noisy(data: TransferDataModule, share: float = 0.3) -> TransferDataModule:
    """A share of the training labels drawn anew; validation and test as they are."""
    data.setup()
    labels = data.train_dataset.truth
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(labels), generator=generator) < share
    labels[wrong] = torch.randint(int(data.num_classes or 2), (int(wrong.sum()),), generator=generator)
    return data


def weights_of(zoo: Path, architecture: str, source: str) -> Path:
    """Where the weights of a network are, and in the file's metadata its accuracy on its source."""
    return zoo / f"{architecture}-{source}.safetensors"


class ShallowLite(EfficientNetLite):
    """The first stages of an EfficientNet-Lite, averaged over the picture."""

    def __init__(self, variant: int, stages: int, pretrained: bool, name: str) -> None:
        super().__init__(variant, pretrained=pretrained, input_size=LITE_SIDE, name=name)
        sizes = [(block._block_args.input_filters, block._block_args.output_filters) for block in self.network._blocks]
        begins = [index for index, (before, after) in enumerate(sizes) if before != after]  # the first block of a stage
        self.network._blocks = self.network._blocks[: begins[stages]]
        self.feature_dim, self.num_source_classes = sizes[begins[stages] - 1][1], None
        del self.network._conv_head, self.network._bn1, self.network._fc

    @property
    def head(self) -> None:
        """None: the classifier is behind the last stage."""
        return None

    def encode(self, inputs: Tensor) -> BackboneOutput:
        """What the last block gives; its projection is linear, without an activation."""
        network = self.network
        maps = network._swish(network._bn0(network._conv_stem(inputs.contiguous(memory_format=torch.channels_last))))
        for block in network._blocks:
            maps = block(maps)
        return BackboneOutput(maps.mean(dim=(2, 3)), None)


def make_zoo(
    zoo: Path, emoji: Path, only: tuple[str, ...] = ("",)
) -> tuple[dict[str, nn.Module], dict[str, dict[str, object]]]:
    """The backbones by name, and what is known about each; those whose names begin as said."""
    backbones: dict[str, nn.Module] = {}
    about: dict[str, dict[str, object]] = {}
    for architecture in ARCHITECTURES:
        for source in SOURCES:
            name, accuracy = f"{architecture}_{source}", None
            if not name.startswith(only):
                continue
            if source == "none":
                network = make_network(architecture, 10)
            else:
                path = weights_of(zoo, architecture, source)
                state = load_file(path)
                with safe_open(path, "pt") as file:
                    accuracy = float(file.metadata()["accuracy"])
                classes = next(value.shape[0] for key, value in reversed(state.items()) if key.endswith("head_bias"))
                network = make_network(architecture, classes)
                network.load_state_dict({key: value for key, value in state.items() if key != "head_bias"})
            backbones[name] = ModuleBackbone(
                network, (3, SIDE, SIDE), head=None if source == "none" else "auto", name=name
            )
            about[name] = {"architecture": architecture, "source": source, "source_accuracy": accuracy}
    for variant in (0, 1, 2):
        for pretrained in (True, False):
            name = f"lite{variant}_{'imagenet' if pretrained else 'none'}"
            if not name.startswith(only):
                continue
            backbones[name] = EfficientNetLite(variant, pretrained=pretrained, input_size=LITE_SIDE)
            about[name] = {"architecture": f"lite{variant}", "source": "imagenet" if pretrained else "none"}
    for variant, stages, pretrained in product((0, 1, 2), LITE_STAGES, (True, False)):
        source = "imagenet" if pretrained else "none"
        name = f"lite{variant}to{stages}_{source}"
        if name.startswith(only):
            backbones[name] = ShallowLite(variant, stages, pretrained, name)
            about[name] = {"architecture": f"lite{variant}to{stages}", "source": source}
    return backbones, about


def make_text_target(folder: Path) -> TransferDataModule:
    """Which file of Debian's ``fortunes`` a saying is from."""
    texts, labels = [], []
    for topic in TOPICS:
        parts = (folder / topic).read_text(encoding="utf-8", errors="replace").split("\n%\n")
        sayings = [" ".join(part.split()) for part in parts if part.strip()][:60]
        texts += sayings
        labels += [topic] * len(sayings)
    return Samples(
        (texts, labels), name="fortunes", val_fraction=0.15, test_fraction=0.35, max_samples=TEXTS, batch_size=32
    )


class WordCounts(TextBackbone):
    """Logarithms of how often each word occurs, hashed into some columns; nothing is learned."""

    max_length = TOKENS

    def __init__(self, columns: int = 1024) -> None:
        super().__init__(
            name="word_counts", feature_dim=columns, num_source_classes=None, input_shape=(columns,), preprocessing=None
        )

    def tokenize(self, texts: list[str]) -> Mapping[str, Tensor]:
        """Counts in the place of token ids."""
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(n_features=self.feature_dim, alternate_sign=False, norm=None)
        return {"input_ids": torch.from_numpy(hashing.transform(texts).toarray()).float()}

    def encode(self, inputs: Mapping[str, Tensor]) -> BackboneOutput:
        """One row a text."""
        return BackboneOutput(inputs["input_ids"].log1p(), None)


def make_text_zoo(only: tuple[str, ...] = ("",)) -> tuple[dict[str, nn.Module], dict[str, dict[str, object]]]:
    """The first layers of MiniLM, pre-trained and random, and word counts, as :func:`make_zoo` does."""
    backbones: dict[str, nn.Module] = {}
    about: dict[str, dict[str, object]] = {}
    for depth in DEPTHS:
        for pretrained in (True, False):
            source = "pretrained" if pretrained else "none"
            name = f"minilm{depth}_{source}"
            if name.startswith(only):
                encoder = SentenceEncoder(name=name, max_length=TOKENS, pretrained=pretrained)
                encoder.network.encoder.layer = encoder.network.encoder.layer[:depth]
                backbones[name] = encoder
                about[name] = {"architecture": f"minilm{depth}", "source": source}
    if "word_counts".startswith(only):
        backbones["word_counts"] = WordCounts()
        about["word_counts"] = {"architecture": "word_counts", "source": "none"}
    return backbones, about
