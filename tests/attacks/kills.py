# ruff: noqa: E501
"""A small screen, sweep or fine-tuning run that a test may kill at any moment: ``python kills.py KIND FOLDER [resume]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from lightning_transfer import cli, screen
from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits


def backbone(width: int) -> ModuleBackbone:
    """A network whose weights are the same in every process."""
    torch.manual_seed(width)
    return ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, width)), (1, 8, 8), head=None)


def main(kind: str, folder: Path, *more: str) -> None:
    """Run it, and write a line when it can be killed and one when it is over."""
    print("begin", flush=True)
    if kind == "screen":
        zoo = {f"net {width}": backbone(width) for width in range(4, 16)}
        resume = folder if "resume" in more and (folder / "leaderboard.json").is_file() else None
        screen(zoo, Digits(max_samples=200), ["h_score", "logme"], output_dir=folder, resume=resume)
    else:
        small = [
            "target=digits",
            "target.image_size=32",
            f"hydra.{'sweep' if kind == 'sweep' else 'run'}.dir={folder}",
            "resume=auto",
        ]
        if kind == "sweep":
            names = ",".join(f"efficientnet_lite{i}_random" for i in (0, 1))
            arguments = ["screen", "-m", *small, f"backbone={names}", "max_samples=30", "metrics=h_score,logme"]
        else:
            arguments = [
                "finetune",
                *small,
                "backbone=efficientnet_lite0_random",
                "epochs=4",
                "target.max_samples=40",
                "~reference",
            ]
        try:
            cli.main(arguments)
        except SystemExit as stop:
            if stop.code:
                raise
    print("end", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
