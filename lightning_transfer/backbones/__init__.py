"""Pre-trained networks as sources of features, source logits and their cost."""

from lightning_transfer.backbones.base import Backbone, BackboneOutput, Cost
from lightning_transfer.backbones.checkpoints import CheckpointBackbone, ProgramBackbone, load_weights
from lightning_transfer.backbones.efficientnet_lite import EfficientNetLite
from lightning_transfer.backbones.initialisation import reinitialise, seeded_initialisation
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.preprocessing import Preprocessing
from lightning_transfer.backbones.registry import known_backbones, load_backbone
from lightning_transfer.backbones.timm import TimmBackbone
from lightning_transfer.backbones.torchvision import TorchvisionBackbone
from lightning_transfer.backbones.transformers import SentenceEncoder, TransformersBackbone

__all__ = [
    "Backbone",
    "BackboneOutput",
    "CheckpointBackbone",
    "Cost",
    "EfficientNetLite",
    "ModuleBackbone",
    "Preprocessing",
    "ProgramBackbone",
    "SentenceEncoder",
    "TimmBackbone",
    "TorchvisionBackbone",
    "TransformersBackbone",
    "known_backbones",
    "load_backbone",
    "load_weights",
    "reinitialise",
    "seeded_initialisation",
]
