"""Data by name: a choice of the configs, a config, a path, or whatever holds data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from omegaconf import OmegaConf

from lightning_transfer.configs import known_configs, load_config
from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.data.sources import UnknownSourceError, as_datamodule
from lightning_transfer.utilities.instantiate import instantiate
from lightning_transfer.utilities.notice import warn_user


def load_data(data: Any, group: str, keys: Mapping[str, Any] | None = None) -> LightningDataModule:
    """Make a datamodule of a name, a config, or whatever holds data.

    Args:
        data: A name from ``conf/target`` or ``conf/reference``, a config with ``_target_``, or what
            :func:`lightning_transfer.data.as_datamodule` takes.
        group: ``"target"``, ``"reference"`` or ``"data"``: what the argument is called.
        keys: ``input_key``, ``label_key`` and ``group_key`` for what holds data; the last for datamodules of this
            package too.

    Raises:
        ValueError: If a name is unknown, there is no such path, the config gives no datamodule, or there are no columns
            to read groups from.
    """
    choices = "target" if group == "data" else group
    names = known_configs(choices) if isinstance(data, (str, Path)) else []
    if isinstance(data, str) and data in names:
        data = load_config(choices, data)
    elif isinstance(data, (str, Path)) and not _exists(data):
        near = get_close_matches(str(data), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Expected argument `{group}` to be one of {', '.join(names)}, or a path, but there is no "
            f"such name, file or folder: {str(data)!r}{hint}"
        )
    if OmegaConf.is_config(data) or (isinstance(data, Mapping) and "_target_" in data):
        try:
            data = instantiate(data)
        except TypeError as error:  # an argument that is unknown or missing
            raise ValueError(f"{group}: {error}") from error
        if not isinstance(data, LightningDataModule):
            raise ValueError(f"Expected argument `{group}` to be a datamodule, config or name, but got {data!r}.")
    if group != "reference" and isinstance(data, LightningDataModule) and getattr(data, "names_batches", False):
        _say_what_is_not_read(data, group, keys or {})
    try:
        loaded = as_datamodule(Path(data).expanduser() if isinstance(data, str) else data, **(keys or {}))
        groups = (keys or {}).get("group_key")
        if groups is None or not isinstance(loaded, TransferDataModule) or loaded.groups == groups:
            return loaded
        return loaded.with_groups(groups)
    except UnknownSourceError as error:
        if isinstance(data, Mapping):
            raise ValueError(
                f"Expected argument `{group}` to be a config with `_target_`, or data by split (train, val, test), but "
                f"got the keys {', '.join(map(str, data))}; tensors or lists are handed in as a pair, (inputs, labels)."
            ) from error
        raise ValueError(
            f"Expected argument `{group}` to be a datamodule, config or name, but got "
            f"{' '.join(repr(data).split()):.100}. {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{group}: {error}") from error


def _say_what_is_not_read(data: LightningDataModule, group: str, keys: Mapping[str, Any]) -> None:
    unread = [f"{name}={keys[name]!r}" for name in ("input_key", "label_key") if keys.get(name) is not None]
    if unread:
        what = f"{' and '.join(unread)} is not read"
        warn_user(f"{group}: {what}, since {type(data).__name__} says itself what its inputs and labels are")


def _exists(path: str | Path) -> bool:
    """Whether there is such a file or folder, as far as that can be told; nothing is no folder."""
    with suppress(OSError, RuntimeError):  # a name that is too long, a place that is not for us, nobody's home
        return str(path) != "" and Path(path).expanduser().exists()
    return False
