from __future__ import annotations

import pytest
import torch

from lightning_transfer.cache import FeatureCache
from lightning_transfer.jobs.cache import run


def test_the_cache_is_listed_and_cleared(tmp_path, capsys):
    cache = FeatureCache(tmp_path)
    writer = cache.writer("ab" * 32)
    writer.add(torch.ones(3, 2), None)
    writer.finish()
    about = {"backbone": "net\x1b[31m", "data": "digits", "split": "train"}
    cache.finish(writer, about, {"features": torch.ones(2, 2)}, num_samples=3, seconds=1.0, notes={})
    run([f"folder={tmp_path}"])
    first, last = capsys.readouterr().out.splitlines()
    assert "3 samples  net" in first
    assert "on digits (train)" in first
    assert "\x1b" not in first
    assert last.startswith(f"{tmp_path}: 1 entries, 0.0 MiB of at most 20.0 GiB")
    run([f"folder={tmp_path}", "clear"])
    assert capsys.readouterr().out == f"{tmp_path}: 0.0 MiB deleted\n"
    assert cache.entries() == []


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="Expected `clear` or `folder=PATH`, but got 'delete'"):
        run(["delete"])
