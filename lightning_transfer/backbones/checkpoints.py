"""Backbones from files: checkpoints into a module, and programs of ``torch.export`` and TorchScript."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.base import tensors_only
from lightning_transfer.backbones.initialisation import reinitialise
from lightning_transfer.backbones.module import ModuleBackbone
from lightning_transfer.backbones.pickles import check_checkpoint
from lightning_transfer.backbones.programs import check_exported, check_script
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.errors import Failure

_EXPORTED = {".pt2", ".ep"}


def load_weights(module: nn.Module, path: str | Path, *, prefix: str | None = None, strict: bool = True) -> nn.Module:
    """Load a checkpoint file into a module, in place. Only tensors and plain containers are read, never code.

    Understood are state dicts, Lightning and other checkpoints that hold one under ``state_dict``, ``model`` or
    ``model_state_dict``, and ``.safetensors`` files.

    Args:
        module: The network that the weights belong to.
        path: The file.
        prefix: What the names in the file have in front, such as ``"model."``; entries without it are left out. By
            default the one prefix under which the names fit the module is found.
        strict: Whether every weight must be in the file and fit.

    Returns:
        The same module.

    Raises:
        ValueError: If the file has no weights that fit.
        FileNotFoundError: If there is no such file.
    """
    if not isinstance(module, nn.Module):
        hint = f": type module={module.__name__}(...)" if isinstance(module, type) else ""
        raise ValueError(f"Expected argument `module` to be a network, but got {module!r}{hint}.")
    state = _read_state(check_path(path, "path"))
    weights = module.state_dict()
    if prefix is None:
        prefix = _find_prefix(state, weights)
    inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    wrong = [n for n, v in weights.items() if n in inner and inner[n].shape != v.shape]
    missing = [n for n in weights if n not in inner and not n.endswith("num_batches_tracked")]
    if wrong or (strict and missing) or not any(n in inner for n in weights):
        raise ValueError(
            f"Expected the weights in `{path}` to fit {type(module).__name__} with prefix {prefix!r}, but "
            f"{len(missing)} of {len(weights)} are missing (first {missing[:3]}) and {len(wrong)} have another shape "
            f"(first {wrong[:3]}). The file's names begin with {list(state)[:3]}."
        )
    for name in inner.keys() & weights:
        if not _is_dense(inner[name], weights[name]):
            raise ValueError(
                f"Expected `{path}` to hold dense tensors of real numbers, but `{name}` is {inner[name].dtype} "
                f"{inner[name].layout} on {inner[name].device}."
            )
    module.load_state_dict({n: v for n, v in inner.items() if n in weights}, strict=False)
    return module


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file `{path}`.")
    content: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            with path.open("rb") as file:
                check_checkpoint(file, path.stat().st_size)
                file.seek(0)
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the readers meet in a file of another kind
        raise ValueError(
            f"Expected `{path}` to be a checkpoint of tensors and plain containers, but reading it gives "
            f"{Failure.of(error)}; objects of other classes are never loaded."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {n: v for n, v in entries if isinstance(n, str) and isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"Expected `{path}` to hold a state dict, but found no tensors in it.")
    return tensors


def _is_dense(value: Tensor, weight: Tensor) -> bool:
    """Whether the numbers of a tensor can be copied into a weight."""
    plain = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return plain and (weight.is_complex() or not value.is_complex())


def _find_prefix(state: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """The prefix under which most of the module's names are in the file (none, when nothing fits)."""
    anchor = max(weights, key=len, default="")
    candidates = {""} | {name[: -len(anchor)] for name in state if anchor and name.endswith("." + anchor)}
    return max(sorted(candidates), key=lambda prefix: sum(prefix + name in state for name in weights))


class CheckpointBackbone(ModuleBackbone):
    """A module with the weights of a checkpoint file.

    Args:
        module: The network, built with whatever weights.
        path: State dict, Lightning checkpoint or safetensors file; see :func:`load_weights`.
        input_shape: Shape of one prepared input.
        prefix: What the names in the file have in front; found by default.
        strict: Whether every weight must be in the file and fit.
        pretrained: ``False`` leaves the file unread and draws random weights: the control.
        name: What tables call it; by default the stem of the file, with ``_random`` for the control.
        **kwargs: Further arguments of :class:`~lightning_transfer.backbones.ModuleBackbone`.

    Raises:
        ValueError: If the weights do not fit the module.
        FileNotFoundError: If there is no such file.
    """

    def __init__(
        self,
        module: nn.Module,
        path: str | Path,
        input_shape: Sequence[int] | None = None,
        *,
        prefix: str | None = None,
        strict: bool = True,
        pretrained: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        path = check_path(path, "path")
        if pretrained:
            load_weights(module, path, prefix=prefix, strict=strict)
        name = name or path.stem + ("" if pretrained else "_random")
        super().__init__(module, input_shape, pretrained=pretrained, name=name, **kwargs)


class ProgramBackbone(ModuleBackbone):
    """A program file: ``torch.export`` (``.pt2``, ``.ep``) or TorchScript (anything else, such as ``.pt``).

    A program runs in the mode in which it was traced, so ``train()`` and ``eval()`` of the backbone do not reach it.
    Export with a dynamic batch dimension: the program refuses batches of other sizes otherwise. By default the
    program's output is the feature; layers of exported programs can be named (they are unflattened then), those of
    TorchScript cannot.

    A file is read only if all that it holds is known to compute with tensors and nothing else: no compiled libraries,
    pickled objects or operations that touch files, and expressions of sizes by a grammar.

    Args:
        path: The file.
        input_shape: Shape of one prepared input.
        layer: Dotted name of the layer that gives the features; by default the program's output.
        head: Dotted name of the classifier; ``None`` means that there is none.
        pretrained: ``False`` replaces the weights of the file by random ones: the control.
        seed: Seed of the random weights.
        trust_program: Read the file whatever it holds: code in it may do all that you may.
        name: What tables call it; by default the stem of the file, with ``_random`` for the control.
        **kwargs: Further arguments of :class:`~lightning_transfer.backbones.ModuleBackbone`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no such program, may run code, or a layer is named in TorchScript.
    """

    def __init__(
        self,
        path: str | Path,
        input_shape: Sequence[int],
        *,
        layer: str | None = None,
        head: str | None = None,
        pretrained: bool = True,
        seed: int = 0,
        trust_program: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        path = check_path(path, "path")
        if not path.is_file():
            raise FileNotFoundError(f"There is no program file `{path}`.")
        unflatten = layer is not None or head is not None
        exported = path.suffix in _EXPORTED
        if unflatten and not exported:
            raise ValueError(f"Expected `layer` and `head` to be None for TorchScript, but got {layer!r} and {head!r}.")
        content = _read_program(path, check_exported if exported else check_script, trust_program)
        program = _load_exported(path, content, unflatten) if exported else _load_script(path, content)
        if not pretrained:
            reinitialise(program, seed)
        name = name or path.stem + ("" if pretrained else "_random")
        try:
            super().__init__(program, input_shape, layer=layer, head=head, name=name, **kwargs)
        except ValueError as error:
            raise ValueError(f"{error} (`{path}`)") from error

    def train(self, mode: bool = True) -> ProgramBackbone:
        """Note the mode on the backbone; the program keeps the one that it was traced in."""
        self.training = mode
        return self


def _read_program(path: Path, check: Callable[[bytes], None], trusted: bool) -> BytesIO:
    """The bytes that were checked are those that are loaded."""
    content = path.read_bytes()
    if not trusted:
        try:
            check(content)
        except Exception as error:
            raise ValueError(
                f"Expected `{path}` to be a program that only computes, but {error}. Loading it could run code of its "
                "author: `trust_program=True` does so."
            ) from error
    return BytesIO(content)


def _load_exported(path: Path, content: BytesIO, unflatten: bool) -> nn.Module:
    try:
        with tensors_only():
            program = torch.export.load(content)
        return torch.export.unflatten(program) if unflatten else program.module()
    except Exception as error:
        raise ValueError(f"Expected `{path}` to be a program written by torch.export.save, but got: {error}") from error


def _load_script(path: Path, content: BytesIO) -> nn.Module:
    try:
        script: nn.Module = torch.jit.load(content, map_location="cpu")
        return script
    except Exception as error:  # also an IndexError or a KeyError of damaged files
        raise ValueError(f"Expected `{path}` to be a TorchScript file, but got: {error}") from error
