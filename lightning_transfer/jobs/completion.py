"""Completion of what is typed in a shell; nothing heavy is imported, it has to answer between two keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_transfer.configs import known_configs, read_config
from lightning_transfer.jobs.arguments import config_folders
from lightning_transfer.jobs.record import JOBS

_MEMBER = re.compile(r"[,\[]")
_KEY = re.compile(r"^(\w+):", re.MULTILINE)
_HARMLESS = re.compile(r"[\w.,=@+/\[\]-]* ?")  # a name with other signs would be more than a word to the shell
_WITH_OPTIONS = ("backbone.", "target.", "reference.", "optimizer.", "trainer.")  # groups of one object each
_OPTIONS = ("--help", "--config-dir", "--cfg", "--multirun", "-m")

SCRIPTS = {
    "bash": """_lightning_transfer() {
  local IFS=$'\\n'
  COMPREPLY=($(lightning-transfer --complete "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
}
complete -o nospace -o default -F _lightning_transfer lightning-transfer
""",
    "zsh": """_lightning_transfer() {
  local -a found
  found=(${(f)"$(lightning-transfer --complete "${LBUFFER}" 2>/dev/null)"})
  compset -P '*='
  compadd -S '' -a found
}
compdef _lightning_transfer lightning-transfer
""",
    "fish": """function __lightning_transfer
  set -l token (commandline -ct)
  set -l kept (string match -r '^.*=' -- $token)
  for found in (lightning-transfer --complete (commandline -cp) 2>/dev/null)
    echo $kept$found
  end
end
complete -c lightning-transfer -a '(__lightning_transfer)'
""",
}


def complete(line: str) -> list[str]:
    """What may follow the last ``=`` or blank of a line.

    Args:
        line: What was typed so far, the name of the program first.

    Returns:
        Words that begin like what stands there, members of a list with those before them; none where a file may be
        meant.

    Example:
        >>> from lightning_transfer.jobs.completion import complete
        >>> complete("lightning-transfer re"), complete("lightning-transfer screen target=drawn")
        (['relate ', 'report '], ['drawn_attributes ', 'drawn_corners '])
    """
    return [word for word in _candidates(line) if _HARMLESS.fullmatch(word)]


def _candidates(line: str) -> list[str]:
    *before, word = line.split(" ")[1:] or [""]
    before = [entry for entry in before if entry]
    if not before:
        return _starting((*JOBS, "--help", "--version"), word)
    job = JOBS.get(before[0])
    if job is None or job.plain:
        return []
    if word.startswith("-"):
        return _starting(_OPTIONS, word)
    key, equals, value = word.partition("=")
    if not equals and word.startswith(_WITH_OPTIONS):
        values = dict(entry.partition("=")[::2] for entry in before)
        options = keys_of(job.name, word, values, config_folders(before))
        return sorted(f"{name}=" for name in options if name.startswith(word) and not name.endswith("_"))
    if not equals:
        groups = [f"{group}=" for group in job.groups]
        return sorted(name for name in [*groups, *_keys(job.name)] if name.startswith(word))
    group = "backbone" if key == "zoo" and value.startswith("[") else key
    if group not in job.groups:
        return []
    last = _MEMBER.split(value)[-1]
    kept, end = value.removesuffix(last), "" if value.startswith("[") else " "
    names = known_configs(group, *config_folders(before))
    return [f"{kept}{name}{end}" for name in names if name.startswith(last)]


def keys_of(job: str, key: str, values: Mapping[str, str], folders: Sequence[Path] = ()) -> list[str]:
    """The options that a mistyped one may have meant: of the job, or of the choice that it is about.

    Args:
        job: Name of a job.
        key: What was typed, with dots.
        values: The overrides by key: they say which config of a group was chosen.
        folders: Further folders of configs.
    """
    group, dot, _ = key.partition(".")
    if not dot or group not in JOBS[job].groups:
        return [name.rstrip("=") for name in (*JOBS[job].groups, *_keys(job))]
    default = re.search(rf"- {group}: (\w+)", read_config("", job) or "")
    chosen = values.get(group) or (default[1] if default else "")
    return [f"{group}.{name}" for name in _KEY.findall(read_config(group, chosen, *folders) or "")]


def inner_keys(job: str, key: str) -> list[str]:
    """The options that have a name inside a block of a job, or of a choice that it has, with dots.

    Args:
        job: Name of a job.
        key: The name, such as ``"modes"`` of ``study.modes``.
    """
    texts = [("", read_config("", job))]
    texts += [
        (f"{g}.", read_config(g, name)) for g in JOBS[job].groups if g == "callbacks" for name in known_configs(g)
    ]
    found, block = [], ""
    for place, text in texts:
        for line in (text or "").splitlines():
            if top := _KEY.match(line):
                block = top[1]
            elif line.startswith(f"  {key}:"):
                found.append(f"{place}{block}.{key}")
    return found


def _keys(job: str) -> list[str]:
    """The options of a job: keys of its config that are no groups."""
    text = read_config("", job) or ""
    return [f"{key}=" for key in _KEY.findall(text) if key not in ("defaults", "hydra")]


def _starting(names: Sequence[str], beginning: str) -> list[str]:
    return sorted(f"{name} " for name in names if name.startswith(beginning))
