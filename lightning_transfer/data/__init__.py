"""Datamodules for targets and references."""

from lightning_transfer.data.base import TransferDataModule, TransferDataset
from lightning_transfer.data.digits import Digits
from lightning_transfer.data.drawn import DrawnTriangles
from lightning_transfer.data.hugging_face import HuggingFace
from lightning_transfer.data.idx import EMNIST, KMNIST, MNIST, USPS, FashionMNIST, IDXImages
from lightning_transfer.data.image_folder import ImageFolder
from lightning_transfer.data.images import open_rgb
from lightning_transfer.data.npz import NpzArrays
from lightning_transfer.data.photo_patches import PhotoPatches
from lightning_transfer.data.samples import Samples
from lightning_transfer.data.shards import Shards
from lightning_transfer.data.sources import Batches, as_datamodule
from lightning_transfer.data.table import BundledTable, PictureTable, Table, TextTable

__all__ = [
    "EMNIST",
    "KMNIST",
    "MNIST",
    "USPS",
    "Batches",
    "BundledTable",
    "Digits",
    "DrawnTriangles",
    "FashionMNIST",
    "HuggingFace",
    "IDXImages",
    "ImageFolder",
    "NpzArrays",
    "PhotoPatches",
    "PictureTable",
    "Samples",
    "Shards",
    "Table",
    "TextTable",
    "TransferDataModule",
    "TransferDataset",
    "as_datamodule",
    "open_rgb",
]
