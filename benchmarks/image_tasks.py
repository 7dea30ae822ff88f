"""Small image tasks, and thirteen encoders of them, for the benchmarks of the bound.

Collections: ``google`` and ``twitter``, 1906 emoji in two drawing styles, from ``emoji64.npz`` (arrays of these names
of shape (1906, 64, 64, 3) uint8, ``category`` and ``subcategory`` int64), made from version 16 of the npm packages
``emoji-datasource-google`` and ``emoji-datasource-twitter``; ``garments``, the first 2000 training images of
Fashion-MNIST (Debian's dataset-fashion-mnist); ``digits`` of scikit-learn; ``patches``, 800 photo patches that come
with this package.

Encoders: EfficientNet-Lite 0 to 2 at 64 pixels with ImageNet and random weights, two inner layers of the former, pixels
averaged to 8 x 8.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightning_transfer.backbones import EfficientNetLite
from lightning_transfer.data import PhotoPatches

FASHION = Path("/usr/share/datasets/fashion-mnist")
SIZE = 64
_GARMENTS = 2000
_PATCHES = 40  # of each picture
Features = dict[str, dict[str, Tensor]]


def read_idx(name: str, count: int) -> np.ndarray:
    """The first entries of a file of Debian's dataset-fashion-mnist."""
    raw = gzip.decompress((FASHION / name).read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)[:count]


def load_labels(emoji: Path) -> dict[str, Tensor]:
    """Classes by task: ``category``, ``subcategory``, ``garments``, ``digits``, ``patches``."""
    from sklearn.datasets import load_digits

    data = np.load(emoji, allow_pickle=False)
    return {
        "category": torch.from_numpy(data["category"]),
        "subcategory": torch.from_numpy(data["subcategory"]),
        "garments": torch.from_numpy(read_idx("train-labels-idx1-ubyte.gz", _GARMENTS).astype(np.int64)),
        "digits": torch.from_numpy(load_digits().target.astype(np.int64)),
        "patches": torch.tensor([int(sample["labels"]) for sample in patches().train_dataset]),
    }


def patches() -> PhotoPatches:
    """Photo patches; those of one picture may overlap."""
    return PhotoPatches(train_patches=_PATCHES, val_patches=0, test_patches=0)


def load_images(emoji: Path, names: list[str]) -> dict[str, Tensor]:
    """Collections as uint8 of shape ``(n, 3, 64, 64)``."""
    from sklearn.datasets import load_digits

    def grey(array: np.ndarray) -> Tensor:
        pictures = torch.from_numpy(array.astype(np.float32))[:, None]
        sized = nn.functional.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)
        return sized.round().clamp(0, 255).byte().expand(-1, 3, -1, -1)

    def coloured(style: str) -> Tensor:
        return torch.from_numpy(np.load(emoji, allow_pickle=False)[style]).permute(0, 3, 1, 2)

    def natural() -> Tensor:
        stacked = torch.stack([torch.as_tensor(sample["inputs"]) for sample in patches().train_dataset]).float()
        sized = nn.functional.interpolate(stacked, (SIZE, SIZE), mode="bilinear", antialias=True)
        return sized.round().clamp(0, 255).byte()

    makers: dict[str, Callable[[], Tensor]] = {
        "google": partial(coloured, "google"),
        "twitter": partial(coloured, "twitter"),
        "garments": lambda: grey(read_idx("train-images-idx3-ubyte.gz", _GARMENTS)),
        "digits": lambda: grey(load_digits().images * (255 / 16)),
        "patches": natural,
    }
    return {name: makers[name]() for name in names}


def encode(emoji: Path, cache: Path | None) -> Features:
    """Features by encoder and collection; what a cache holds is not computed again."""
    found: Features = {}
    if cache is not None and cache.exists():
        stored = np.load(cache, allow_pickle=False)
        for key in stored.files:
            encoder, _, collection = key.rpartition("/")
            found.setdefault(encoder, {})[collection] = torch.from_numpy(stored[key])
    known = set(found.get("lite2_random", ()))
    wanted = [name for name in ("google", "twitter", "garments", "digits", "patches") if name not in known]
    if not wanted:
        return found
    images = load_images(emoji, wanted)
    for name, pictures in images.items():
        found.setdefault("pixels", {})[name] = nn.functional.avg_pool2d(pictures.float(), 8).flatten(1)
    for variant in range(3):
        for pretrained in (True, False):
            for name, pictures in images.items():
                for encoder, features in layers_of(variant, pretrained, pictures).items():
                    found.setdefault(encoder, {})[name] = features
    if cache is not None:
        flat = {f"{encoder}/{name}": x.numpy() for encoder, each in found.items() for name, x in each.items()}
        np.savez(cache, **flat)
    return found


def layers_of(variant: int, pretrained: bool, pictures: Tensor) -> dict[str, Tensor]:
    """Features of one network, and of two of its layers where it is trained (means over positions)."""
    backbone = EfficientNetLite(variant, pretrained=pretrained, input_size=SIZE).eval()
    name = f"lite{variant}" + ("" if pretrained else "_random")
    caught: dict[str, Tensor] = {}

    def catch(key: str, _: nn.Module, __: object, output: Tensor) -> None:
        caught[key] = output.mean((2, 3))

    dense = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1]
    for share in (0.4, 0.75) if pretrained else ():
        key = f"{name}_layer{share:.0%}".rstrip("%")
        dense[int(share * len(dense))].register_forward_hook(partial(catch, key))
    parts: dict[str, list[Tensor]] = {}
    for chunk in pictures.split(64):
        with torch.no_grad():
            features, _ = backbone(chunk)
        for key, values in {name: features, **caught}.items():
            parts.setdefault(key, []).append(values.clone())
    return {key: torch.cat(values) for key, values in parts.items()}


def disjoint_rows(labels: Tensor, num_reference: int, num_target: int, fewest: int) -> tuple[Tensor, Tensor]:
    """Rows of reference and target without a common one, of classes with enough samples in both."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    reference, target = order[:num_reference], order[num_reference : num_reference + num_target]
    size = int(labels.max()) + 1
    counts = [torch.bincount(labels[rows], minlength=size) for rows in (reference, target)]
    kept = ((counts[0] >= min(fewest, 4)) & (counts[1] >= fewest)).nonzero()[:, 0]
    return reference[torch.isin(labels[reference], kept)], target[torch.isin(labels[target], kept)]
