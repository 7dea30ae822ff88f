"""Leave a training run exactly as it was found: random states, module modes and buffers, trainer stage, compilation."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.states import RunningStage

    RandomSource = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


_WRAPPED = ("dataset", "sampler", "batch_sampler", "data", "inputs", "source")
_COLLECTED = ("datasets", "given", "splits")


@contextmanager
def preserve_rng(*sources: RandomSource) -> Iterator[None]:
    """Put every global random state back on exit, also when the body raises.

    The states of PyTorch (CPU and every CUDA or MPS device that is in use), NumPy and Python are kept.

    Args:
        sources: Generators of the user's own whose states are kept as well.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.isolation import preserve_rng
        >>> before = torch.get_rng_state()
        >>> with preserve_rng():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    states = [_state_of(source) for source in sources]
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        for source, state in zip(sources, states, strict=True):
            _restore_state(source, state)


def random_states(*sources: RandomSource) -> list[Any]:
    """The global random states of this process on the CPU, and those of sources, to compare: equal if nothing drew.

    Args:
        sources: Generators of the user's own.
    """
    states = [torch.get_rng_state(), np.random.get_state(), random.getstate(), *map(_state_of, sources)]
    return [_comparable(state) for state in states]


def find_random_sources(*owners: object) -> list[RandomSource]:
    """Find the generators that objects hold as plain attributes.

    Loaders, samplers, datasets (also wrapped ones, by ``dataset``, ``datasets``, ``sampler``, ``batch_sampler``, and
    those that this package's datamodules read from) and datamodules may carry a generator of their own, which a pass
    over the data would advance.

    Args:
        owners: Objects to look into.

    Returns:
        Every generator of PyTorch, NumPy (old and new) and Python that was found, each once.
    """
    generators: dict[int, RandomSource] = {}
    pending, seen = list(owners), set()
    while pending:
        owner = pending.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for name, value in getattr(owner, "__dict__", {}).items():
            if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
                generators[id(value)] = value
            elif name.lstrip("_") in _WRAPPED and value is not None:
                pending.append(value)
            elif name in _COLLECTED and isinstance(value, list | tuple | Mapping):
                pending.extend(value.values() if isinstance(value, Mapping) else value)
    return list(generators.values())


@contextmanager
def preserve_modules(module: nn.Module) -> Iterator[None]:
    """Put the train/eval mode of every submodule and every buffer back on exit, also when the body raises.

    Args:
        module: The root; frozen layers that sit in evaluation mode inside a training module stay so.

    Example:
        >>> import torch
        >>> from lightning_transfer.utilities.isolation import preserve_modules
        >>> net = torch.nn.Sequential(torch.nn.BatchNorm1d(2).eval(), torch.nn.Dropout())
        >>> with preserve_modules(net):
        ...     _ = net.train()
        >>> net[0].training, net[1].training
        (False, True)
    """
    modes = [(child, child.training) for child in module.modules()]
    buffers = [
        (child, name, value, None if value is None else value.detach().clone())
        for child in module.modules()
        for name, value in child._buffers.items()
    ]
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training
        with torch.inference_mode(False), torch.no_grad():
            pairs = [(value, kept) for _, _, value, kept in buffers if value is not None and kept is not None]
            for value, kept in [] if _all_equal(pairs) else pairs:
                if not torch.equal(value, kept):
                    value.copy_(kept)
            for child, name, tensor, _ in buffers:
                child._buffers[name] = tensor


def _all_equal(pairs: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether the tensors of all pairs are equal, with one wait for a GPU and not one for each."""
    found: dict[torch.device, list[Tensor]] = {}
    for value, kept in pairs:
        if value.device.type == "cpu" or value.shape != kept.shape or value.layout != torch.strided:
            if not torch.equal(value, kept):
                return False
        else:
            found.setdefault(value.device, []).append((value == kept).all())
    return all(bool(torch.stack(flags).all()) for flags in found.values())


@contextmanager
def set_stage(trainer: Trainer, stage: RunningStage) -> Iterator[None]:
    """Let hooks that look at ``trainer.training`` or ``trainer.validating`` see another stage for a while.

    Args:
        trainer: The Trainer whose stage is set.
        stage: For example ``RunningStage.VALIDATING``.
    """
    before = trainer.state.stage
    trainer.state.stage = stage
    try:
        yield
    finally:
        trainer.state.stage = before


def run_eagerly() -> AbstractContextManager[None]:
    """Run compiled modules eagerly for a while, so that no graph is added to their caches."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def leave_no_trace(trainer: Trainer, module: nn.Module, *random_sources: RandomSource) -> Iterator[None]:
    """Everything above at once: a pass over data in evaluation mode that training cannot tell from no pass at all.

    Gradients are off, but tensors made inside are ordinary ones, not inference tensors.

    Args:
        trainer: The Trainer in charge.
        module: The module that is run; in evaluation mode inside.
        random_sources: Generators of the user's own, see :func:`find_random_sources`.
    """
    from lightning.pytorch.trainer.states import RunningStage

    with ExitStack() as stack:
        for context in (
            preserve_rng(*random_sources),
            preserve_modules(module),
            set_stage(trainer, RunningStage.VALIDATING),
            run_eagerly(),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            stack.enter_context(context)
        module.eval()
        yield


def _state_of(source: RandomSource) -> Any:
    if isinstance(source, torch.Generator | np.random.RandomState):
        return source.get_state()
    return source.bit_generator.state if isinstance(source, np.random.Generator) else source.getstate()


def _comparable(state: Any) -> Any:
    """A state without arrays, whose comparison is one truth value."""
    if isinstance(state, torch.Tensor | np.ndarray):
        return np.asarray(state).tobytes()
    if isinstance(state, Mapping):
        return {name: _comparable(value) for name, value in state.items()}
    is_short = isinstance(state, tuple) and len(state) < 100  # Python's own holds numbers only
    return tuple(map(_comparable, state)) if is_short else state


def _restore_state(source: RandomSource, state: Any) -> None:
    if isinstance(source, torch.Generator | np.random.RandomState):
        source.set_state(state)
    elif isinstance(source, np.random.Generator):
        source.bit_generator.state = state
    else:
        source.setstate(state)
