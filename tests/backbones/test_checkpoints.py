import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from safetensors.torch import save_file
from torch import nn

from lightning_transfer.backbones import CheckpointBackbone, ProgramBackbone, load_weights


def _net():
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )


IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Lit(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = _net()
        self.loss_weight = nn.Parameter(torch.ones(2))

    def training_step(self, batch):
        return self.model(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def lightning_checkpoint(tmp_path):
    lit = Lit()
    arguments = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=1, enable_checkpointing=False, **arguments)
    trainer.fit(lit, torch.utils.data.DataLoader(IMAGES, batch_size=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return lit.eval(), tmp_path / "last.ckpt"


def test_a_lightning_checkpoint_is_read_with_its_prefix(lightning_checkpoint):
    lit, path = lightning_checkpoint
    for prefix in (None, "model."):
        backbone = CheckpointBackbone(_net(), path, (3, 12, 12), prefix=prefix).eval()
        torch.testing.assert_close(backbone(IMAGES).logits, lit.model(IMAGES))
        assert backbone.name == "last"


@pytest.mark.parametrize("kind", ["plain", "model", "safetensors", "compiled"])
def test_other_files_are_read(tmp_path, kind):
    source, path = _net().eval(), tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    state = source.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "compiled":
        torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, path)
    else:
        torch.save(state if kind == "plain" else {"model": state, "epoch": 3}, path)
    target = load_weights(_net(), path).eval()
    torch.testing.assert_close(target(IMAGES), source(IMAGES))


def test_the_control_does_not_read_the_file(tmp_path):
    backbone = CheckpointBackbone(_net(), tmp_path / "absent.ckpt", (3, 12, 12), pretrained=False)
    assert backbone.name == "absent_random"


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match=r"`.*trap\.pt` to be a checkpoint of tensors .* never loaded"):
        load_weights(_net(), tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    module = _net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match="to fit Sequential"):
        load_weights(module, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="state dict"):
        load_weights(module, tmp_path / "empty.pt")
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("a,b\n1,2\n")
        with pytest.raises(ValueError, match=f"`.*{name}` to be a checkpoint of tensors"):
            load_weights(module, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_weights(module, tmp_path / "absent.pt")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "odd",
    [
        torch.eye(3).to_sparse(),
        torch.empty(3, 3, device="meta"),
        torch.ones(3, 3, dtype=torch.complex64),
        torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "meta", "complex", "quantized"],
)
def test_weights_that_are_no_dense_numbers_are_refused(tmp_path, odd):
    module = nn.Linear(3, 3)
    before = module.bias.detach().clone()
    torch.save({"bias": before + 1, "weight": odd, 3: torch.ones(1), (1, 2): torch.ones(1)}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt` to hold dense tensors of real numbers, but `weight`"):
        load_weights(module, tmp_path / "odd.pt")
    assert torch.equal(module.bias, before)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    net = _net().eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(net, (IMAGES,), dynamic_shapes=({0: batch},)), folder / "net.pt2")
    torch.jit.trace(net, IMAGES).save(folder / "net.pt")
    return net, folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("suffix", ["pt2", "pt"])
def test_the_output_of_a_program_is_the_feature(programs, suffix):
    net, folder = programs
    backbone = ProgramBackbone(folder / f"net.{suffix}", (3, 12, 12)).train().eval()
    images = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(backbone(images).features, net(images))
    assert (backbone.feature_dim, backbone.name, backbone.num_source_classes) == (3, "net", None)
    assert backbone.cost().parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_layers_of_an_exported_program_can_be_named(programs):
    net, folder = programs
    backbone = ProgramBackbone(folder / "net.pt2", (3, 12, 12), head="5")
    features, logits = backbone(IMAGES)
    torch.testing.assert_close(features, net[:5](IMAGES))
    torch.testing.assert_close(logits, net(IMAGES))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("suffix", ["pt2", "pt"])
def test_a_program_has_a_control_and_trains(programs, suffix):
    net, folder = programs
    control = ProgramBackbone(folder / f"net.{suffix}", (3, 12, 12), pretrained=False)
    assert control.name == "net_random"
    assert not torch.allclose(control(IMAGES).features, net(IMAGES))
    control(IMAGES).features.sum().backward()
    assert all(parameter.grad is not None for parameter in control.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_bad_programs_are_refused(programs, tmp_path):
    _, folder = programs
    with pytest.raises(ValueError, match="TorchScript"):
        ProgramBackbone(folder / "net.pt", (3, 12, 12), layer="0")
    for name in ("bad.pt2", "bad.pt"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match="Expected"):
            ProgramBackbone(tmp_path / name, (3, 12, 12))
    with pytest.raises(FileNotFoundError, match="absent"):
        ProgramBackbone(tmp_path / "absent.pt2", (3, 12, 12))


def test_a_class_in_place_of_a_network_is_told():
    with pytest.raises(ValueError, match=r"`module` to be a network, .*: type module=Identity\(\.\.\.\)"):
        load_weights(nn.Identity, "nowhere.ckpt")
    with pytest.raises(ValueError, match="`module` to be a network, but got 3"):
        load_weights(3, "nowhere.ckpt")
