"""The packaged configs by name, for code that does not run under Hydra's command line."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Traversable

    from omegaconf import DictConfig

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


def load_config(group: str, name: str) -> DictConfig:
    """Compose one packaged config, also from within a Hydra application.

    Args:
        group: A folder of ``conf/``.
        name: A name from ``known_configs(group)``.

    Raises:
        ValueError: If there is no such config; the message says what is known.

    Example:
        >>> from lightning_transfer.utilities.configs import load_config
        >>> load_config("logger", "csv").csv._target_
        'lightning.pytorch.loggers.CSVLogger'
    """
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    if name not in (known := known_configs(group)):
        raise ValueError(f"Expected argument `{group}` to be one of {', '.join(known)}, but got {name!r}.")
    application = GlobalHydra.instance().hydra
    GlobalHydra.instance().hydra = None
    try:
        with initialize_config_module(CONF, version_base="1.3"):
            return cast("DictConfig", compose(config_name=f"{group}/{name}")[group])
    finally:
        GlobalHydra.instance().hydra = application


def _conf() -> Traversable:
    return files(CONF)
