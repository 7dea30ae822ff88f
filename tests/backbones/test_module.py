import copy
import pickle

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_transfer.backbones import ModuleBackbone, Preprocessing
from tests.backbones._networks import Net, Tokens


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.example_input_array = torch.zeros(1, 3, 16, 16)

    def forward(self, x):
        return self.net(x).softmax(dim=1)


IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_weights_that_are_nowhere_are_refused():
    with pytest.raises(ValueError, match="its weights are on the device `meta`"):
        ModuleBackbone(nn.Linear(4, 2, device="meta"), input_shape=(4,), head=None)


def test_the_last_linear_layer_is_the_head_by_default():
    backbone = ModuleBackbone(Net(), (3, 16, 16)).eval()
    features, logits = backbone(IMAGES)
    assert (backbone.feature_dim, backbone.num_source_classes, backbone.name) == (6, 4, "net")
    torch.testing.assert_close(backbone.head(features), logits)
    torch.testing.assert_close(backbone.module(IMAGES / 255), logits)


def test_a_lightning_module_with_softmax_gives_logits():
    lit = Lit()
    backbone = ModuleBackbone(lit).eval()
    features, logits = backbone(IMAGES)
    torch.testing.assert_close(logits.softmax(dim=1), lit(IMAGES / 255))
    assert backbone.input_shape == (3, 16, 16)
    assert features.shape == (3, 6)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"layer": "body"}, (3, 6)),
        ({"layer": "body", "capture": "input"}, (3, 3)),
        ({"layer": "body", "pooling": "none"}, (3, 6, 14, 14)),
        ({"layer": "body.0", "pooling": "flatten"}, (3, 6 * 14 * 14)),
        ({"head": None}, (3, 4)),
        ({"head": "classifier"}, (3, 6)),
    ],
)
def test_layer_and_pooling_are_chosen_by_name(arguments, shape):
    backbone = ModuleBackbone(Net(), (3, 16, 16), **arguments).eval()
    features, logits = backbone(IMAGES)
    assert features.shape == shape
    assert (logits is None) == (arguments.get("head", "") is None)
    assert (backbone.head is None) == ("layer" in arguments or ("head" in arguments and arguments["head"] is None))


def test_vectors_pass():
    backbone = ModuleBackbone(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (4,))
    features, logits = backbone(torch.ones(3, 4, dtype=torch.float64))
    assert (features.shape, logits.shape, features.dtype) == ((3, 8), (3, 2), torch.float32)


def test_it_can_be_copied_pickled_and_trained():
    backbone = ModuleBackbone(Net(), (3, 16, 16)).eval()
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin(IMAGES).features, backbone(IMAGES).features)
    backbone.train()(IMAGES).features.sum().backward()
    assert backbone.module.body[0].weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "neck"}, "`layer` to be a layer"),
        ({"module": "resnet"}, "`module` to be a torch.nn.Module, but got 'resnet'"),
        ({"head": "neck"}, "`head` to be a layer"),
        ({"capture": "both"}, "`capture`"),
        ({"pooling": "max"}, "`pooling`"),
        ({"preprocessing": "imagenet"}, "`preprocessing`"),
        ({"layer": "body", "pooling": "cls"}, r"\(b, t, d\)"),
        ({"input_shape": None}, "`input_shape`"),
        ({"input_shape": 16}, "`input_shape` to be a list of lengths, but got 16"),
        ({"input_shape": (3, "a", 16)}, "`input_shape` to be an integer .* got .a."),
        ({"pretrained": False, "seed": "a"}, "`seed` to be an integer .* got .a."),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModuleBackbone(**{"module": Net(), "input_shape": (3, 16, 16), **arguments})


def test_a_layer_that_does_not_run_is_refused():
    with pytest.raises(ValueError, match="does not run"):
        ModuleBackbone(Tokens(), (5, 8), layer="unused")


def test_images_that_are_normalised_already_need_no_preprocessing():
    normalised = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="preprocessing=None"):
        ModuleBackbone(Net(), (3, 16, 16))(normalised)
    assert ModuleBackbone(Net(), (3, 16, 16), preprocessing=None)(normalised).features.shape == (2, 6)


def test_half_precision_weights_get_half_precision_inputs():
    backbone = ModuleBackbone(Net(), (3, 16, 16), preprocessing=Preprocessing(size=(16, 16))).eval().bfloat16()
    assert backbone(IMAGES).features.dtype == torch.bfloat16
