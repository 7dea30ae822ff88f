"""Pre-trained networks as sources of features, source logits and their cost."""

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
