"""Near-duplicates among the samples."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.data import Digits, ImageFolder, PhotoPatches
from lightning_transfer.pictures import Prepared
from lightning_transfer.screening import screen
from lightning_transfer.screening.duplicates import InputSketch, remark_on_duplicates, sketch_inputs


def pictures(count: int, side: int = 40, seed: int = 0) -> torch.Tensor:
    """Smooth pictures with texture, each its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = nn.functional.interpolate(torch.rand(count, 3, 5, 5, generator=generator), (side, side), mode="bicubic")
    fine = torch.rand(count, 3, side, side, generator=generator)
    return (200 * coarse.clamp(0, 1) + 55 * fine).byte()


def share(*batches: torch.Tensor) -> float:
    sketch = InputSketch()
    for batch in batches:
        sketch.add(batch)
    return sketch.share_of_near_duplicates()


def test_different_pictures_have_none():
    assert share(pictures(30)) == 0
    digits = Digits().train_dataset
    assert share(torch.stack([digits[index]["inputs"] for index in range(200)])) < 0.02


def test_copies_shifts_and_another_compression_are_seen():
    some = pictures(20, side=48)
    noisy = (some[:4].float() + torch.randint(-1, 2, some[:4].shape, generator=torch.Generator().manual_seed(1))).byte()
    assert share(some, some[:5]) == pytest.approx(10 / 25)
    assert share(some[:, :, :40, :40], some[:5, :, 8:, 8:]) == pytest.approx(10 / 25)
    assert share(some, noisy) == pytest.approx(8 / 24)
    assert share(some / 255.0, some[:5] / 255.0) == pytest.approx(10 / 25)


def test_pictures_that_a_transform_has_prepared_are_compared_too():
    some = pictures(30, side=48)
    for prepare in (lambda x: (x / 255 - 0.45) / 0.225, lambda x: x / 255, lambda x: (x.float() - 127) / 128):
        assert share(Prepared(prepare(some))) == 0
        assert share(Prepared(prepare(some)), Prepared(prepare(some[:5]))) == pytest.approx(10 / 35)
    assert share(Prepared(torch.randn(4, 7, 5))) == 0  # patches of pictures in their own aspect


def test_copies_in_a_folder_are_remarked_on(tmp_path):
    for number, pixels in enumerate(pictures(8, side=40)[[0, 1, 2, 3, 4, 5, 6, 0]]):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    data = ImageFolder(tmp_path, val_fraction=0, test_fraction=0)
    net = ModuleBackbone(nn.Flatten(), (3, 32, 32), head=None, transform=_shrunk, preprocessing=None)
    assert screen(net, data, "h_score", cache=False).info["near_duplicates"] == 2 / 8


def test_samples_are_compared_once_for_all_backbones(monkeypatch):
    shares = []
    compare = InputSketch.share_of_near_duplicates
    monkeypatch.setattr(
        InputSketch, "share_of_near_duplicates", lambda self: shares.append(compare(self)) or shares[-1]
    )
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    nets = {name: ModuleBackbone(nn.Identity(), (6,), head=None) for name in "abc"}
    board = screen(nets, (inputs, torch.arange(40) % 2), "h_score", cache=False)
    assert board.info["near_duplicates"] == 1.0
    assert shares == [1.0]


def _shrunk(picture):
    return torch.from_numpy(np.asarray(picture.resize((32, 32)))).permute(2, 0, 1) / 128 - 1


def test_flat_pictures_and_a_frame_around_all_are_no_duplicates():
    framed = pictures(30)
    framed[:, :, :12] = pictures(1)[:, :, :12]  # a caption that all have
    assert share(framed) == 0


def test_vectors_and_tokens():
    rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    assert share(rows, rows[:2]) == pytest.approx(4 / 12, abs=1e-4)
    wide = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * 1e3 + 1e4
    assert share(wide) == 0
    assert share(wide, wide[:50] + 0.1) == pytest.approx(100 / 350)
    tokens = torch.arange(40).reshape(10, 4)
    assert share(tokens, tokens[:1]) == pytest.approx(2 / 11, abs=1e-4)


def test_texts_and_padded_tokens():
    sketch = InputSketch()
    sketch.add(["A fine day", "a long evening"])
    sketch.add(["a  fine day", "another"])
    assert sketch.share_of_near_duplicates() == 0.5
    sketch = InputSketch()
    ids = torch.tensor([[5, 6, 9, 9], [5, 6, 9, 8]])
    sketch.add({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])})
    sketch.add({"input_ids": ids[:1, :2]})
    assert sketch.share_of_near_duplicates() == pytest.approx(2 / 3)


def test_what_cannot_be_compared_is_passed_over():
    assert share() == 0
    sketch = InputSketch()
    sketch.add({"input_ids": torch.zeros(2, 3)})
    sketch.add(torch.zeros(2, 3, 4))
    assert sketch.share_of_near_duplicates() == 0
    assert share(torch.zeros(2, 3), torch.zeros(2, 4)) == 0


def test_the_hook_goes():
    module = nn.Linear(3, 2)
    with sketch_inputs(module) as sketch:
        module(torch.ones(4, 3))
    module(torch.ones(4, 3))
    assert sketch.count == 4


def test_the_hook_goes_along_to_spawned_processes():
    module = nn.Linear(3, 2)
    with sketch_inputs(module) as sketch:
        there = ForkingPickler.loads(ForkingPickler.dumps(module))
        there(torch.zeros(4, 3))
    assert sketch.count == 0


def test_the_remark():
    assert remark_on_duplicates(0.01, ["kNN accuracy"]) == ""
    assert remark_on_duplicates(0.9, []) == ""
    assert remark_on_duplicates(0.9, ["kNN accuracy"]).startswith("Flattered by samples that repeat")


def test_a_table_says_it_where_a_score_leaves_one_out():
    backbone = ModuleBackbone(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), input_shape=(3, 48, 48), head=None)
    data = PhotoPatches(max_samples=200)
    board = screen({"pixels": backbone}, data, ["knn_accuracy", "h_score"])
    (note,) = board.info["notes"]
    assert "since they leave one out: kNN accuracy. `groups` keeps" in note
    assert note in " ".join(str(board).split())
    assert screen({"pixels": backbone}, data, ["knn_accuracy", "h_score"], resume=board).info == board.info
    assert "notes" not in screen({"pixels": backbone}, data, ["h_score"]).info
    flat = ModuleBackbone(nn.Flatten(), input_shape=(1, 8, 8), head=None)
    assert "notes" not in screen({"flat": flat}, Digits(max_samples=100), "knn_accuracy").info


def test_stored_features_are_compared_themselves():
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 4, (100,), generator=torch.Generator().manual_seed(1))
    noise = 1e-4 * torch.randn(100, 8, generator=torch.Generator().manual_seed(2))
    twice = screen({"twice": torch.cat([features, features + noise])}, labels.repeat(2), "knn_accuracy")
    assert twice.rows[0].scores["knn_accuracy"] == 1
    assert twice.info["notes"][0].startswith("Flattered by samples that repeat or overlap others (at least 100%)")
    assert "notes" not in screen({"once": features}, labels, "knn_accuracy").info
