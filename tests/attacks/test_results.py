"""Results whose values are of another kind or size than what this package writes: a ValueError, or they are shown."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.test_weights import FIGURES
from torch import nn

from lightning_transfer.backbones import ModuleBackbone
from lightning_transfer.callbacks.checkpoint import WholeCheckpoints
from lightning_transfer.data import Digits
from lightning_transfer.jobs import report
from lightning_transfer.screening import Leaderboard, Row, merge_boards
from lightning_transfer.screening.comparing import across_targets
from lightning_transfer.screening.consensus import Evidence, consensus
from lightning_transfer.screening.merging import add_to_folder
from lightning_transfer.selection import Outcome, StudyRow, StudyTable, select

LIES = (
    None, "x", "", -1, 0, 2**62, 1e308, -1e308, "nan", True, [], {}, [[1]], [None], {"x": None}, "\ud800", "$(x)",
    "a\nb", "<script>", "../../x", {"x": {"x": {"x": 1}}}, [1e308] * 3,
)  # fmt: skip
PAIRS = {"leaderboard": 60, "page of a leaderboard": 30, "study": 20}  # lies that are told of kinds that are slow


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested dicts and lists."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


def lies(content: Any, count: int) -> Iterator[tuple[str, Any]]:
    """The content with one value replaced, or one left out."""
    draw = random.Random(0)
    told = [(place, lie) for place in places(content) for lie in (*LIES, "gone")]
    for place, lie in draw.sample(told, min(count, len(told))):
        changed = copy.deepcopy(content)
        node = changed
        for key in place[:-1]:
            node = node[key]
        if lie == "gone":
            del node[place[-1]]
        else:
            node[place[-1]] = lie
        yield f"{place}: {lie!r}", changed


def board() -> Leaderboard:
    rows = [
        Row(name, {"logme": i / 7, "leep": -i / 3}, {"logme": 0.1}, parameters=10**i, flops=10**i, fingerprint=name)
        for i, name in enumerate(("a", "b", "c", "d"))
    ]
    rows.append(Row("broken", status="ValueError: no such layer"))
    return Leaderboard(rows, info={"target": "digits", "split": "train", "overrides": ["x=1"]}, settings={"seed": 0})


def show_board(path: Path) -> None:
    found, other = Leaderboard.load(path), board()
    other.info["target"] = "letters"
    str(found), found.headline(), found.to_latex(), found.to_markdown(), found.to_html(), found.to_model_card()
    for use in (
        lambda: found.compare(other), lambda: across_targets([found, other]), lambda: merge_boards(other, found),
        lambda: found.undecided(), lambda: found.pareto(), lambda: consensus(found), lambda: found.best_score,
        lambda: add_to_folder(board(), path.parent, figure=False),
    ):  # fmt: skip
        with contextlib.suppress(ValueError):
            str(use())


def report_folder(path: Path) -> None:
    report.run([str(path.parent)])


def study() -> list[dict[str, Any]]:
    rows = []
    for target in ("t", "u"):
        for i, name in enumerate("abcde"):
            row = Row(name, {"logme": i / 7, "gbc": (-1) ** i * i}, parameters=10**i, flops=10**i)
            outcome = Outcome("full", (0.5 + i / 20, 0.5 + i / 19), 1e-3, {1e-3: 0.5, 1e-2: float("nan")}, 1.0)
            rows.append(StudyRow(target, "classification", row, {"full": outcome}, 100, 2, "x", "y", 0.5, "s", "f"))
    return [json.loads(json.dumps(row.to_dict())) for row in rows]


def show_study(path: Path) -> None:
    table = StudyTable.load(path)
    str(table), table.headline()
    assert StudyTable.load(path).to_text() == table.to_text()


def show_evidence(path: Path) -> None:
    evidence = Evidence.load(path)
    consensus(board(), evidence=evidence)
    evidence.save(path)


EVIDENCE = {"format": 1, "origin": "mine", "pairs": [["logme", "leep", 1.5, 3], ["logme", "truth", 0.5, 3]]}
BOUND = {
    "format": 2, "backbone": "net", "reference": "digits", "target": "letters", "bound": 0.7,
    "baseline": {"bound": 0.5, "copies": [0.6, 0.7, 0.8]},
    **dict.fromkeys(FIGURES, 0.25), "label_map": [[0.5, 0.5], [0.1, 0.9]],
    "reference_class_names": ["a", "b"], "target_class_names": ["c", "d"],
}  # fmt: skip
RUN = {
    "format": 2, "overrides": ["epochs=3"], "objective": {"val/accuracy": 0.7}, "direction": "max",
    "logged": {"x": 1.0},
    "test": {"test/accuracy": 0.5}, "history": {"m": [{"epoch": 0, "step": 1, "logme": 0.5}]}, "stopped": ["early"],
    "best_checkpoint": "x.ckpt",
}  # fmt: skip
KINDS: dict[str, tuple[str, Callable[[], Any], Callable[[Path], None]]] = {
    "leaderboard": ("leaderboard.json", lambda: json.loads(board()._encode()), show_board),
    "page of a leaderboard": ("leaderboard.json", lambda: json.loads(board()._encode()), report_folder),
    "page of a bound": ("relatedness.json", lambda: BOUND, report_folder),
    "page of a run": ("finetune.json", lambda: RUN, report_folder),
    "study": ("study.jsonl", study, show_study),
    "evidence": ("evidence.json", lambda: EVIDENCE, show_evidence),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_another_kind(kind, tmp_path, capsys):
    name, make, show = KINDS[kind]
    content = make()
    path = tmp_path / name
    accepted = 0
    for lie, changed in lies(content, count := PAIRS.get(kind, 150)):
        for left in tmp_path.glob("*"):
            if left.is_file():
                left.unlink()
        lines = [json.dumps(row) for row in changed] if name.endswith("l") else [json.dumps(changed)]
        path.write_text("\n".join(lines))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                show(path)
                accepted += 1
            except ValueError:
                pass
            except Exception as error:
                pytest.fail(f"{lie}: {type(error).__name__}: {error}")
    assert 0 < accepted < count, "nothing was a lie, or all"
    assert not set(capsys.readouterr().out) & set("\x1b\x07")


def nets() -> dict[str, ModuleBackbone]:
    torch.manual_seed(0)
    return {
        f"net{n}": ModuleBackbone(nn.Sequential(nn.Flatten(), nn.Linear(64, n)), (1, 8, 8), head=None) for n in (4, 6)
    }


OPTIONS = {"metrics": ["h_score"], "epochs": 1, "trainer": {"accelerator": "cpu"}, "progress": False}


@pytest.mark.parametrize(
    "harm", [{"curves": []}, {"curves": {"net4": {}}}, {"curves": {"net4": {"seconds": "x"}}}, {"screen_seconds": None}]
)
def test_a_selection_that_is_damaged(tmp_path, harm):
    select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path, **OPTIONS)
    file = tmp_path / "select.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **harm}))
    with pytest.raises(ValueError, match=r"select\.json"):
        select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path, **OPTIONS)


def test_a_checkpoint_of_a_selection_that_is_damaged(tmp_path):
    first = select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path, **OPTIONS)
    first.checkpoint.write_bytes(first.checkpoint.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="begins anew"):
        again = select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path, **OPTIONS)
    assert again.value == first.value


class Payload:
    """Unpickling this makes the marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_checkpoint_to_go_on_from_runs_no_code(tmp_path):
    values = [Payload(tmp_path / "marker")]
    torch.save({"state_dict": {}, "callbacks": {"RecordCurve": {"values": values}}}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        WholeCheckpoints().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    first = select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path / "run", **OPTIONS)
    first.checkpoint.write_bytes((tmp_path / "x.ckpt").read_bytes())
    with pytest.warns(UserWarning, match="begins anew"):
        select(nets(), Digits(max_samples=60), budget="3 epochs", output_dir=tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "marker").exists()


def test_counts_of_a_leaderboard_are_text_in_a_model_card():
    found = board()
    found.info["num_samples"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in found.to_model_card()
