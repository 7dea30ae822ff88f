"""The monitors under LightningCLI: everything is set from the command line or a YAML file.

Run it as it is (needs: pip install "jsonargparse[signatures]"):

    python examples/lightning_cli.py
    python examples/lightning_cli.py fit --trainer.max_epochs 5 --model.mode head \
        --trainer.callbacks+=TransferabilityMonitor --trainer.callbacks.metrics="[logme,leep]"
"""

from __future__ import annotations

import sys
from functools import partial

from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.optim import AdamW

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks import TransferabilityMonitor  # noqa: F401 - the command line finds it by its name
from lightning_transfer.data import Digits
from lightning_transfer.finetuning import FineTuningModule

DEFAULT = [
    "fit",
    "--trainer.max_epochs=3",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.callbacks+=TransferabilityMonitor",
    "--trainer.callbacks.metrics=[logme,h_score]",
    "--trainer.callbacks.stop_below=-5.0",
]


class DigitModel(FineTuningModule):
    """A small network with a new head for the ten digits.

    Args:
        mode: Which weights are trained: head, full or head_then_full.
        width: Number of features.
        lr: Largest learning rate of the schedule.
    """

    def __init__(self, mode: str = "full", width: int = 64, lr: float = 1e-2) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        backbone = ModuleBackbone(net, input_shape=(1, 8, 8), head=None, name="digit_net")
        super().__init__(backbone, num_outputs=10, mode=mode, backbone_factor=1.0, optimizer=partial(AdamW, lr=lr))


def main(arguments: list[str] | None = None) -> None:
    cli = LightningCLI(DigitModel, Digits, args=arguments or sys.argv[1:] or DEFAULT, save_config_callback=None)
    for name, value in sorted(cli.trainer.callback_metrics.items()):
        print(f"{name:20} {float(value):.4f}")


if __name__ == "__main__":
    main()
