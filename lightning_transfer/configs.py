"""The packaged configs by name, for code that does not run under Hydra's command line."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lightning_transfer.metrics import SCORES

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = "lightning_transfer.conf"
_PARENT = re.compile(r"\s*- (/(?P<group>\w+)/)?(?P<name>\w+)(@_here_)?$")


def known_configs(group: str, *folders: str | Path) -> list[str]:
    """Names of the configs of a group, sorted.

    Args:
        group: A folder of ``conf/``, for example ``"target"``, or a group whose configs are generated.
        folders: Further folders of configs.

    Example:
        >>> from lightning_transfer.configs import known_configs
        >>> "csv" in known_configs("logger")
        True
    """
    names = {path.stem for place in (_conf(), *map(Path, folders)) for path in (place / group).glob("*.yaml")}
    if group == "reference":
        names |= set(known_configs("target", *folders))
    if group == "metrics":
        names |= set(SCORES)
    return sorted(names)


def read_config(group: str, name: str, *folders: str | Path) -> str | None:
    """The text of a config with its comments: what it is, and what each value means.

    Args:
        group: As for :func:`known_configs`.
        name: Name of the config.
        folders: Further folders of configs.

    Returns:
        The text, with that of the configs of its group that it builds on; None if there is no such config.

    Example:
        >>> from lightning_transfer.configs import read_config
        >>> print(read_config("logger", "csv").splitlines()[0])
        csv:
    """
    if name not in known_configs(group, *folders):
        return None
    paths = [place / group / f"{name}.yaml" for place in (*map(Path, folders), _conf())]
    text = next((path.read_text(encoding="utf-8") for path in paths if path.is_file()), None)
    if text is None:
        return read_config("target", name, *folders) if group == "reference" else f"{name}: {{}}\n"
    lines, parents = [], []
    for line in text.splitlines():
        if parent := _PARENT.match(line):
            parents.append(parent)
        elif line.strip() not in ("defaults:", "- _self_"):
            lines.append(line)
    bases = [read_config(parent["group"] or group, parent["name"], *folders) for parent in parents]
    return "\n".join([*lines, *(base.rstrip() for base in bases if base)]) + "\n"


def load_config(group: str, name: str) -> DictConfig:
    """Compose one packaged config, also from within a Hydra application.

    Args:
        group: A folder of ``conf/``.
        name: A name from ``known_configs(group)``.

    Raises:
        ValueError: If there is no such config; the message says what is known.

    Example:
        >>> from lightning_transfer.configs import load_config
        >>> load_config("logger", "csv").csv._target_
        'lightning.pytorch.loggers.CSVLogger'
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    if name not in (names := known_configs(group)):
        near = get_close_matches(name, names, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"Expected argument `{group}` to be one of {', '.join(names)}, but got {name!r}{meant}")
    application = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        with initialize_config_module(CONF, version_base="1.3"):
            return cast("DictConfig", compose(config_name=f"{group}/{name}")[group])
    finally:
        GlobalHydra.instance().hydra = application


def _conf() -> Path:
    """The folder, found without importing what fills Hydra's store."""
    spec = find_spec(CONF)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"The configs `{CONF}` are not installed.", name=CONF)
    return Path(next(iter(spec.submodule_search_locations)))
