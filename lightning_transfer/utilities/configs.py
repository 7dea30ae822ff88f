"""The packaged configs by name, for code that does not run under Hydra's command line."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, cast

CONF = "lightning_transfer.conf"


def known_configs(group: str) -> list[str]:
    """Names of the configs of a group, sorted.

    Args:
        group: A folder of ``conf/``, for example ``"target"``.

    Example:
        >>> from lightning_transfer.utilities.configs import known_configs
        >>> "csv" in known_configs("logger")
        True
    """
    folder = _conf() / group
    if not folder.is_dir():
        return []
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(group: str, name: str) -> dict[str, Any]:
    """Read one packaged config.

    Args:
        group: A folder of ``conf/``.
        name: A name from ``known_configs(group)``.

    Raises:
        ValueError: If there is no such config; the message says what is known.
    """
    from omegaconf import OmegaConf

    if name not in known_configs(group):
        raise ValueError(
            f"Expected argument `{group}` to be one of {', '.join(known_configs(group))}, but got {name!r}."
        )
    config = OmegaConf.create((_conf() / group / f"{name}.yaml").read_text(encoding="utf-8"))
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True))


def _conf() -> Traversable:
    return files(CONF)
