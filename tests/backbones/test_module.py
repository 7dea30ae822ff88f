import copy
import pickle

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_transfer.backbones import ModuleBackbone, Preprocessing, reinitialise
from lightning_transfer.backbones.base import repeats
from lightning_transfer.backbones.pooling import pool


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(6, 4))

    def forward(self, x):
        return self.classifier(self.body(x).mean(dim=(2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.unused = nn.Linear(8, 2)

    def forward(self, x):
        return {"tokens": self.encoder(x)}


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.example_input_array = torch.zeros(1, 3, 16, 16)

    def forward(self, x):
        return self.net(x).softmax(dim=1)


IMAGES = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


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


def test_tokens_are_pooled():
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    module = Tokens().eval()
    tokens = module(x)["tokens"]
    for pooling, expected in (("auto", tokens.mean(1)), ("cls", tokens[:, 0]), ("last", tokens[:, -1])):
        backbone = ModuleBackbone(module, (5, 8), pooling=pooling).eval()
        torch.testing.assert_close(backbone(x).features, expected)
        assert backbone.num_source_classes is None


def test_attention_counts_as_operations():
    backbone = ModuleBackbone(Tokens(), (5, 8))
    projections = 2 * 5 * 8 * 8 * 4
    attention = 2 * 2 * 5 * 5 * 8
    mlp = 2 * 2 * 5 * 8 * 16
    assert backbone.cost(measure=False).flops == projections + attention + mlp


def test_masks_are_respected():
    features = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(pool(features, "mean", mask)[0], features[0, :2].mean(0))
    assert torch.equal(pool(features, "last", mask), torch.stack([features[0, 1], features[1, 2]]))
    padded_left = mask.flip(1)
    assert torch.equal(pool(features, "cls", padded_left), torch.stack([features[0, 1], features[1, 0]]))
    assert torch.equal(pool(features, "last", padded_left), features[:, 2])


def test_a_network_that_draws_at_random_in_evaluation_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x, training=True)

    with pytest.raises(ValueError, match="noisy gives different values for the same inputs in two passes"):
        ModuleBackbone(Noisy(), (8,))


def test_vectors_pass():
    backbone = ModuleBackbone(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (4,))
    features, logits = backbone(torch.ones(3, 4, dtype=torch.float64))
    assert (features.shape, logits.shape, features.dtype) == ((3, 8), (3, 2), torch.float32)


def test_building_leaves_the_module_as_it_was():
    module = Net().train()
    module.body.eval()
    state = copy.deepcopy(module.state_dict())
    rng = torch.get_rng_state()
    ModuleBackbone(module, (3, 16, 16))
    assert torch.equal(rng, torch.get_rng_state())
    assert module.training
    assert not module.body.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(not child._forward_hooks for child in module.modules())


def test_it_can_be_copied_pickled_and_trained():
    backbone = ModuleBackbone(Net(), (3, 16, 16)).eval()
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert torch.equal(twin(IMAGES).features, backbone(IMAGES).features)
    backbone.train()(IMAGES).features.sum().backward()
    assert backbone.module.body[0].weight.grad is not None


def test_the_control_is_a_random_copy():
    module = Net()
    with torch.no_grad():
        module.body[1].running_mean.fill_(3.0)
    weight = module.body[0].weight.clone()
    rng = torch.get_rng_state()
    control = ModuleBackbone(module, (3, 16, 16), pretrained=False, seed=1)
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(module.body[0].weight, weight)
    assert not torch.equal(control.module.body[0].weight, weight)
    assert not control.module.body[1].running_mean.any()
    again = ModuleBackbone(module, (3, 16, 16), pretrained=False, seed=1)
    assert torch.equal(control.module.body[0].weight, again.module.body[0].weight)
    assert control.name == "net_random"


def test_parameters_without_a_reset_are_drawn_too():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.full((50, 40), 7.0))
            self.weight = nn.Parameter(torch.full((3,), 7.0))
            self.shift = nn.Parameter(torch.full((3,), 7.0))

    custom = reinitialise(Custom(), seed=0)
    assert float(custom.table.detach().std()) == pytest.approx(40**-0.5, rel=0.1)
    assert torch.equal(custom.weight, torch.ones(3))
    assert torch.equal(custom.shift, torch.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "neck"}, "`layer` to be a layer"),
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
        ModuleBackbone(Net(), **{"input_shape": (3, 16, 16), **arguments})


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


def test_passes_without_numbers_are_compared_all_the_same():
    assert repeats(torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0]))
    assert not repeats(torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 2.0]))
