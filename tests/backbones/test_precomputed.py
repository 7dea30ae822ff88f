from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_transfer import extract, screen
from lightning_transfer.backbones import ModuleBackbone, PrecomputedFeatures
from lightning_transfer.functional import leep, log_maximum_evidence

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(40, 6, generator=GENERATOR)
PROBS = torch.randn(40, 5, generator=GENERATOR).softmax(dim=1)
LABELS = torch.arange(40) % 3


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()], ids=["tensors", "arrays"])
def test_scores_are_those_of_the_features(convert):
    board = screen({"a": convert(FEATURES), "b": (convert(FEATURES * 2), convert(PROBS))}, convert(LABELS), "all")
    assert {row.status for row in board.rows} == {"ok"}
    assert board["a"].score("logme") == pytest.approx(float(log_maximum_evidence(FEATURES, LABELS)), rel=1e-5)
    assert board["b"].score("leep") == pytest.approx(float(leep(PROBS, LABELS)), rel=1e-5)
    assert "leep" not in board["a"].scores or np.isnan(board["a"].score("leep"))
    assert "energy" not in board.columns
    assert (board["b"].feature_dim, board["b"].parameters, board.info["num_samples"]) == (6, None, 40)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["ant", "bee"] * 20, "classification"),
        ((torch.arange(40) / 7).tolist(), "regression"),
        (torch.nn.functional.one_hot(LABELS, 3), "multilabel"),
    ],
)
def test_labels_of_any_kind(labels, task):
    board = screen({"a": FEATURES.double()}, labels, ["logme"], max_samples=30, error_bars=True)
    assert (board["a"].status, board.info["task"]) == ("ok", task)


def test_zero_probabilities():
    certain = torch.nn.functional.one_hot(LABELS, 3).float()
    found = PrecomputedFeatures(FEATURES, certain)(torch.arange(40))
    torch.testing.assert_close(found.logits.softmax(dim=1), certain)


@pytest.mark.parametrize(
    ("backbones", "target", "message"),
    [
        (
            {"a": FEATURES, "b": "efficientnet_lite0_random"},
            LABELS,
            "all of them tensors or arrays, but got str for 'b'",
        ),
        (FEATURES, LABELS, "`backbones` to be a dict from names to features .* but got Tensor"),
        ([FEATURES, FEATURES], LABELS, "`backbones` to be a dict from names to features .* but got list"),
        (
            {"a": "features.npz"},
            LABELS,
            r"`target` to hold inputs beside labels, .* shape \(40,\); labels alone go with",
        ),
        ({"a": FEATURES}, "digits", "`target` to be labels beside features, but got str"),
        ({"a": FEATURES}, LABELS[:9], "a: expected features of 9 samples like the labels, but got 40"),
        ({"a": FEATURES[:, 0]}, LABELS, "a: Expected argument `features` to be a 2D"),
        ({"a": FEATURES / 0}, LABELS, "a: Expected argument `features` to be finite"),
        ({"a": (FEATURES, FEATURES)}, LABELS, "a: Expected argument `source_probs` to be non-negative"),
        ({"a": (FEATURES, PROBS[:9])}, LABELS, "a: Expected argument `source_probs` to have 40 rows"),
    ],
)
def test_bad_features(backbones, target, message):
    with pytest.raises(ValueError, match=message):
        screen(backbones, target)


def test_what_extract_kept_and_saved_is_read_back(tmp_path):
    batches = [(FEATURES, LABELS)]
    same = ModuleBackbone(nn.Identity(), (FEATURES.shape[1],), head=None)
    extraction = extract(same, batches, keep=("features", "labels"))
    stored = np.load(extraction.save(tmp_path / "features.npz"))
    with_probs = {"features": FEATURES, "source_probs": PROBS}
    board = screen({"kept": extraction.kept, "saved": stored, "probs": with_probs}, stored["labels"], ["logme", "leep"])
    assert len({row.scores["logme"] for row in board.rows}) == 1
    assert [row.backbone for row in board.rows if np.isfinite(row.score("leep"))] == ["probs"]


def test_lists_in_the_place_of_features_are_not_printed_whole():
    with pytest.raises(ValueError, match="`backbones` to hold names, modules or configs") as error:
        screen({"a": FEATURES.tolist()}, LABELS.tolist())
    assert len(str(error.value)) < 300
