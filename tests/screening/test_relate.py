"""relate(): two data sets and a backbone in, the bound out."""

from __future__ import annotations

import json

import pytest
import torch
from _screens import Linear

from lightning_transfer.backbones import load_backbone
from lightning_transfer.data import Digits
from lightning_transfer.functional import task_relatedness
from lightning_transfer.screening.relate import FORMAT, relate

QUICK = {"rounds": 1, "baselines": 0, "progress": False}
REFERENCE, TARGET = Digits(classes=[0, 1, 2], max_samples=90), Digits(classes=[4, 5, 6], max_samples=60)


def features_of(backbone, data, split="train"):
    data.setup()
    samples = [getattr(data, f"{split}_dataset")[index] for index in range(len(getattr(data, f"{split}_dataset")))]
    with torch.no_grad():
        features = load_backbone(backbone)(torch.stack([sample["inputs"] for sample in samples])).features
    return features, torch.stack([sample["labels"] for sample in samples])


def test_the_bound_is_that_of_the_features(tmp_path):
    backbone = Linear(6)
    result = relate(backbone, REFERENCE, TARGET, output_dir=tmp_path, info={"note": 1}, **QUICK)
    expected = task_relatedness(*features_of(backbone, REFERENCE), *features_of(backbone, TARGET), rounds=1)
    assert result.bound == pytest.approx(expected.bound, rel=1e-4)
    whole = relate(backbone, REFERENCE, TARGET, target_groups=torch.arange(60) // 2, **QUICK)
    assert whole.bound != result.bound  # groups that are handed in are used
    assert result.baseline is None
    assert result.class_names() == (["0", "1", "2"], ["4", "5", "6"])
    written = json.loads((tmp_path / "relatedness.json").read_text())
    assert (written["format"], written["note"], written["reference"]) == (FORMAT, 1, "digits")
    assert written["bound"] == result.bound
    assert (tmp_path / "relatedness.png").stat().st_size > 1000


def test_another_split_is_evaluation_data():
    result = relate(Linear(6), REFERENCE, TARGET, evaluation_split="val", max_samples=40, **QUICK)
    assert result.evaluated_on == "evaluation data"
    assert result.certificate.num_target == 40 < len(TARGET.val_dataset)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"reference": "nope"}, "Expected argument `reference` to be one of"),
    ({"target": 5}, "Expected argument `target` to be a datamodule, config or name"),
    ({"nope": 1}, "'nope'"),
    ({"max_samples": 10, "split": "nope"}, "`split`"),
    ({"relatedness": {"tau": 1}}, "relatedness"),
    ({"evaluation": (torch.ones(2, 6),) * 4, "evaluation_split": "val"}, "`evaluation_split` or `evaluation`"),
])  # fmt: skip
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        relate(**{"backbone": Linear(6), "reference": REFERENCE, "target": TARGET, **QUICK, **arguments})
