"""The job ``select``."""

from __future__ import annotations

import json

import pytest

from lightning_transfer.cli import main
from tests.jobs.test_study import ZOO


def run(tmp_path, *overrides: str) -> int:
    folder = tmp_path / "configs" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pools.yaml").write_text(ZOO)
    with pytest.raises(SystemExit) as stop:
        main(["select", "--config-dir", str(folder.parent), "zoo=pools", "target=digits", "metrics=[logme]", "epochs=2",
              "target.max_samples=100", "trainer=cpu", f"hydra.run.dir={tmp_path / 'out'}", *overrides])  # fmt: skip
    return stop.value.code


def test_a_selection_from_the_command_line(tmp_path, capsys):
    assert run(tmp_path, "budget=6 epochs") == 0
    content = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert content["best"] in ("pool1", "pool2", "pool4")
    assert content["interval"][0] <= content["value"] <= content["interval"][1]
    assert len(content["curves"][content["best"]]) == 2
    assert content["runner_up"]["name"] in set(content["curves"]) - {content["best"]}
    printed = capsys.readouterr().out
    assert f"{content['best']} is fine-tuned: accuracy" in printed
    assert "Price: " in printed
    assert "with one seed only" in printed


def test_bad_input_is_one_line(tmp_path, capsys):
    assert run(tmp_path, "budget=soon") == 2
    assert "`budget`" in capsys.readouterr().err
