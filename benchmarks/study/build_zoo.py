"""Train each architecture on each source; what is there already stays."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from plan import ARCHITECTURES, SIDE, SOURCES, make_network, make_source, weights_of
from safetensors.torch import save_file
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.extraction import quiet_lightning
from lightning_transfer.finetuning import FineTuningModule
from lightning_transfer.selection.outcome import measure


def train(architecture: str, source: str, emoji: Path, epochs: int) -> tuple[dict[str, torch.Tensor], float]:
    """Weights of a network, classifier included, and its accuracy on the source's test data."""
    data = make_source(source, emoji)
    data.setup()
    network = make_network(architecture, int(data.num_classes or 0))
    backbone = ModuleBackbone(network, (3, SIDE, SIDE))
    torch.manual_seed(0)
    module = FineTuningModule.for_target(
        backbone, data, backbone_factor=1.0, batch_norm="train",
        optimizer=partial(torch.optim.AdamW, lr=2e-3, weight_decay=1e-2),
    )  # fmt: skip
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, train_dataloaders=data.train_dataloader())
        outputs = torch.cat(trainer.predict(module, dataloaders=data.split_dataloader("test")))
    classifier = module.backbone.head
    assert isinstance(classifier, nn.Linear)
    classifier.load_state_dict(module.head.state_dict())
    state = {key: value.clone().contiguous() for key, value in module.backbone.module.state_dict().items()}
    state["head_bias"] = classifier.bias.detach().clone()
    return state, measure(data.task, outputs, data.split_dataset("test").truth)


def main() -> None:
    """Build what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=[*ARCHITECTURES])
    options = parser.parse_args()
    options.zoo.mkdir(parents=True, exist_ok=True)
    for source, epochs in SOURCES.items():
        for architecture in options.architectures:
            path = weights_of(options.zoo, architecture, source)
            if path.exists() or not epochs:
                continue
            start = time.perf_counter()
            state, accuracy = train(architecture, source, options.emoji, epochs)
            save_file(state, path, metadata={"accuracy": repr(accuracy)})
            print(f"{path.stem}: {accuracy:.3f} ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
