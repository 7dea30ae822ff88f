"""Any PyTorch network as a backbone: a named layer, a pooling, and the classifier where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import Backbone, BackboneOutput, undisturbed
from lightning_transfer.backbones.initialisation import reinitialise
from lightning_transfer.backbones.pooling import check_pooling, pool
from lightning_transfer.backbones.preprocessing import Preprocessing, choose_preprocessing
from lightning_transfer.utilities.checks import check_one_of, check_positive_int


class ModuleBackbone(Backbone):
    """Any ``nn.Module`` or ``LightningModule`` as a backbone; its code stays as it is.

    One forward pass runs with hooks on the named layers. Nothing is kept on the module between passes, so it can be
    copied, pickled and trained.

    Args:
        module: The network; ``module(batch)`` must run on prepared inputs.
        input_shape: Shape of one prepared input, such as ``(3, 224, 224)`` or ``(16,)``. It may be left out when the
            module has an ``example_input_array``, as a LightningModule may.
        layer: Dotted name of the layer that gives the features (as in ``module.named_modules()``). By default the
            input of the head, and without a head the output of the module.
        capture: Whether the ``"output"`` or the ``"input"`` of ``layer`` is the feature.
        pooling: ``"auto"`` (images: average over positions, tokens: mean, vectors: as they are), ``"avg"``,
            ``"mean"``, ``"cls"``, ``"last"``, ``"flatten"`` or ``"none"``; see
            :func:`~lightning_transfer.backbones.pooling.pool`.
        head: Dotted name of the classifier whose output is the source logits; ``"auto"`` takes the last linear layer
            that runs, if the module returns its output (or the softmax of it); ``None`` means that there is none.
        preprocessing: What happens to images first. By default, images are scaled to [0, 1], resized to
            ``input_shape`` and made to have its channels; ``None`` hands tensors on as they are.
        transform: From a picture of mode ``"RGB"`` (``"L"`` for one channel) to one prepared input, such as the
            evaluation transform of a torchvision data set; by default ``preprocessing`` of the whole picture.
        pretrained: ``False`` replaces the weights (of a copy) by random ones from ``seed``: the control.
        seed: Seed of the random weights.
        name: What tables call it; by default the class name, with ``_random`` for the control.

    Raises:
        ValueError: If a name, shape or choice does not fit the module.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        >>> backbone = ModuleBackbone(net, input_shape=(3, 16, 16))
        >>> features, logits = backbone(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
        >>> features.shape, logits.shape, backbone.feature_dim
        (torch.Size([2, 8]), torch.Size([2, 5]), 8)
        >>> ModuleBackbone(net, input_shape=(3, 16, 16), layer="0")(torch.zeros(2, 3, 16, 16)).features.shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int] | None = None,
        *,
        layer: str | None = None,
        capture: str = "output",
        pooling: str = "auto",
        head: str | None = "auto",
        preprocessing: Preprocessing | str | None = "default",
        transform: Callable[[Any], Tensor] | None = None,
        pretrained: bool = True,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        check_one_of(capture, ("output", "input"), "capture")
        check_pooling(pooling)
        if not isinstance(module, nn.Module):
            raise ValueError(f"Expected argument `module` to be a torch.nn.Module, but got {module!r}.")
        shape = _input_shape(module, input_shape)
        super().__init__(
            name=name or type(module).__name__.lower() + ("" if pretrained else "_random"),
            feature_dim=0,
            num_source_classes=None,
            input_shape=shape,
            preprocessing=choose_preprocessing(preprocessing, _default_preprocessing(shape)),
            transform=transform,
        )
        self.module = module if pretrained else reinitialise(copy.deepcopy(module), seed)
        self.pooling = pooling
        with undisturbed(self):
            example = self.preprocess(self.example_inputs(2))
            self.head_name = self._find_head(example) if head == "auto" else self._check_layer(head, "head")
            self.layer = self._check_layer(layer, "layer")
            self.capture = capture
            if self.layer is None and self.head_name is not None:
                self.layer, self.capture = self.head_name, "input"
        features, logits = self._try()
        self.feature_dim = features.shape[1] if features.ndim == 4 else features.shape[-1]
        self.num_source_classes = None if logits is None else logits.shape[1]

    @property
    def head(self) -> nn.Module | None:
        """The classifier from features to logits; ``None`` when the features are not its input."""
        is_input = self.layer == self.head_name and self.capture == "input"
        return self.module.get_submodule(self.head_name) if self.head_name is not None and is_input else None

    def encode(self, inputs: Any) -> BackboneOutput:
        """Features and logits of prepared inputs, in one forward pass of the module."""
        wanted = {name for name in (self.layer, self.head_name) if name is not None}
        with captured(self.module, wanted) as seen:
            output = self.module(inputs)
        raw = seen[self.layer][self.capture == "output"] if self.layer is not None else _first_tensor(output)
        logits = None if self.head_name is None else seen[self.head_name][1]
        if logits is not None and logits.ndim > 2 and logits[0].numel() == logits.shape[1]:
            logits = logits.flatten(1)  # of a convolution
        return BackboneOutput(pool(raw, self.pooling), logits if logits is not None and logits.ndim == 2 else None)

    def _find_head(self, example: Any) -> str | None:
        names = [name for name, child in self.module.named_modules() if isinstance(child, nn.Linear)]
        with captured(self.module, set(names), must_run=False) as seen:
            output = _first_tensor(self.module(example))
        if not seen:
            return None
        last = list(seen)[-1]
        logits = seen[last][1]
        if logits.ndim != 2 or logits.shape != output.shape:
            return None
        meanings = (logits, logits.softmax(dim=1), logits.log_softmax(dim=1))
        return last if any(torch.allclose(output, meaning) for meaning in meanings) else None

    def _check_layer(self, name: str | None, argument: str) -> str | None:
        layers = [layer for layer, _ in self.module.named_modules() if layer]
        if name is not None and name not in layers:
            raise ValueError(
                f"Expected argument `{argument}` to be a layer among {_shortened(layers)}, but got {name!r}."
            )
        return name


@contextmanager
def captured(module: nn.Module, names: set[str], must_run: bool = True) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Record ``(input, output)`` of named submodules while the body runs, in the order in which they finish."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str) -> Any:
        def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            seen.pop(name, None)  # a layer that runs twice counts where it runs last
            seen[name] = (_first_tensor((*args, *kwargs.values())), _first_tensor(output))

        return record

    handles = [
        module.get_submodule(name).register_forward_hook(recorder(name), with_kwargs=True) for name in sorted(names)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    missing = names - set(seen)
    if must_run and missing:
        raise ValueError(f"Layer {sorted(missing)[0]!r} of {type(module).__name__} does not run in its forward pass.")


def _first_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    items = value.values() if isinstance(value, dict) else value
    for item in items if isinstance(items, (list, tuple)) or isinstance(value, dict) else ():
        if isinstance(item, Tensor):
            return item
    raise ValueError(f"Expected a layer to give a tensor, or to have one first, but got {type(value).__name__}.")


def _input_shape(module: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    if input_shape is not None:
        if not isinstance(input_shape, Sequence) or not input_shape:
            raise ValueError(f"Expected argument `input_shape` to be a list of lengths, but got {input_shape!r}.")
        return tuple(check_positive_int(length, "input_shape") for length in input_shape)
    example = getattr(module, "example_input_array", None)
    if not isinstance(example, Tensor):
        raise ValueError(
            "Expected argument `input_shape` to be given for a module without an `example_input_array` tensor, "
            "but got None: ModuleBackbone(module, input_shape=(3, 224, 224))."
        )
    return tuple(example.shape[1:])


def _default_preprocessing(shape: tuple[int, ...]) -> Preprocessing | None:
    return Preprocessing(size=(shape[1], shape[2]), channels=shape[0]) if len(shape) == 3 else None


def _shortened(names: Sequence[str], limit: int = 12) -> str:
    return f"{list(names[-limit:])}" if len(names) <= limit else f"[..., {', '.join(map(repr, names[-limit:]))}]"
