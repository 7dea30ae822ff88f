"""What is typed after the name of a job, made into what Hydra understands; nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

_CONFIG_DIR = ("--config-dir", "-cd")
_WITH_VALUE = {
    "--config-dir": "FOLDER", "-cd": "FOLDER", "--config-path": "FOLDER", "-cp": "FOLDER", "--config-name": "NAME",
    "-cn": "NAME", "--package": "PACKAGE", "-p": "PACKAGE", "--cfg": "job", "-c": "job",
}  # fmt: skip
_OPTIONS = (
    "--help", "--multirun", "--config-dir", "--cfg", "--resolve", "--package", "--info", "--hydra-help", "--version",
    "--run", "--config-path", "--config-name", "--shell-completion", "--experimental-rerun",
)  # fmt: skip
_SHORT = ("-h", "-m", "-cd", "-c", "-p", "-i", "-r", "-cp", "-cn", "-sc")
_WILD = frozenset("*?:%")
_LIBRARIES = ("timm/", "torchvision/", "hf/", "transformers/", "open_clip/", "st/", "sentence-transformers/")
_PLAIN = re.compile(r"[\w/.+@ :%*-]*")  # values that Hydra's grammar takes without quotes
_QUOTE = re.compile(r"(\\*)('|$)")  # with the backslashes before it, which mean something only there
_HOME = re.compile(r"(?<=[=,\[])~(?=/|$|,|\])")
_IN_FOLDERS = {  # what tells a kind of data, its config, and the key of the folder
    "dataset_info.json": ("hugging_face", "data"),
    "dataset_dict.json": ("hugging_face", "data"),
    "*.tar": ("shards", "path"),
    "*-idx3-ubyte*": ("idx", "root"),
}
_IN_FILES = {
    **dict.fromkeys((".csv", ".tsv", ".parquet"), ("text", "text", "label")), ".npz": ("npz",), ".tar": ("shards",)
}  # fmt: skip
_RESULTS = (
    "leaderboard.json", "finetune.json", "relatedness.json", "study.jsonl", "select.json", "checkpoints/last.ckpt",
)  # fmt: skip
_ABOUT_RESUMING = ("resume=", "ckpt_path=", "hydra.run.dir=", "hydra.sweep.dir=")


def arrange(arguments: Sequence[str]) -> list[str]:
    """Options first, overrides after them; ``~`` is the home folder, and names of files need no quotes.

    Args:
        arguments: In any order.

    Returns:
        The same for Hydra.

    Example:
        >>> from lightning_transfer.jobs.arguments import arrange
        >>> arrange(["target=mine", "-m", "--config-dir", "conf"])
        ['-m', '--config-dir', 'conf', 'target=mine']
        >>> arrange(["backbone=timm/resnet18", "backbone.pretrained=false"])
        ['backbone=named', '++backbone.backbone=timm/resnet18', '++backbone.pretrained=false']
    """
    options: list[str] = []
    overrides: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            overrides.append(_tidy(argument))
            continue
        options.append(argument)
        if argument in _WITH_VALUE and pending:
            options.append(os.path.expanduser(pending.pop(0)))
    return [*options, *_by_name(overrides)]


def _by_name(overrides: Sequence[str]) -> list[str]:
    """Names of libraries, paths and lists in place of a config: ``backbone=timm/resnet18``, ``zoo=[timm/vit*]``."""
    values = dict(entry.partition("=")[::2] for entry in overrides)
    named = _is_name(values.get("backbone", ""))
    arranged = []
    for entry in overrides:
        key, _, value = entry.partition("=")
        if key in ("zoo", "backbone") and value.startswith("["):
            arranged += ["zoo=named", f"zoo.names={_quote_members(value)}"]
        elif key == "backbone" and named:
            arranged += ["backbone=named", f"++backbone.backbone={value}"]
        else:
            arranged.append(f"++{entry}" if named and key.startswith("backbone.") else entry)
    return arranged


def _is_name(value: str) -> bool:
    first = value.partition(",")[0]
    return first.startswith(_LIBRARIES) or (("/" in first or "." in first) and os.path.exists(first))


def _quote_members(value: str) -> str:
    """A list with quotes around members that are patterns."""
    members = (member.strip() for member in value.strip("[]").split(","))
    return f"[{','.join(repr(member) if set(member) & _WILD else member for member in members)}]"


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """The folders that ``--config-dir`` names."""
    folders = [value for option, value in pairwise(arguments) if option in _CONFIG_DIR]
    folders += [
        argument.partition("=")[2] for argument in arguments if argument.startswith(tuple(f"{o}=" for o in _CONFIG_DIR))
    ]
    return [Path(folder) for folder in folders]


def find_mistake(arguments: Sequence[str]) -> str | None:
    """What Hydra would answer with its whole usage, or in words of its grammar, in one line.

    Args:
        arguments: As typed.

    Example:
        >>> from lightning_transfer.jobs.arguments import find_mistake
        >>> find_mistake(["target"])
        "'target' gives no value: type target=VALUE."
    """
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            key, equals, value = argument.partition("=")
            if not equals and not argument.startswith("~"):
                words = data_words(argument) or f"{argument.partition(':')[0]}=VALUE"
                return f"{argument!r} gives no value: type {words}."
            if key != key.rstrip():
                return f"{argument!r} has a space before '=': type {key.rstrip()}={value.lstrip() or 'VALUE'}."
            if value.startswith("="):
                return f"{argument!r} has two '=': type {key}={value.lstrip('=').lstrip() or 'VALUE'}."
            if value.startswith("[") and not value.endswith("]"):
                return f"{argument!r} opens a list and does not close it: type '{key}=[NAME,NAME]', quotes included."
        elif argument in _WITH_VALUE:
            if not pending or pending[0].startswith("-"):
                return f"{argument} needs what it is about behind it: type {argument} {_WITH_VALUE[argument]}."
            pending.pop(0)
        elif not _is_option(argument.partition("=")[0]):
            close = get_close_matches(argument, _OPTIONS, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            if not close and argument.startswith("--"):
                value = pending[0] if pending and "=" not in pending[0] and pending[0][:1] != "-" else "VALUE"
                words = argument[2:] if "=" in argument else f"{argument[2:]}={value}"
                meant = f"values are given without dashes: type {words}; "
            return f"unknown option {argument}; {meant}known are {', '.join(_OPTIONS)}."
    return None


def _is_option(argument: str) -> bool:
    if argument.startswith("--"):
        return any(option.startswith(argument) for option in _OPTIONS)
    return argument in _SHORT


def data_words(path: str, group: str = "target") -> str | None:
    """What to type for data in a file or folder; None if there is none.

    Args:
        path: What was given for the name of a config.
        group: ``"target"`` or ``"reference"``.
    """
    try:
        place = Path(path).expanduser()
        if not path or not place.exists():
            return None
    except (OSError, RuntimeError):  # a name that is too long, a place that is not for us, nobody's home
        return None
    if place.is_dir():
        kind, key = next(
            (found for pattern, found in _IN_FOLDERS.items() if any(place.glob(pattern))), ("image_folder", "root")
        )
        return shlex.join([f"{group}={kind}", f"{group}.{key}={path}"])
    if not place.is_file():
        return None
    kind, *columns = _IN_FILES.get(place.suffix.lower(), ("",))
    words = [f"{group}={kind}", f"{group}.path={path}", *(f"{group}.{column}=COLUMN" for column in columns)]
    return shlex.join(words) if kind else None


def override(key: str, value: str) -> str:
    """An override as Hydra's grammar takes it, whatever is in its value."""
    if _PLAIN.fullmatch(value) and value == value.strip():
        return f"{key}={value}"
    quoted = _QUOTE.sub(lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"{key}='{quoted}'"


def resume_command(program: str, job: str, arguments: Sequence[str], folder: Path | None) -> str:
    """What to type to go on with an interrupted run or sweep.

    Args:
        program: Name of the command.
        job: Name of the job.
        arguments: What was typed after it.
        folder: Where the run or the sweep wrote; none if nothing was written yet.
    """
    sweeping = "-m" in arguments or "--multirun" in arguments
    if folder is None or (not sweeping and not any((folder / name).exists() for name in _RESULTS)):
        return shlex.join([program, job, *arguments])
    kept = [argument for argument in arguments if not argument.lstrip("+").startswith(_ABOUT_RESUMING)]
    going_on = (
        [override("hydra.sweep.dir", str(folder)), "resume=auto"] if sweeping else [override("resume", str(folder))]
    )
    return shlex.join([program, job, *kept, *going_on])


def _tidy(argument: str) -> str:
    """An override with ``~`` replaced and, if its value names a file that is there, with quotes where needed."""
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    value = _HOME.sub(lambda match: os.path.expanduser("~"), f"={value}")[1:]
    return override(key, value) if not _PLAIN.fullmatch(value) and os.path.exists(value) else f"{key}={value}"
