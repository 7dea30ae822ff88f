"""Runs that are interrupted say the words to type, and these words go on."""

from __future__ import annotations

import json
import shlex
import signal

import pytest
from attacks.runs import NETS, Runs, into, once_there

from lightning_transfer.screening import Leaderboard
from lightning_transfer.selection import StudyTable

FIRST = {  # what is there when the first part of the work is done
    "screen": "leaderboard.json",
    "sweep": "0/leaderboard.json",
    "relate": ".hydra/overrides.yaml",
    "sweep of relate": "0/relatedness.json",
    "finetune": "checkpoints/last.ckpt",
    "select": "select.json",
    "study": "study.jsonl",
    "sweep of finetune": "0/finetune.json",
}


@pytest.fixture(scope="module")
def runs():
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
    server = Runs()
    yield server
    server.close()
    signal.signal(signal.SIGINT, given)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", FIRST)
def test_the_words_that_an_interrupted_run_ends_with(runs, kind, number, tmp_path):
    runs.heat(kind, tmp_path / "first")
    folder = tmp_path / "my 'runs', $HOME"
    code, shown = runs.run(into(kind, folder), once_there(folder, FIRST[kind], number))
    assert code == 130, shown
    last = shown.rstrip().splitlines()[-1]
    start = "lightning-transfer: interrupted; to go on: "
    assert last.startswith(start), shown
    program, *typed = shlex.split(last.removeprefix(start))
    assert program == "lightning-transfer"
    place = folder
    if any(word.startswith("resume=") for word in typed) and "-m" not in typed:
        place = tmp_path / "next"
        typed.append(f"hydra.run.dir='{place}'")
    code, shown = runs.run(typed)
    assert code == 0, shown
    if kind == "select":
        assert json.loads((folder / "selection.json").read_text())["best"] in NETS
    elif kind == "study":
        assert {row.backbone for row in StudyTable.load(place).rows} == set(NETS)
    elif "relate" not in kind and "finetune" not in kind:
        rows = Leaderboard.load(place).rows
        assert {row.backbone: row.failed for row in rows} == {"net4": False, "net6": False, "net8": False}
    elif "sweep" in kind:
        name, entry = ("finetune.json", "runs") if "finetune" in kind else ("relatedness.json", "results")
        assert len(json.loads((place / name).read_text())[entry]) == 3
    else:
        assert (place / f"{'finetune' if kind == 'finetune' else 'relatedness'}.json").is_file()
