"""The job ``study``."""

from __future__ import annotations

import pytest

from lightning_transfer.cli import main
from lightning_transfer.selection import StudyTable

ZOO = "\n".join(
    f"pool{k}: {{_target_: lightning_transfer.backbones.ModuleBackbone, input_shape: [1, 8, 8], head: null, module: "
    f"{{_target_: torch.nn.Sequential, _args_: [{{_target_: torch.nn.AvgPool2d, kernel_size: {k}}}, "
    "{_target_: torch.nn.Flatten}]}}"
    for k in (1, 2, 4)
)


def run(tmp_path, *overrides: str) -> int:
    folder = tmp_path / "configs" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pools.yaml").write_text(ZOO)
    with pytest.raises(SystemExit) as stop:
        main(["study", "--config-dir", str(folder.parent), "zoo=pools", "targets=[digits]", "metrics=[logme,h_score]",
              "study.modes=[head]", "target_options.max_samples=100", "trainer=cpu", *overrides])  # fmt: skip
    return stop.value.code


def test_a_study_from_the_command_line_in_parts(tmp_path, capsys):
    folder = tmp_path / "out"
    assert run(tmp_path, f"hydra.run.dir={folder}", "study.part=1/2") == 0
    assert len(StudyTable.load(folder)) == 2
    assert run(tmp_path, f"hydra.run.dir={tmp_path / 'rest'}", f"resume={folder}") == 0
    table = StudyTable.load(tmp_path / "rest")
    assert {row.backbone for row in table.rows} == {"pool1", "pool2", "pool4"}
    assert {path.suffix for path in (tmp_path / "rest").glob("study.*")} >= {".jsonl", ".html", ".md", ".tex", ".png"}
    printed = capsys.readouterr().out
    assert "Over 1 target" in printed
    assert "Written to" in printed


def test_bad_input_is_one_line(tmp_path, capsys):
    assert run(tmp_path, f"hydra.run.dir={tmp_path / 'out'}", "study.part=9") == 2
    assert "`part`" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_small_preset(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["study", "preset=small", f"hydra.run.dir={tmp_path}", "trainer=cpu"])
    assert stop.value.code == 0
    table = StudyTable.load(tmp_path)
    assert len(table) == 18
    assert not [row for row in table.rows if row.failed]
    assert {mode for row in table.rows for mode in row.outcomes} == {"full", "head"}
