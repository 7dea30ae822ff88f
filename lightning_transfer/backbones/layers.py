"""Several layers of a backbone at once: their features side by side, from one forward pass."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone, BackboneOutput, undisturbed
from lightning_transfer.backbones.module import captured
from lightning_transfer.backbones.pooling import pool

OUTPUT = "features"  # the backbone's own features, as if they were a layer
_SHOWN = 6  # layers that a message names
_DOMINANT = 0.7  # share of the modules from which on a part is the trunk that the stages are in


class LayeredBackbone(Backbone):
    """The features of several layers of another backbone, one behind the other, and its own ones last.

    Maps are averaged over positions, tokens over those that count. The other backbone stays as it is.

    Args:
        backbone: The backbone.
        layers: ``"all"`` for its stages (the parts of its trunk), or names of modules and patterns, in the order of the
            network.

    Attributes:
        slices: Where each layer's columns are, by name, in the order in which the layers run.

    Raises:
        ValueError: If no layer has such a name, or none of them runs or gives something to pool.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_transfer.backbones import LayeredBackbone, ModuleBackbone
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        >>> layered = LayeredBackbone(ModuleBackbone(net, input_shape=(4,)), layers=["module.0", "module.2"])
        >>> layered.slices
        {'module.0': slice(0, 8, None), 'module.2': slice(8, 14, None), 'features': slice(14, 20, None)}
        >>> layered(torch.ones(3, 4)).features.shape
        torch.Size([3, 20])
    """

    def __init__(self, backbone: Backbone, layers: str | Sequence[str] = "all") -> None:
        super().__init__(
            name=backbone.name,
            feature_dim=0,
            num_source_classes=backbone.num_source_classes,
            input_shape=backbone.input_shape,
            preprocessing=None,
        )
        self.backbone = backbone
        self._transform = backbone._transform
        self.slices: dict[str, slice] = {}
        self._names = _choose(backbone, layers)
        with undisturbed(self):
            parts, _ = self._run(self.preprocess(self.example_inputs(2)))
        start = 0
        for name, part in parts.items():
            self.slices[name] = slice(start, start + part.shape[1])
            start += part.shape[1]
        self.feature_dim = start

    def preprocess(self, inputs: Any) -> Any:
        """What the backbone makes of raw inputs."""
        return self.backbone.preprocess(inputs)

    def example_inputs(self, batch_size: int) -> Any:
        """Those of the backbone."""
        return self.backbone.example_inputs(batch_size)

    def encode(self, inputs: Any) -> BackboneOutput:
        """Features ``(b, d)`` of all layers, and the backbone's logits."""
        parts, logits = self._run(inputs)
        return BackboneOutput(torch.cat(list(map(_full_precision, parts.values())), dim=1), logits)

    def _run(self, inputs: Any) -> tuple[dict[str, Tensor], Tensor | None]:
        with captured(self.backbone, set(self._names), must_run=False) as seen:
            features, logits = self.backbone.encode(inputs)
        mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        parts = {name: _pooled(output, mask) for name, (_, output) in seen.items()}
        kept = {name: part for name, part in parts.items() if part is not None and len(part) == len(features)}
        return {**kept, OUTPUT: features.flatten(1)}, logits


def _choose(backbone: Backbone, layers: str | Sequence[str]) -> list[str]:
    names = [name for name, _ in backbone.named_modules() if name]
    if layers == "all":
        head = backbone.head
        return [name for name in _stages(backbone) if backbone.get_submodule(name) is not head]
    patterns = [layers] if isinstance(layers, str) else list(layers)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            known = ", ".join(_stages(backbone)[:_SHOWN])
            of = f"{backbone.name} (such as {known})" if known else f"{backbone.name}, which has none with weights"
            raise ValueError(f"Expected argument `layers` to name layers of {of}, but got {pattern!r}.")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _stages(network: nn.Module) -> list[str]:
    """The parts of the trunk: the children of the smallest module that holds nearly all the others."""
    prefix, node = "", network
    while True:
        children = {name: child for name, child in node.named_children() if next(child.parameters(), None) is not None}
        sizes = {name: sum(1 for _ in child.modules()) for name, child in children.items()}
        name = max(sizes, key=lambda name: sizes[name], default="")
        if not name or sizes[name] < _DOMINANT * sum(sizes.values()) or not any(children[name].children()):
            return [prefix + name for name in children]
        prefix, node = f"{prefix}{name}.", children[name]


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _pooled(output: Tensor, mask: Tensor | None) -> Tensor | None:
    """Vectors of a layer's output; nothing where it has none."""
    if not output.is_floating_point() or output.ndim < 2:
        return None
    if output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]:
        return output.mean(dim=(1, 2))  # channels last, as in Swin
    fits = mask is not None and output.ndim == 3 and output.shape[:2] == mask.shape
    return pool(output, "auto", mask if fits else None)
