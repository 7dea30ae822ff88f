"""Read features, and the original head's outputs, off a running module with forward hooks."""

from __future__ import annotations

import difflib
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

_WRAPPER = "_orig_mod."  # what torch.compile puts into the names of the modules it wraps


def find_layer(root: nn.Module, layer: str | None = None) -> tuple[nn.Module, bool]:
    """Find the module that features are read at.

    Args:
        root: The module that is run.
        layer: Dotted name of a module, with or without the names that ``torch.compile`` puts in; the last
            :class:`~torch.nn.Linear` where not given.

    Returns:
        The module and whether its input is the feature (the last linear layer, the head) rather than its output.

    Raises:
        ValueError: If no module has that name or, without a name, no linear layer is there.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.callbacks.capture import find_layer
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> find_layer(net)
        (Linear(in_features=8, out_features=3, bias=True), True)
        >>> find_layer(net, "1")
        (ReLU(), False)
    """
    head = next((child for child in reversed(list(root.modules())) if isinstance(child, nn.Linear)), None)
    if layer is None:
        if head is None:
            raise ValueError(
                "Expected argument `layer` to name the module whose output is the feature, because "
                f"{type(root).__name__} has no `torch.nn.Linear`, but got None."
            )
        return head, True
    named = {name.replace(_WRAPPER, ""): child for name, child in root.named_modules()}
    feature = named.get(layer.replace(_WRAPPER, ""))
    if feature is None:
        close = difflib.get_close_matches(layer, named, n=3) or list(named)[1:][-5:]
        raise ValueError(f"Expected argument `layer` to be the name of a module, such as {close}, but got {layer!r}.")
    return feature, feature is head


class Capture:
    """Forward hooks that keep the last feature and source output seen, while switched on.

    Hooks are on the module only then, so that whatever else is done with it (``torch.jit.script``, copies) finds none.
    A compiled module takes no notice of hooks that come later: there they stay all the time and do nothing while
    switched off, when the compiled graph is the same as without them.

    Args:
        root: The module that is run.
        layer: Name of the layer to read, see :func:`find_layer`.
        backbone: A :class:`~lightning_transfer.backbones.Backbone` whose original logits are read, if any.
    """

    def __init__(self, root: nn.Module, layer: str | None = None, backbone: nn.Module | None = None) -> None:
        self._root = root
        self._feature, self._at_input = find_layer(root, layer)
        self._backbone = backbone
        self._handles: list[RemovableHandle] = []
        self._stays = is_compiled(root)
        self._active = False
        self._features: Tensor | None = None
        self._source_outputs: Tensor | None = None
        if self._stays:
            self._hook()

    @property
    def active(self) -> bool:
        """Whether what passes through the module is kept."""
        return self._active

    @active.setter
    def active(self, active: bool) -> None:
        self._active = active
        self.take()
        if active and not self._handles:
            self._hook()
        elif not active and not self._stays:
            self.remove()

    def take(self) -> tuple[Tensor | None, Tensor | None]:
        """Hand out what was kept, as features ``(n, ...)`` and source outputs ``(n, k)``, and forget it."""
        taken = self._features, self._source_outputs
        self._features = self._source_outputs = None
        return taken

    def weights(self) -> list[Tensor]:
        """Parameters and buffers that features may depend on: all, but for those of the head that reads them."""
        head = self._feature if self._at_input else None
        parts = [part for part in self._root.modules() if part is not head]
        named = (chain(part.named_parameters(recurse=False), part.named_buffers(recurse=False)) for part in parts)
        return list({id(tensor): tensor for _, tensor in chain.from_iterable(named)}.values())

    def remove(self) -> None:
        """Take the hooks off the module."""
        self._active = False
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self) -> None:
        if self._at_input:
            self._handles = [self._feature.register_forward_pre_hook(self._on_input, with_kwargs=True)]
        else:
            self._handles = [self._feature.register_forward_hook(self._on_output)]
        if self._backbone is not None:
            self._handles.append(self._backbone.register_forward_hook(self._on_backbone))

    # clones: what follows in the module may work in place on the very tensor that was read
    def _on_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._active:
            self._features = _copy(args[0] if args else next(iter(kwargs.values())))

    def _on_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._active:
            self._features = _copy(output)

    def _on_backbone(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._active:
            self._source_outputs = _copy(getattr(output, "logits", None))


def is_compiled(root: nn.Module) -> bool:
    """Whether ``torch.compile`` has been at a module: itself, a part of it, or one of its methods."""
    modules = list(root.modules())
    if any(hasattr(child, "_orig_mod") or child._compiled_call_impl is not None for child in modules):
        return True
    spaces = [*map(vars, modules), *map(vars, {kind for child in modules for kind in type(child).__mro__})]
    return any(hasattr(value, "_torchdynamo_orig_callable") for space in spaces for value in space.values())


def average_positions(features: Tensor, labels: Tensor | None) -> Tensor:
    """Average features over positions where there is one label a sample and not one a position.

    Args:
        features: Shape ``(n, d)``, tokens ``(n, t, d)`` or a map ``(n, d, h, w)``.
        labels: What the features are scored against, ``(n, ...)``.

    Returns:
        Shape ``(n, d)``, or the features as they are where labels have positions too; half precision made single.
    """
    features = features.float() if features.dtype.itemsize < 4 else features
    positions = features.shape[1:2] if features.ndim == 3 else features.shape[2:]
    if features.ndim <= 2 or (labels is not None and labels.shape[1:] == positions):
        return features
    return features.mean(dim=1) if features.ndim == 3 else features.flatten(2).mean(dim=2)


def _copy(output: Any) -> Tensor | None:
    """Copy the features out of what a module takes or returns: a tensor, a named output or a collection of tensors."""
    if isinstance(output, dict):
        output = tuple(output.values())
    candidates = (output, getattr(output, "features", None), *(output if isinstance(output, tuple | list) else ()))
    tensor = next((value for value in candidates if isinstance(value, Tensor)), None)
    return None if tensor is None else tensor.detach().clone()
