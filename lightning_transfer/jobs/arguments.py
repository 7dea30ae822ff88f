"""What is typed after the name of a job, made into what Hydra understands; nothing heavy is imported."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise, takewhile
from pathlib import Path

from lightning_transfer.configs import known_configs

_CONFIG_DIR = ("--config-dir", "-cd")
_WITH_VALUE = {
    "--config-dir": "FOLDER", "-cd": "FOLDER", "--config-path": "FOLDER", "-cp": "FOLDER", "--config-name": "NAME",
    "-cn": "NAME", "--package": "PACKAGE", "-p": "PACKAGE", "--cfg": "job", "-c": "job",
}  # fmt: skip
_OPTIONS = (
    "--help", "--multirun", "--config-dir", "--cfg", "--resolve", "--package", "--info", "--hydra-help", "--version",
    "--run", "--config-path", "--config-name", "--shell-completion", "--experimental-rerun",
)  # fmt: skip
_CONFIGS = ("job", "hydra", "all")  # what --cfg shows
_SHORT = ("-h", "-m", "-cd", "-c", "-p", "-i", "-r", "-cp", "-cn", "-sc")
_WILD = frozenset("*?:%")
_LIBRARIES = ("timm/", "torchvision/", "hf/", "transformers/", "open_clip/", "st/", "sentence-transformers/")
_PLAIN = re.compile(r"[\w/.+@ :%*-]*")  # values that Hydra's grammar takes without quotes
_QUOTE = re.compile(r"(\\*)('|$)")  # with the backslashes before it, which mean something only there
_BRACES = re.compile(r"[^'\"\[{].*\{\w+\.\.\w+\}.*")  # a range of files, which Hydra takes for a dict
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
_NAMED_GROUPS = ("backbone", "zoo", "target", "metrics")  # whose names are typed alone by mistake
_ABOUT_RESUMING = ("resume=", "ckpt_path=", "hydra.run.dir=", "hydra.sweep.dir=")


def arrange(arguments: Sequence[str]) -> list[str]:
    """Options first, overrides after them; ``~`` is the home folder, and names of files need no quotes.

    Where a name of a config belongs, ``null`` chooses nothing, as Hydra's ``~GROUP`` does.

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
        >>> arrange(["target=digits", "logger=null"])
        ['target=digits', '~logger']
    """
    options: list[str] = []
    overrides: list[str] = []
    pending = list(arguments)
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            key, _, value = argument.partition("=")
            overrides.append(f"~{key}" if value == "null" and known_configs(key) else _tidy(argument))
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


_OF_ONE = ("target", "reference", "optimizer")  # groups that give one object


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
    before = ""
    while pending:
        argument = pending.pop(0)
        if not argument.startswith("-"):
            key, equals, value = argument.partition("=")
            if not equals and not argument.startswith("~"):
                return _no_value(argument, before, pending)
            before = argument
            if key != key.rstrip():
                return f"{argument!r} has a space before '=': type {key.rstrip()}={value.lstrip() or 'VALUE'}."
            if value.startswith("="):
                return f"{argument!r} has two '=': type {key}={value.lstrip('=').lstrip() or 'VALUE'}."
            if key in _OF_ONE and value.startswith("[") and value.endswith("]"):
                names = value.strip("[]")
                return f"{argument!r} is a list where one name belongs: for several type -m {key}={names}."
            if value.startswith("[") and not value.endswith("]"):
                return f"{argument!r} opens a list and does not close it: type '{key}=[NAME,NAME]', quotes included."
        elif argument in _WITH_VALUE:
            if not pending or pending[0].startswith("-"):
                return f"{argument} needs what it is about behind it: type {argument} {_WITH_VALUE[argument]}."
            if mistake := _find_misused(argument, pending.pop(0)):
                return mistake
        elif mistake := _find_misused(*argument.partition("=")[::2]):
            return mistake
        elif not _is_option(argument.partition("=")[0]):
            close = get_close_matches(argument, _OPTIONS, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            if not close and argument.startswith("--"):
                value = pending[0] if pending and "=" not in pending[0] and pending[0][:1] != "-" else "VALUE"
                words = argument[2:] if "=" in argument else f"{argument[2:]}={value}"
                meant = f"values are given without dashes: type {words}; "
            return f"unknown option {argument}; {meant}known are {', '.join(_OPTIONS)}."
    values = dict(argument.partition("=")[::2] for argument in arguments)
    zoo, backbone = values.get("zoo", "null"), values.get("backbone", "null")
    if "null" not in (zoo, backbone):
        return (
            f"zoo={zoo} and backbone={backbone} are two choices of what to take: type one of them, or several names as "
            "'zoo=[NAME,NAME]'."
        )
    return None


def _no_value(word: str, before: str, after: Sequence[str]) -> str:
    """What to type for a word that is no override: the name of a choice, data, or the rest of a path with blanks."""
    words = [before, word, *takewhile(lambda other: "=" not in other and other[:1] not in "-~", after)]
    for size in range(len(words), 1, -1):
        whole = " ".join(words[:size])
        if os.path.exists(os.path.expanduser(whole.partition("=")[2])):
            return f"{word!r} gives no value; a blank needs quotes: type {shlex.quote(whole)}."
    if word == "help":
        return "'help' gives no value: type --help."
    group = next((group for group in _NAMED_GROUPS if word in known_configs(group)), "")
    meant = data_words(word) or (f"{group}={word}" if group else f"{word.partition(':')[0]}=VALUE")
    return f"{word!r} gives no value: type {meant}."


def _find_misused(option: str, value: str) -> str | None:
    if option in ("--cfg", "-c") and value not in _CONFIGS:
        return f"{option} shows one of {', '.join(_CONFIGS)}, not {value!r}: type {option} job."
    if option in ("--config-path", "-cp"):
        return f"the configs of the jobs stay where they are; for those in {value} type --config-dir {value}."
    if option in ("--config-name", "-cn"):
        return f"a job has its own config, not {value!r}: type the job first, as in lightning-transfer screen."
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
    named = os.path.exists(value) or _BRACES.fullmatch(value)
    return override(key, value) if named and not _PLAIN.fullmatch(value) else f"{key}={value}"
