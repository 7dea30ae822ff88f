"""The one way from a config to an object, behind an allowlist.

A config file is data that may come from somebody else, and ``_target_`` can name any callable of any installed module.
Only classes and functions that are *defined*, at the top level of a module, in the places below are built: no methods,
nothing private, and no name that merely passes through one of the places (a module's own imports, say).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
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
_REFUSED = (  # inside the places above: starts processes, reads networks that it was not made of, or writes anywhere
    "lightning_transfer.data.npm",
    "lightning.pytorch.strategies.launchers",
    "lightning.pytorch.trainer.connectors",
    "torchmetrics.audio",
    "torchmetrics.functional",
    "torchmetrics.image",
    "torchmetrics.multimodal",
    "torchmetrics.text",
    "torchmetrics.utilities",
    "torchmetrics.video",
)
_HARMLESS = {
    "weights_only": (True, None),
    "trust_remote_code": (False, None),
    "trust_program": (False, None),
    "allow_pickle": (False, None),
}
_trusted_nodes: list[Any] = []  # whose `trust_program: true` the user typed
EXTRA_VARIABLE = "LIGHTNING_TRANSFER_ALLOW"


def instantiate(config: Any, *, allow: Sequence[str] = (), **kwargs: Any) -> Any:
    """Build what a config describes, if everything that it names is allowed.

    Args:
        config: A dict or OmegaConf node with ``_target_`` (or lists and dicts of such nodes). Beside the arguments it
            may hold ``_args_`` (positional ones), ``_partial_`` (to get a function that builds) and
            ``_recursive_: false`` (to hand nodes inside on as they are).
        allow: Further packages to trust, for example ``("my_package",)``. The environment variable
            ``LIGHTNING_TRANSFER_ALLOW`` (names separated by commas) adds to them.
        **kwargs: Passed on to the object.

    Returns:
        The object; dicts and lists in its arguments are plain Python ones.

    Raises:
        ValueError: If a ``_target_`` anywhere in the config is not allowed or does not exist, an argument would let
            code be loaded, or a value is missing.
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
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if OmegaConf.is_config(config):
        try:
            config = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ValueError(str(error).splitlines()[0]) from error
    check_config(config, allow)
    return _build(config, allow, kwargs)


def _build(node: Any, allow: Sequence[str], kwargs: Mapping[str, Any]) -> Any:
    """Build a checked node of plain containers."""
    if isinstance(node, (list, tuple)):
        return [_build(item, allow, {}) for item in node]
    if not isinstance(node, Mapping):
        return node
    inner = (lambda value: value) if node.get("_recursive_") is False else partial(_build, allow=allow, kwargs={})
    arguments = {str(name): inner(value) for name, value in node.items() if name not in _KEYWORDS} | dict(kwargs)
    if "_target_" not in node:
        return arguments
    target = check_target(node["_target_"], allow)
    positional = [inner(value) for value in node.get("_args_") or ()]
    _check_flags(target, arguments)
    if node.get("_partial_"):
        return partial(target, *positional, **arguments)
    try:
        return target(*positional, **arguments)
    except TypeError as error:
        message = name_unknown_argument(error, target, arguments)
        if message is None:
            raise
        raise TypeError(message) from error


def name_unknown_argument(error: TypeError, target: Any, arguments: Iterable[str]) -> str | None:
    """What a class or function takes in place of an argument that it refused; None if the error is about another thing.

    Args:
        error: What calling it raised.
        target: What was called.
        arguments: Names of the keywords that it was called with.
    """
    target = target.func if isinstance(target, partial) else target
    unknown = _UNKNOWN.search(str(error))
    if unknown is None or unknown[1] not in arguments:
        return None
    return f"{target.__name__} takes no `{unknown[1]}`{_meant(unknown[1], target)}"


def _check_flags(target: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse what is neither true nor false for an argument of the type bool: ``nope`` would mean true."""
    for owner in _owners(target):
        for name, parameter in inspect.signature(owner).parameters.items():
            value = arguments.get(name, False)
            if parameter.annotation in (bool, "bool") and not (
                value is None or isinstance(value, bool) or value in (0, 1)
            ):
                raise ValueError(f"Expected argument `{name}` to be true or false, but got {value!r}.")


_UNKNOWN = re.compile(r"[Uu]nexpected keyword arguments?:? ['`](\w+)['`]")
_KEYWORDS = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})


def _meant(name: str, target: Any) -> str:
    """The arguments of a class, its parents' too, or of a function; those near a name where there are some."""
    known = dict.fromkeys(
        word
        for owner in _owners(target)
        for word, kind in inspect.signature(owner).parameters.items()
        if word != "self" and kind.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)
    )
    near = get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known are {', '.join(known)}." if known else "."


def _owners(target: Any) -> list[FunctionType]:
    """The constructors of a class and its parents that are written in Python, or a function."""
    owners = [vars(kind).get("__init__") for kind in target.__mro__] if isinstance(target, type) else [target]
    return [owner for owner in owners if isinstance(owner, FunctionType)]


def check_config(config: Any, allow: Sequence[str] = ()) -> None:
    """Refuse a config that names what may not be built, or asks a loader for more than tensors.

    Args:
        config: Nested dicts and lists.
        allow: Further trusted packages.

    Raises:
        ValueError: If something in it is not allowed.
    """
    for target in find_targets(config):
        check_target(target, allow)
    nodes = [("", config), *((path, value) for path, _, value in walk(config))]
    trusted = {f"{path}.trust_program".lstrip(".") for path, node in nodes if _trusted_nodes and node in _trusted_nodes}
    for path, key, value in walk(config):
        if value not in _HARMLESS.get(str(key), (value,)) and path not in trusted:
            raise ValueError(f"`{path}: {str(value).lower()}` is not allowed in a config: files could bring code then.")


def trust_program_of(node: Mapping[str, Any]) -> None:
    """Let a node say ``trust_program: true``, as long as everything else in it stays what it was.

    Args:
        node: The node; only the user's own word may lead here.
    """
    _trusted_nodes.append(node)


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value inside nested dicts and lists as ``(dotted path, key or index, value)``, outer ones first."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(config, Mapping):
        items = config.items()
    elif isinstance(config, (list, tuple)):
        items = enumerate(config)
    for key, value in items:
        inner = f"{path}.{key}" if path else str(key)
        yield inner, key, value
        yield from walk(value, inner)


def find_targets(config: Any) -> Iterator[str]:
    """Every ``_target_`` inside nested dicts and lists.

    Raises:
        ValueError: If one is no string.
    """
    for _, key, value in walk(config):
        if key == "_target_":
            if not isinstance(value, str):
                raise ValueError(f"Expected `_target_` to be a dotted name, but got {value!r}.")
            yield value


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
    extra = allowed_by_environment()
    trusted = (*ALLOWED, *allow, *extra)
    parent, _, name = target.rpartition(".")
    private = any(not part.isidentifier() or part.startswith("_") for part in target.split("."))
    if private or not (_is_inside(target, trusted) or parent in _SHORT_NAMES):
        raise ValueError(_refusal(target, trusted))
    if _is_inside(target, extra):
        _find_beside_the_user(target.partition(".")[0])
    attribute = _find(target)
    home = getattr(attribute, "__module__", None) or ""
    top_level = (
        isinstance(attribute, (type, FunctionType)) and "." not in attribute.__qualname__.rpartition("<locals>.")[2]
    )
    refused = _is_inside(home, _REFUSED) and not _is_inside(home, (*allow, *extra))
    if not top_level or refused or not _is_inside(f"{home}.{name}", trusted):
        raise ValueError(_refusal(target, trusted))
    return attribute


def allowed_by_environment() -> tuple[str, ...]:
    """The packages that ``LIGHTNING_TRANSFER_ALLOW`` names."""
    return tuple(name.strip() for name in os.environ.get(EXTRA_VARIABLE, "").split(",") if name.strip())


def _find(target: str) -> Any:
    """The object behind a name whose parent is a module."""
    parent, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(parent)
    except ModuleNotFoundError as error:
        if not _is_inside(parent, (error.name or "",)):
            raise  # the place is right and something that it needs is not installed
        raise ValueError(f"`_target_: {target}` does not exist: there is no module `{parent}`.") from error
    attribute = getattr(module, name, None)
    if attribute is None or isinstance(attribute, ModuleType):
        near = get_close_matches(name, [known for known in dir(module) if not known.startswith("_")], n=1)
        meant = f"; did you mean {parent}.{near[0]}?" if near else "."
        raise ValueError(f"`_target_: {target}` does not exist{meant}")
    return attribute


def _find_beside_the_user(package: str) -> None:
    """Let a trusted package that is not installed be found in the working directory, after everything else."""
    here = os.getcwd()
    local = Path(here, package).is_dir() or Path(here, f"{package}.py").is_file()
    if local and here not in sys.path and package not in sys.modules and importlib.util.find_spec(package) is None:
        sys.path.append(here)


def _is_inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def _refusal(target: str, trusted: Sequence[str]) -> str:
    return (
        f"`_target_: {target}` is not allowed here: configs build classes and functions of {', '.join(trusted)}. "
        f"Set {EXTRA_VARIABLE}=package to trust one of your own."
    )
