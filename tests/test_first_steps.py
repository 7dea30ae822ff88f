"""What the guide to your own data tells a newcomer to type works as it stands."""

from __future__ import annotations

import re
import shlex
import sys

import numpy as np
import pytest
import torch
from _cli import exit_code
from PIL import Image
from test_docs import ROOT

from lightning_transfer.screening import Leaderboard

STEPS = re.findall(r"^```(bash|py)\n(.*?)^```$", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in STEPS if kind == "bash" for line in block.splitlines()]
PROJECT = """
from lightning import LightningModule
from torch import nn

class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(8, 4)

    def forward(self, x):
        return self.classifier(self.net(x))
"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the guide speaks of."""
    from datasets import ClassLabel, Dataset

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    generator = np.random.default_rng(0)
    pictures, kinds = [], []
    for number in range(12):
        kind = ("cat", "dog")[number % 2]
        path = tmp_path / "photographs" / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128 + 127 * (number % 2), (40, 50 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        pictures.append(path)
        kinds.append(kind)
    (tmp_path / "photographs" / "cat" / "broken.jpg").write_bytes(b"nothing")
    rows = [f"{path.relative_to(tmp_path)},{kind}" for path, kind in zip(pictures, kinds, strict=True)]
    (tmp_path / "pictures.csv").write_text("\n".join(["file,kind", *rows]))
    reviews = [f"a {word} film number {number},{number % 2 + 1}" for number, word in enumerate(["dull", "fine"] * 6)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,stars", *reviews]))
    data = Dataset.from_dict({"image": [Image.open(path) for path in pictures], "label": [0, 1] * 6})
    data.cast_column("label", ClassLabel(names=["cat", "dog"])).save_to_disk(tmp_path / "saved")
    (tmp_path / "my_project.py").write_text(PROJECT)
    yield tmp_path
    sys.modules.pop("my_project", None)


def test_each_takes_at_most_ten_lines():
    assert len(COMMANDS) == 5
    assert all(block.count("\n") <= 10 for _, block in STEPS)


@pytest.mark.filterwarnings("ignore:photographs")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: shlex.split(command)[2])
def test_commands_run(desk, command, capsys):
    program, *arguments = shlex.split(command)
    assert program == "lightning-transfer"
    assert exit_code(*arguments, "hydra.run.dir=result") == 0, capsys.readouterr().err
    board = Leaderboard.load(desk / "result")
    assert all(not row.failed for row in board.rows)
    if "broken" in str(board.rows[0].remarks):
        assert "cat/broken.jpg" in capsys.readouterr().out
    if "zoo" in command:
        assert len(board) >= 3
        assert all(row.control for row in board.rows)


@pytest.mark.filterwarnings("ignore:photographs")
def test_own_checkpoint(desk, capsys):
    (block,) = [block for kind, block in STEPS if kind == "py"]
    from my_project import Classifier

    (desk / "run").mkdir()
    torch.save({"state_dict": Classifier().state_dict(), "pytorch-lightning_version": "2.6.0"}, desk / "run/last.ckpt")
    (desk / "photographs" / "cat" / "broken.jpg").unlink()
    exec(block, {})
    assert "mine" in capsys.readouterr().out
