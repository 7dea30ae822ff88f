"""The one way from a config to an object: Hydra's ``instantiate`` behind an allowlist.

A config file is data that may come from somebody else, and ``_target_`` can name any callable of any installed module.
Only classes and functions that are *defined* in the places below are built; a name that merely passes through one of
them (a module's own imports, say) is refused too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

ALLOWED = (
    "lightning_transfer.backbones",
    "lightning_transfer.callbacks",
    "lightning_transfer.data",
    "lightning_transfer.finetuning",
    "lightning_transfer.metrics",
    "lightning_transfer.relatedness",
    "lightning.pytorch.accelerators",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
    "lightning.pytorch.plugins",
    "lightning.pytorch.profilers",
    "lightning.pytorch.strategies",
    "lightning.pytorch.trainer",
    "torch.nn",
    "torch.optim",
    "torchmetrics",
)
_SHORT_NAMES = ("lightning_transfer", "lightning.pytorch")  # packages that re-export: lightning.pytorch.Trainer
_REFUSED = ("torchmetrics.utilities",)
EXTRA_VARIABLE = "LIGHTNING_TRANSFER_ALLOW"


def instantiate(config: Any, *, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Build what a config describes, if everything that it names is allowed.

    Args:
        config: A dict or OmegaConf node with ``_target_`` (or lists and dicts of such nodes).
        allow: Further packages to trust, for example ``("my_package",)``. The environment variable
            ``LIGHTNING_TRANSFER_ALLOW`` (names separated by commas) adds to them.
        **kwargs: Passed on to the object.

    Returns:
        The object; dicts and lists in its arguments are plain Python ones.

    Raises:
        ValueError: If a ``_target_`` anywhere in the config is not allowed or does not exist, or a value is missing.
        Exception: What the object's own constructor raises.

    Example:
        >>> from lightning_transfer.utilities.instantiate import instantiate
        >>> instantiate({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1})
        Linear(in_features=2, out_features=1, bias=True)
        >>> instantiate({"_target_": "os.system", "command": "true"})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: `_target_: os.system` is not allowed here: ...
    """
    import hydra.utils
    from hydra.errors import InstantiationException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if OmegaConf.is_config(config):
        try:
            config = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ValueError(str(error).splitlines()[0]) from error
    for target in find_targets(config):
        check_target(target, allow)
    try:
        return hydra.utils.instantiate(config, _convert_="all", **kwargs)
    except InstantiationException as error:
        if isinstance(error.__cause__, Exception):
            raise error.__cause__ from None  # the object's own words, without Hydra's frames around them
        raise ValueError(str(error).splitlines()[0]) from error


def find_targets(config: Any) -> Iterator[str]:
    """Every ``_target_`` inside nested dicts and lists.

    Raises:
        ValueError: If one is no string.
    """
    if isinstance(config, dict):
        if "_target_" in config:
            if not isinstance(config["_target_"], str):
                raise ValueError(f"Expected `_target_` to be a dotted name, but got {config['_target_']!r}.")
            yield config["_target_"]
        for value in config.values():
            yield from find_targets(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from find_targets(value)


def check_target(target: str, allow: Sequence[str] = ()) -> Any:
    """Resolve a dotted name if it is allowed.

    Args:
        target: For example ``"lightning_transfer.data.DigitsDataModule"``.
        allow: Further trusted packages.

    Returns:
        The class or function.

    Raises:
        ValueError: If the name or the place where it is defined is not allowed, or there is no such name.
    """
    from hydra.utils import get_object

    extra = [name.strip() for name in os.environ.get(EXTRA_VARIABLE, "").split(",") if name.strip()]
    trusted = (*ALLOWED, *allow, *extra)
    parent, _, name = target.rpartition(".")
    if not (_is_inside(target, trusted) or parent in _SHORT_NAMES) or name.startswith("_"):
        raise ValueError(_refusal(target, trusted))
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError) as error:
        missing = error.__cause__ or error
        if isinstance(missing, ModuleNotFoundError) and not str(missing.name or "").startswith(target.split(".")[0]):
            raise missing from None  # the place is right and something that it needs is not installed
        raise ValueError(f"`_target_: {target}` does not exist.") from error
    home = getattr(found, "__module__", None) or ""
    if not callable(found) or not _is_inside(f"{home}.{name}", trusted) or _is_inside(home, _REFUSED):
        raise ValueError(_refusal(target, trusted))
    return found


def _is_inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _refusal(target: str, trusted: Sequence[str]) -> str:
    return (
        f"`_target_: {target}` is not allowed here: configs build classes and functions of {', '.join(trusted)}. "
        f"Set {EXTRA_VARIABLE}=package to trust one of your own."
    )
