"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from lightning_transfer.backbones.base import Backbone
from lightning_transfer.backbones.efficientnet_lite import EfficientNetLite
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.timm import TimmBackbone
from lightning_transfer.backbones.torchvision import TorchvisionBackbone
from lightning_transfer.backbones.transformers import SentenceEncoder, TransformersBackbone

_NAMED: dict[str, Callable[..., Backbone]] = {
    **{f"efficientnet_lite{v}": partial(EfficientNetLite, v) for v in (0, 1, 2)},
    **{f"efficientnet_lite{v}_random": partial(EfficientNetLite, v, pretrained=False) for v in (0, 1, 2)},
    "all_minilm_l6_v2": SentenceEncoder,
    "all_minilm_l6_v2_random": partial(SentenceEncoder, pretrained=False),
}
_LIBRARIES: dict[str, Callable[..., Backbone]] = {
    "timm": TimmBackbone,
    "torchvision": TorchvisionBackbone,
    "transformers": TransformersBackbone,
}


def known_backbones() -> tuple[str, ...]:
    """Names that :func:`load_backbone` understands, and the patterns for whole libraries.

    Example:
        >>> from lightning_transfer.backbones import known_backbones
        >>> known_backbones()[:2]
        ('efficientnet_lite0', 'efficientnet_lite1')
    """
    return (*_NAMED, *(f"{library}/<model>" for library in _LIBRARIES))


def load_backbone(backbone: str | Mapping[str, Any] | nn.Module, **overrides: Any) -> Backbone:
    """Build a backbone from its name, its config or a module.

    Args:
        backbone: A name such as ``"efficientnet_lite0"`` or ``"timm/resnet18"``; a config with ``_target_``; a module,
            which is wrapped by :class:`~lightning_transfer.backbones.ModuleBackbone`; or a backbone, which is returned.
        **overrides: Arguments of the backbone, such as ``input_size=64`` or ``pretrained=False``.

    Returns:
        The backbone.

    Raises:
        ValueError: If the name is unknown (the message lists what is known) or an argument is wrong.
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
        return ModuleBackbone(backbone, **overrides)
    if isinstance(backbone, str):
        return _by_name(backbone)(**overrides)
    from lightning_transfer.utilities.instantiate import instantiate

    built = instantiate(backbone, **overrides)
    return built if isinstance(built, Backbone) else ModuleBackbone(built)


def _by_name(name: str) -> Callable[..., Backbone]:
    if name in _NAMED:
        return _NAMED[name]
    library, _, model = name.partition("/")
    if library in _LIBRARIES and model:
        return partial(_LIBRARIES[library], model)
    raise ValueError(f"Expected argument `backbone` to be one of {', '.join(known_backbones())}, but got {name!r}.")
