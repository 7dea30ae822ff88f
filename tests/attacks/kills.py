"""Small screens, sweeps and fine-tuning runs, each in a child process that a test may kill at any moment.

Lines ``KIND FOLDER`` come from standard input. For each a child is forked; its number is written, and then its end.
"""

from __future__ import annotations

import os
import sys
import traceback
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


def run(kind: str, folder: Path) -> None:
    """Run one, going on where an earlier one in the same folder stopped."""
    if kind == "screen":
        zoo = {f"net {width}": backbone(width) for width in range(4, 10)}
        resume = folder if (folder / "leaderboard.json").is_file() else None
        screen(zoo, Digits(max_samples=200), ["h_score", "logme"], output_dir=folder, resume=resume)
        return
    small = ["target=digits", f"hydra.{'sweep' if kind == 'sweep' else 'run'}.dir={folder}", "resume=auto"]
    if kind == "sweep":
        names = ",".join(f"efficientnet_lite{i}_random" for i in (0, 1))
        arguments = ["screen", "-m", *small, f"backbone={names}", "max_samples=30", "metrics=h_score,logme"]
    else:
        small += ["backbone=efficientnet_lite0_random", "target.max_samples=40"]
        arguments = ["finetune", *small, "epochs=4", "~reference"]
    try:
        cli.main(arguments)
    except SystemExit as stop:
        if stop.code:
            raise


for line in sys.stdin:
    kind, _, folder = line.strip().partition(" ")
    child = os.fork()
    if child == 0:
        try:
            run(kind, Path(folder))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(f"@child {child}", flush=True)
    print(f"@code {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
