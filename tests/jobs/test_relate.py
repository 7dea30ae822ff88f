"""The job relate from the command line."""

from __future__ import annotations

import json

from _cli import exit_code


def test_relate_writes_the_bound(in_process, capsys):
    assert exit_code("relate", "backbone.input_size=32", "reference=digits_0_4", "target=digits_5_9",
                     "max_samples=60", "+relatedness.rounds=1") == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "bound" in out
    folder = next(in_process.glob("outputs/relate/*/*"))
    result = json.loads((folder / "relatedness.json").read_text())
    assert result["bound"] >= result["target_loss"] > 0
    assert (folder / "relatedness.png").stat().st_size > 1000


def test_a_sweep_of_relate_compares_the_bounds(in_process, capsys):
    references = "reference=digits_0_4,digits_5_9"
    assert exit_code("relate", "-m", references, "target=digits_5_9", "backbone.input_size=32",
                     "max_samples=60", "+relatedness.rounds=1") == 0  # fmt: skip
    bounds = json.loads(next(in_process.glob("multirun/relate/*/*/relatedness.json")).read_text())["results"]
    assert [result["reference"] for result in bounds] == ["digits_0_4", "digits_5_9"]
    table = capsys.readouterr().out.rpartition("Reference")[2]
    assert table.index("digits_5_9") < table.index("digits_0_4")  # the target itself is the nearest reference
