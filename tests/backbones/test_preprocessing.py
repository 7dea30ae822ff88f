import pytest
import torch
from torch.nn import functional

from lightning_transfer.backbones import Preprocessing


def test_integer_and_floating_images_mean_the_same():
    images = torch.randint(0, 256, (2, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepare = Preprocessing(size=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), interpolation="bicubic")
    torch.testing.assert_close(prepare(images), prepare(images / 255), rtol=1e-5, atol=1e-5)


def test_values_are_shifted_and_scaled():
    out = Preprocessing(mean=(127 / 255,), std=(128 / 255,))(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    torch.testing.assert_close(out, torch.ones(1, 3, 4, 4))


def test_grey_images_are_repeated():
    grey = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepare = Preprocessing(size=(16, 16))
    assert torch.equal(prepare(grey), prepare(grey.expand(-1, 3, -1, -1)))


def test_one_channel_takes_the_average_moments_and_the_luma_of_colours():
    prepare = Preprocessing(channels=1, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    grey = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prepare(grey), (grey - 0.5) / 0.3)
    colours = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    luma = (colours * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(prepare(colours), (luma - 0.5) / 0.3)


def test_resizing_smooths_before_shrinking():
    stripes = torch.zeros(1, 1, 8, 8)
    stripes[..., ::2] = 1.0
    out = Preprocessing(size=(2, 2), channels=1)(stripes)
    plain = functional.interpolate(stripes, (2, 2), mode="bilinear", antialias=True)
    assert torch.equal(out, plain)
    assert float((out - 0.5).abs().max()) < 0.2  # without smoothing a stripe would survive


def test_cubic_interpolation_stays_in_the_value_range():
    edge = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    out = Preprocessing(size=(32, 32), channels=1, interpolation="bicubic")(edge)
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1


def test_crop_keeps_the_centre():
    image = torch.zeros(1, 1, 8, 12)
    image[..., 2:6, 4:8] = 1.0
    assert torch.equal(Preprocessing(channels=1, crop=0.5)(image), torch.ones(1, 1, 4, 4))


def test_nearest_keeps_values():
    out = Preprocessing(size=(4, 4), channels=1, interpolation="nearest")(torch.eye(2).view(1, 1, 2, 2))
    assert set(out.unique().tolist()) == {0.0, 1.0}


def test_input_is_left_alone():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    Preprocessing(mean=(0.5,), std=(0.5,))(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), "shape"),
        ([1, 2], "list"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
        (torch.zeros(1, 4, 8, 8), "1 or 3 channels"),
        (torch.full((1, 3, 8, 8), 7.0), r"lie in \[0, 1\]"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing()(images)


@pytest.mark.parametrize(
    "arguments",
    [
        {"std": (0.0,)},
        {"mean": (0.1, 0.2)},
        {"mean": (0.1, 0.2), "std": (1.0, 1.0)},
        {"interpolation": "cubic"},
        {"crop": 0.0},
        {"crop": 1.5},
    ],
)
def test_bad_settings_are_refused(arguments):
    with pytest.raises(ValueError, match="Expected argument"):
        Preprocessing(**arguments)
