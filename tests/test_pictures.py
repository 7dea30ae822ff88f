"""Pictures reach a network as its own library prepares them, whatever they come in."""

import pickle

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_transfer import extract, screen
from lightning_transfer.backbones import EfficientNetLite, ModuleBackbone, TimmBackbone, TorchvisionBackbone
from lightning_transfer.data import ImageFolder, as_datamodule, open_rgb
from lightning_transfer.pictures import Prepared, PreparingCollate, collate_pictures, prepare_pictures
from tests._pictures import draw_pictures


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return draw_pictures(root / "a") + draw_pictures(root / "b")


def _timm(name, **kwargs):
    from timm.data import create_transform, resolve_model_data_config

    backbone = TimmBackbone(name, pretrained=False, **kwargs).eval()
    return backbone, create_transform(**resolve_model_data_config(backbone.network))


def _torchvision(name):
    from torchvision import models

    backbone = TorchvisionBackbone(name, pretrained=False).eval()
    return backbone, models.get_model_weights(name).DEFAULT.transforms()


CASES = {
    "timm": lambda: _timm("test_resnet"),
    "timm, squashed": lambda: _timm("test_vit", pretrained_cfg_overlay={"crop_mode": "squash", "crop_pct": 1.0}),
    "timm, bordered": lambda: _timm("test_convnext", pretrained_cfg_overlay={"crop_mode": "border", "crop_pct": 0.9}),
    "torchvision": lambda: _torchvision("shufflenet_v2_x0_5"),
}


@pytest.mark.parametrize("case", CASES)
def test_features_of_a_folder_are_those_of_the_librarys_own_transform(files, case):
    backbone, transform = CASES[case]()
    prepared = torch.stack([transform(open_rgb(file)) for file in files])
    for file, expected in zip(files, prepared, strict=True):
        torch.testing.assert_close(backbone.transform(file), expected, rtol=0, atol=1e-5)
    data = ImageFolder(
        files[0].parents[1], val_fraction=0, test_fraction=0, batch_size=5, in_memory=case == "torchvision"
    )
    with torch.no_grad():
        features, logits = backbone.encode(prepared)
    kept = extract(backbone, data, keep=("features", "source_outputs", "labels")).kept
    torch.testing.assert_close(kept["features"], features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept["source_outputs"], logits, rtol=1e-4, atol=1e-5)
    assert kept["labels"].tolist() == [0] * 9 + [1] * 9
    plain = next(file for file in files if file.name == "plain.png")
    torch.testing.assert_close(backbone.transform(plain), transform(Image.open(plain)), rtol=0, atol=1e-5)


class Pictures(Dataset):
    def __init__(self, files, structure):
        self.files, self.structure = files, structure

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.structure(open_rgb(self.files[index]), index % 2)


class Stream(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return (self.dataset[i] for i in range(len(self.dataset)))


def _own_collate(samples):
    return {"image": [sample[0] for sample in samples], "label": torch.tensor([sample[1] for sample in samples])}


def _pair(picture, label):
    return picture, label


def _dict(picture, label):
    return {"image": picture, "label": label, "id": f"picture {label}"}


@pytest.mark.parametrize(
    "make",
    [
        lambda files: DataLoader(Pictures(files, _pair), batch_size=4),
        lambda files: DataLoader(Pictures(files, _dict), batch_size=4, num_workers=1),
        lambda files: DataLoader(Pictures(files, _pair), batch_size=4, collate_fn=_own_collate),
        lambda files: DataLoader(Stream(Pictures(files, _pair)), batch_size=4),
        lambda files: [([open_rgb(file) for file in files], torch.tensor([0, 1] * 9))],
    ],
)
def test_pictures_of_any_loader_are_prepared(files, make):
    backbone = EfficientNetLite(0, pretrained=False, input_size=32).eval()
    with torch.no_grad():
        expected = backbone.encode(torch.stack([backbone.transform(file) for file in files[:6]])).features
    kept = extract(backbone, make(files), keep=("features", "labels"), max_samples=18).kept
    torch.testing.assert_close(kept["features"][:6], expected, rtol=1e-4, atol=1e-5)
    assert kept["labels"].tolist() == [0, 1] * 9


def test_the_first_samples_of_a_stream_of_pictures(files):
    backbone = EfficientNetLite(0, pretrained=False, input_size=32)
    pictures = [open_rgb(file) for file in files]
    kept = extract(backbone, [pictures[:3], pictures[3:6]], keep=("features",), max_samples=4).kept
    assert kept["features"].shape == (4, 1280)
    stream = DataLoader(Stream(Pictures(files, _pair)), batch_size=3)
    assert extract(backbone, stream, max_samples=4).num_samples == 4


def test_a_backbone_takes_a_list_of_pictures(files):
    backbone = EfficientNetLite(0, pretrained=False, input_size=32).eval()
    pictures = [open_rgb(file) for file in files[:2]]
    prepared = prepare_pictures(pictures, backbone.transform)
    assert isinstance(prepared, Prepared)
    assert torch.equal(backbone(pictures).features, backbone(prepared).features)
    assert backbone.transform(files[0].read_bytes()).shape == (3, 32, 32)


def test_a_module_takes_a_transform_of_its_own(files):
    def flip(picture):
        return torch.tensor(picture.getpixel((0, 0))) / 255

    network = ModuleBackbone(nn.Identity(), (3,), head=None, transform=flip)
    kept = extract(network, ImageFolder(files[0].parents[1], val_fraction=0, test_fraction=0), keep=("features",)).kept
    torch.testing.assert_close(kept["features"], torch.stack([flip(open_rgb(file)) for file in files]))


def test_without_a_transform_the_folders_own_squares_are_taken(files):
    data = ImageFolder(files[0].parents[1], image_size=8, val_fraction=0, test_fraction=0)
    pixels = ModuleBackbone(nn.Flatten(), (3, 8, 8), head=None)
    kept = extract(pixels, data, keep=("features",)).kept
    torch.testing.assert_close(kept["features"][0], data.train_dataset[0]["inputs"].flatten() / 255)
    with pytest.raises(ValueError, match="has no transform for pictures"):
        ModuleBackbone(nn.Identity(), (3,), head=None).transform(files[0])


def test_the_transform_travels_to_workers_without_the_network(files):
    backbone = TimmBackbone("test_resnet", pretrained=False)
    sent = pickle.dumps(PreparingCollate(collate_pictures, backbone.transform))
    assert len(sent) < 5000
    again = pickle.loads(sent).transform
    assert torch.equal(again(files[0]), backbone.transform(files[0]))


def test_one_channel(files):
    backbone = TimmBackbone("test_resnet", pretrained=False, in_chans=1)
    grey = backbone.transform(files[0])
    assert grey.shape == (1, 160, 160)


def test_inputs_of_different_shapes_are_refused(files):
    with pytest.raises(ValueError, match="inputs of one shape"):
        prepare_pictures([open_rgb(file) for file in files], lambda picture: torch.zeros(picture.size))


@pytest.mark.parametrize("streamed", [False, True])
def test_pictures_of_a_hugging_face_data_set(files, streamed):
    datasets = pytest.importorskip("datasets")
    backbone = EfficientNetLite(0, pretrained=False, input_size=32).eval()
    pictures = [open_rgb(file) for file in files]
    data = datasets.Dataset.from_dict({"photo": pictures, "kind": [0, 1] * 9})
    data = data.cast_column("photo", datasets.Image())
    keys = {"input_key": "photo", "label_key": "kind"}
    source = as_datamodule(data.to_iterable_dataset() if streamed else data, **keys)
    kept = extract(backbone, source, keep=("features",), **(keys if streamed else {})).kept
    expected = torch.stack([backbone.transform(file) for file in files])
    with torch.no_grad():
        torch.testing.assert_close(kept["features"], backbone.encode(expected).features, rtol=1e-4, atol=1e-5)
    if not streamed:
        board = screen({"lite": backbone}, data, "logme", **keys)
        assert not board["lite"].failed


TORCHVISION = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "squeezenet1_1", "swin_t",
    "swin_v2_t", "vgg11", "vit_b_32",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", TORCHVISION)
def test_many_torchvision_networks(files, name):
    backbone, transform = _torchvision(name)
    prepared = torch.stack([transform(open_rgb(file)) for file in files[:4]])
    with torch.no_grad():
        features, logits = backbone.encode(prepared)
        own = backbone.module(prepared)
    torch.testing.assert_close(features if logits is None else logits, own, rtol=1e-4, atol=1e-5)
    loader = DataLoader(Pictures(files[:4], _pair), batch_size=2)
    kept = extract(backbone, loader, keep=("features",)).kept
    torch.testing.assert_close(kept["features"], features, rtol=1e-4, atol=1e-5)
