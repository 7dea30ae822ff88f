"""Random weights from a seed, without a trace in the global random state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lightning_transfer.utilities.checks import check_seed


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Let modules that are built inside draw their weights from ``seed``; the global generator is as before after it.

    Only the CPU generator is touched (and put back): modules are built on the CPU.

    Example:
        >>> import torch
        >>> from lightning_transfer.backbones import seeded_initialisation
        >>> before = torch.get_rng_state()
        >>> with seeded_initialisation(0):
        ...     layer = torch.nn.Linear(2, 2)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    check_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def reinitialise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Replace all weights of a module, in place, by random ones: the control of a trained module.

    Submodules draw by their own ``reset_parameters`` (running statistics included). Parameters of modules without one
    get independent normal entries of variance 1 / fan-in (two or more dimensions), ones (vectors named ``weight``) or
    zeros (other vectors), so that no trained value survives.

    Args:
        module: Any module.
        seed: Seed of the draw.

    Returns:
        The same module.
    """
    with seeded_initialisation(seed), torch.no_grad():
        for child in module.modules():
            reset = getattr(child, "reset_parameters", None) or getattr(child, "_reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for name, parameter in child.named_parameters(recurse=False):
                _draw(name, parameter)
            for name, buffer in child.named_buffers(recurse=False):
                if name.endswith(("running_mean", "running_var")):
                    buffer.fill_(1.0 if name.endswith("var") else 0.0)
    return module


def _draw(name: str, parameter: nn.Parameter) -> None:
    if parameter.ndim >= 2:
        parameter.normal_(std=max(1, parameter[0].numel()) ** -0.5)
    else:
        parameter.fill_(1.0 if name.endswith("weight") else 0.0)
