"""What is typed, in any order and with any names of files."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lightning_transfer.jobs.arguments import (
    arrange,
    config_folders,
    data_words,
    find_mistake,
    override,
    resume_command,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=1", "-m", "b=2,3"], ["-m", "a=1", "b=2,3"]),
        (["a=1", "--config-dir", "conf", "b=2"], ["--config-dir", "conf", "a=1", "b=2"]),
        (["a=1", "-cd=conf"], ["-cd=conf", "a=1"]),
        (["--cfg", "job", "a=1"], ["--cfg", "job", "a=1"]),
        (["~reference", "-m"], ["-m", "~reference"]),
        (["logger=null", "max_samples=null"], ["~logger", "max_samples=null"]),
        ([], []),
    ],
)
def test_options_come_first(given, expected):
    assert arrange(given) == expected


def test_the_home_folder_and_spaces_in_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert arrange(["target.root=~/pictures"]) == ["target.root=/home/somebody/pictures"]
    assert arrange(["target.root=~/a,~/b", "x=a~b"]) == ["target.root=/home/somebody/a,/home/somebody/b", "x=a~b"]
    assert arrange(["target.path=train-{000..007}.tar", "x={a: b}", "y='{1..2}'"]) == [
        "target.path='train-{000..007}.tar'", "x={a: b}", "y='{1..2}'"
    ]  # fmt: skip
    assert arrange(["--config-dir", "~/conf"]) == ["--config-dir", "/home/somebody/conf"]
    odd = tmp_path / "it's (mine), really = {yes}"
    odd.mkdir()
    (arranged,) = arrange([f"target.root={odd}"])
    assert OverridesParser.create().parse_override(arranged).value() == str(odd)


@pytest.mark.parametrize(
    "value", ["plain/path", "two words", "it's", "a,b", "x=1", "[list]", r"back\slash", "$dollar", "end\\", r"\'"]
)
def test_overrides_say_what_they_should(value):
    assert OverridesParser.create().parse_override(override("key", value)).value() == value


def test_folders_of_configs():
    assert config_folders(["--config-dir", "a", "x=1", "-cd=b"]) == [Path("a"), Path("b")]


def test_what_to_type_to_go_on(tmp_path):
    folder = tmp_path / "out puts"
    folder.mkdir()
    asked = ["target=digits", "resume=old", "hydra.run.dir=here"]
    assert resume_command("run", "screen", asked, folder) == shlex.join(
        ["run", "screen", *asked]
    )  # nothing to go on from
    (folder / "leaderboard.json").touch()
    words = shlex.split(resume_command("run", "screen", asked, folder))
    assert words == ["run", "screen", "target=digits", f"resume={folder}"]
    words = shlex.split(resume_command("run", "screen", ["-m", "backbone=a,b"], folder))
    assert words == ["run", "screen", "-m", "backbone=a,b", f"hydra.sweep.dir={folder}", "resume=auto"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["target=x", "-m"],
        ["--config-dir", "a b"],
        ["--config-dir=a"],
        ["~callbacks"],
        ["--multi"],
        ["--cfg", "job", "a=1"],
    ],
)
def test_no_mistake(arguments):
    assert find_mistake(arguments) is None


def test_what_to_type_for_data_that_are_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my photos/cat", "saved", "shards"):
        Path(name).mkdir(parents=True)
    for name in ("saved/dataset_info.json", "shards/0.tar", "reviews.CSV", "a.npz", "notes.doc"):
        Path(name).touch()
    assert data_words("my photos") == "target=image_folder 'target.root=my photos'"
    assert [data_words(odd) for odd in ("", "a" * 5000, "~nobody-of-that-name/x")] == [None] * 3
    assert data_words("saved", "reference") == "reference=hugging_face reference.data=saved"
    assert data_words("shards") == "target=shards target.path=shards"
    assert data_words("reviews.CSV") == "target=text target.path=reviews.CSV target.text=COLUMN target.label=COLUMN"
    assert data_words("a.npz") == "target=npz target.path=a.npz"
    assert data_words("notes.doc") is None
    assert data_words("nowhere") is None


def test_a_blank_in_a_path_needs_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my own pictures").mkdir()
    said = find_mistake(["target=image_folder", "target.root=my", "own", "pictures", "backbone=a"])
    assert said == "'own' gives no value; a blank needs quotes: type 'target.root=my own pictures'."
