"""Backbones by name: of this package, of a library, or in a file or folder."""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone
from lightning_transfer.backbones.checkpoints import CheckpointBackbone, ProgramBackbone
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.names import NAMED
from lightning_transfer.backbones.open_clip import OpenClipBackbone
from lightning_transfer.backbones.sentence_transformers import SentenceTransformersBackbone
from lightning_transfer.backbones.timm import TimmBackbone
from lightning_transfer.backbones.torchvision import TorchvisionBackbone
from lightning_transfer.backbones.transformers import TransformersBackbone
from lightning_transfer.configs import known_configs
from lightning_transfer.utilities.checks import check_in_interval
from lightning_transfer.utilities.imports import require

_LIBRARIES: dict[str, Callable[..., Backbone]] = {
    "timm": TimmBackbone,
    "torchvision": TorchvisionBackbone,
    "hf": TransformersBackbone,
    "open_clip": OpenClipBackbone,
    "st": SentenceTransformersBackbone,
}
_ALIASES = {"transformers": "hf", "sentence-transformers": "st"}
_PROGRAMS = (".pt2", ".ep", ".pt")
_WILD = frozenset("*?[")
_PATH_STARTS = (".", "/", "~")


@dataclass(frozen=True)
class Listed:
    """A backbone that a library lists.

    Attributes:
        name: What :func:`load_backbone` takes.
        input_size: Shape of one input, such as ``(3, 224, 224)``; ``None`` where the library does not say.
    """

    name: str
    input_size: tuple[int, ...] | None

    @property
    def parameters(self) -> int | None:
        """Number of parameters, counted on an unallocated network; ``None`` where it cannot be told without weights."""
        library, _, model = self.name.partition("/")
        return _count(library, model if library == "torchvision" else re.split(r"[./]", model)[0])


@cache
def _count(library: str, architecture: str) -> int | None:
    try:
        with torch.device("meta"):
            network = _COUNTED[library](architecture)
    except Exception:  # whatever a constructor does that needs real tensors
        return None
    return network if isinstance(network, int) else sum(p.numel() for p in network.parameters())


def known_backbones() -> tuple[str, ...]:
    """Names that :func:`load_backbone` understands, and the patterns for whole libraries.

    Example:
        >>> from lightning_transfer.backbones import known_backbones
        >>> known_backbones()[:2]
        ('efficientnet_lite0', 'efficientnet_lite1')
    """
    return (*NAMED, *(f"{library}/<model>" for library in _LIBRARIES))


def check_name(name: str) -> None:
    """Check the form of a name, without building or importing anything.

    Raises:
        ValueError: If it is no name of this package, of a library, and no path; the message says what is near.
    """
    _by_name(name)


def list_backbones(pattern: str = "*", max_parameters: float | None = None) -> list[Listed]:
    """List what this package and installed libraries offer, with published weights.

    Args:
        pattern: As in file names: ``"timm/vit_*_in1k"``, ``"torchvision/*"``, ``"hf/*"`` (what its cache holds).
        max_parameters: Leave out networks with more parameters, and those whose number cannot be told.

    Returns:
        Names and input sizes, in the order of the library.

    Raises:
        ValueError: If nothing matches, or the limit is no number of at least 1.
        ModuleNotFoundError: If the library in the pattern is not installed.

    Example:
        >>> from lightning_transfer.backbones import list_backbones
        >>> [listed.name for listed in list_backbones("efficientnet_lite?")]
        ['efficientnet_lite0', 'efficientnet_lite1', 'efficientnet_lite2']
    """
    if max_parameters is not None:
        check_in_interval(max_parameters, 1, float("inf"), "max_parameters")
    library, slash, model = pattern.partition("/")
    library = _ALIASES.get(library, library)
    if not slash:
        matches = [Listed(name, None) for name in fnmatch.filter(NAMED, pattern)]
    elif library in _LISTS:
        matches = [Listed(f"{library}/{name}", size) for name, size in _LISTS[library](model)]
    else:
        raise ValueError(f"Expected argument `pattern` to begin with one of {sorted(_LISTS)}, but got {pattern!r}.")
    if max_parameters is not None:
        matches = [listed for listed in matches if (listed.parameters or float("inf")) <= max_parameters]
    if not matches:
        limit = "" if max_parameters is None else f" with at most {max_parameters:g} parameters"
        example = f"{library}/*" if library in _LISTS else f"timm/{pattern.rstrip('*')}*"
        near = get_close_matches(pattern.strip("*?"), NAMED, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"those of a library begin with its name, as in {example!r}"
        words = "" if slash else f"; {meant}"
        raise ValueError(f"Expected argument `pattern` to match backbones{limit}, but {pattern!r} matches none{words}.")
    return matches


def expand_names(names: Iterable[Any], max_parameters: float | None = None) -> list[Any]:
    """Replace patterns among candidates by the names that they match and that are not there yet; others stay.

    Args:
        names: Names, patterns, and whatever else may be a backbone.
        max_parameters: See :func:`list_backbones`.
    """
    expanded: list[Any] = []
    for name in names:
        if isinstance(name, str) and _WILD & set(name) and not name.startswith(_PATH_STARTS):
            known = {other for other in expanded if isinstance(other, str)}
            expanded += [listed.name for listed in list_backbones(name, max_parameters) if listed.name not in known]
        else:
            expanded.append(name)
    return expanded


def load_backbone(
    backbone: str | Path | Mapping[str, Any] | nn.Module,
    *,
    shape: Callable[[], Sequence[int]] | None = None,
    **overrides: Any,
) -> Backbone:
    """Build a backbone from its name, its config or a module.

    Args:
        backbone: A name such as ``"efficientnet_lite0"``, ``"timm/resnet50.a1_in1k"``, ``"torchvision/resnet50"``,
            ``"hf/google/vit-base-patch16-224"``, ``"open_clip/ViT-B-32/openai"`` or ``"st/all-MiniLM-L6-v2"``; the path
            of a program file, of a checkpoint (beside ``module=``) or of a folder that one of the libraries saved; a
            config with ``_target_``; a module, which is wrapped by
            :class:`~lightning_transfer.backbones.ModuleBackbone`; or a backbone, which is returned.
        shape: Gives the ``input_shape`` of a module that does not say what it takes, such as that of the data.
        **overrides: Arguments of the backbone, such as ``input_size=64`` or ``pretrained=False``.

    Returns:
        The backbone.

    Raises:
        ValueError: If the name is unknown (the message says what is near), the weights are not at hand, or an argument
            is wrong.
        ModuleNotFoundError: If the library behind the name is not installed (the message says how to install it).

    Example:
        >>> from lightning_transfer.backbones import load_backbone
        >>> load_backbone("efficientnet_lite0", pretrained=False, input_size=64).name
        'efficientnet_lite0_random'
    """
    if isinstance(backbone, Backbone):
        if overrides:
            raise ValueError(f"Expected no further arguments beside a finished backbone, but got {sorted(overrides)}.")
        return backbone
    if isinstance(backbone, nn.Module):
        return _wrap(backbone, shape, **overrides)
    if isinstance(backbone, (str, Path)):
        build = _by_name(str(backbone))
        try:
            return build(**overrides)
        except TypeError as error:
            from lightning_transfer.utilities.instantiate import name_unknown_argument

            raise ValueError(f"{backbone}: {name_unknown_argument(error, build, overrides) or error}") from error
    if not isinstance(backbone, Mapping):
        raise ValueError(f"Expected argument `backbone` to be a name, path, config or module, but got {backbone!r}.")
    from lightning_transfer.utilities.instantiate import instantiate

    built = instantiate(backbone, **overrides)
    return built if isinstance(built, Backbone) else _wrap(built, shape)


def _wrap(module: nn.Module, shape: Callable[[], Sequence[int]] | None, **overrides: Any) -> ModuleBackbone:
    if shape is not None and not isinstance(getattr(module, "example_input_array", None), Tensor):
        overrides = {"input_shape": shape(), **overrides}
    return ModuleBackbone(module, **overrides)


def _by_name(name: str) -> Callable[..., Backbone]:
    if name in NAMED:
        home, options = NAMED[name]
        module, _, kind = home.partition(":")
        return partial(getattr(importlib.import_module(f"lightning_transfer.backbones.{module}"), kind), **options)
    library, _, model = name.partition("/")
    library = _ALIASES.get(library, library)
    if library in _LIBRARIES and model:
        return partial(_LIBRARIES[library], model)
    path = Path(name).expanduser()
    if path.exists() or name.startswith(_PATH_STARTS):
        return partial(_from_path, path)
    near = [f"{library}/MODEL"] if library in _LIBRARIES else get_close_matches(name, [*NAMED, *_LIBRARIES], n=2)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    if name in known_configs("target"):
        hint = ", which is a target (backbones come before it: screen(backbones, target))"
    raise ValueError(
        f"Expected argument `backbone` to be one of {', '.join(known_backbones())} or a path, but got {name!r}{hint}."
    )


def _from_path(path: Path, **overrides: Any) -> Backbone:
    """A backbone in a file or in a folder of one of the libraries."""
    if path.is_dir():
        return _from_folder(path, **overrides)
    if "module" in overrides:
        return CheckpointBackbone(path=path, **overrides)
    if path.suffix in _PROGRAMS and "input_shape" in overrides:
        return ProgramBackbone(path, **overrides)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file or folder `{path}`.")
    raise ValueError(
        f"Expected `{path}` to come with `module=`, the network that its weights belong to, or, if it is a program, "
        f"with `input_shape=`, but got {sorted(overrides)}; on the command line these are `backbone=checkpoint` and "
        "`backbone=program`."
    )


def _from_folder(path: Path, **overrides: Any) -> Backbone:
    if (path / "modules.json").is_file():
        return SentenceTransformersBackbone(path, **overrides)
    if (path / "open_clip_config.json").is_file():
        return OpenClipBackbone(f"local-dir:{path}", name=overrides.pop("name", path.name), **overrides)
    config = path / "config.json"
    if not config.is_file():
        raise ValueError(
            f"Expected `{path}` to be a folder that timm, transformers, open_clip or sentence-transformers saved, but "
            "it has none of `config.json`, `modules.json` and `open_clip_config.json`."
        )
    if '"model_type"' in config.read_text(encoding="utf-8"):
        return TransformersBackbone(path, **overrides)
    return TimmBackbone(f"local-dir:{path}", name=overrides.pop("name", path.name), **overrides)


def _list_timm(pattern: str) -> list[tuple[str, tuple[int, ...] | None]]:
    timm = require("timm", extra="timm")
    names = timm.list_models(pattern, pretrained=True)
    return [(name, tuple(timm.get_pretrained_cfg(name).input_size)) for name in names]


def _torchvision_weights(name: str) -> Any:
    return require("torchvision.models", extra="torchvision").get_model_weights(name)["DEFAULT"]


def _list_torchvision(pattern: str) -> list[tuple[str, tuple[int, ...] | None]]:
    models = require("torchvision.models", extra="torchvision")
    names = fnmatch.filter(models.list_models(module=models), pattern)
    sides = [_torchvision_weights(name).transforms().crop_size[0] for name in names]
    return [(name, (3, side, side)) for name, side in zip(names, sides, strict=True)]


def _list_open_clip(pattern: str) -> list[tuple[str, tuple[int, ...] | None]]:
    library = require("open_clip", extra="open_clip")
    models: list[tuple[str, tuple[int, ...] | None]] = []
    for name in fnmatch.filter((f"{model}/{weights}" for model, weights in library.list_pretrained()), pattern):
        side = library.get_model_config(name.partition("/")[0])["vision_cfg"]["image_size"]
        models.append((name, (3, side, side) if isinstance(side, int) else (3, *side)))
    return models


def _list_cached(pattern: str, library: str) -> list[tuple[str, tuple[int, ...] | None]]:
    """Models of the hub whose files are on this machine; the hub itself lists too many to choose from."""
    hub = require("huggingface_hub", extra="transformers")
    try:
        cached = [repo.repo_id for repo in hub.scan_cache_dir().repos if repo.repo_type == "model"]
    except hub.CacheNotFound:
        cached = []
    of_sentences = {name for name in cached if name.startswith("sentence-transformers/")}
    names = of_sentences if library == "st" else cached
    short = sorted(name.removeprefix("sentence-transformers/") if library == "st" else name for name in names)
    return [(name, None) for name in fnmatch.filter(short, pattern)]


_LISTS: dict[str, Callable[[str], list[tuple[str, tuple[int, ...] | None]]]] = {
    "timm": _list_timm,
    "torchvision": _list_torchvision,
    "open_clip": _list_open_clip,
    "hf": partial(_list_cached, library="hf"),
    "st": partial(_list_cached, library="st"),
}
_COUNTED: dict[str, Callable[[str], Any]] = {
    "timm": lambda name: require("timm", extra="timm").create_model(name),
    "torchvision": lambda name: _torchvision_weights(name).meta["num_params"],
    "open_clip": lambda name: require("open_clip", extra="open_clip").create_model(
        name, load_weights=False, device="meta"
    ),
}
