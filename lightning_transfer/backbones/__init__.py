"""Pre-trained networks as sources of features, source logits and their cost; imported when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_transfer.backbones.base import Backbone, BackboneOutput, Cost
    from lightning_transfer.backbones.checkpoints import CheckpointBackbone, ProgramBackbone, load_weights
    from lightning_transfer.backbones.efficientnet_lite import EfficientNetLite
    from lightning_transfer.backbones.initialisation import reinitialise, seeded_initialisation
    from lightning_transfer.backbones.layers import LayeredBackbone
    from lightning_transfer.backbones.module import ModuleBackbone
    from lightning_transfer.backbones.open_clip import OpenClipBackbone
    from lightning_transfer.backbones.precomputed import PrecomputedFeatures
    from lightning_transfer.backbones.preprocessing import PictureTransform, Preprocessing
    from lightning_transfer.backbones.registry import (
        check_name,
        expand_names,
        known_backbones,
        list_backbones,
        load_backbone,
    )
    from lightning_transfer.backbones.sentence_transformers import SentenceTransformersBackbone
    from lightning_transfer.backbones.timm import TimmBackbone
    from lightning_transfer.backbones.torchvision import TorchvisionBackbone
    from lightning_transfer.backbones.transformers import SentenceEncoder, TransformersBackbone

#: What each module of the package gives; names of backbones are in :mod:`lightning_transfer.backbones.names`.
_HOMES = {
    "Backbone": "base",
    "BackboneOutput": "base",
    "Cost": "base",
    "CheckpointBackbone": "checkpoints",
    "ProgramBackbone": "checkpoints",
    "load_weights": "checkpoints",
    "EfficientNetLite": "efficientnet_lite",
    "reinitialise": "initialisation",
    "seeded_initialisation": "initialisation",
    "LayeredBackbone": "layers",
    "ModuleBackbone": "module",
    "OpenClipBackbone": "open_clip",
    "PrecomputedFeatures": "precomputed",
    "PictureTransform": "preprocessing",
    "Preprocessing": "preprocessing",
    "check_name": "registry",
    "expand_names": "registry",
    "known_backbones": "registry",
    "list_backbones": "registry",
    "load_backbone": "registry",
    "SentenceTransformersBackbone": "sentence_transformers",
    "TimmBackbone": "timm",
    "TorchvisionBackbone": "torchvision",
    "SentenceEncoder": "transformers",
    "TransformersBackbone": "transformers",
}

__all__ = [
    "Backbone",
    "BackboneOutput",
    "CheckpointBackbone",
    "Cost",
    "EfficientNetLite",
    "LayeredBackbone",
    "ModuleBackbone",
    "OpenClipBackbone",
    "PictureTransform",
    "PrecomputedFeatures",
    "Preprocessing",
    "ProgramBackbone",
    "SentenceEncoder",
    "SentenceTransformersBackbone",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TransformersBackbone",
    "check_name",
    "expand_names",
    "known_backbones",
    "list_backbones",
    "load_backbone",
    "load_weights",
    "reinitialise",
    "seeded_initialisation",
]


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module `lightning_transfer.backbones` has no attribute `{name}`")
    return getattr(importlib.import_module(f"lightning_transfer.backbones.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, those that have not been imported yet included."""
    return sorted({*globals(), *__all__})
