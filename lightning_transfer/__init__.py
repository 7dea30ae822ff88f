"""How well will a pre-trained backbone transfer to a task?

Screen backbones with :func:`screen`, watch transferability from inside a ``Trainer`` with
:class:`TransferabilityMonitor` and :class:`TaskRelatednessMonitor`, or use each score by itself: as a function in
:mod:`lightning_transfer.functional`, as a Metric in :mod:`lightning_transfer.metrics`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_transfer.backbones import Backbone, load_backbone
    from lightning_transfer.callbacks import TaskRelatednessMonitor, TransferabilityMonitor
    from lightning_transfer.extraction import extract
    from lightning_transfer.metrics import TaskRelatedness
    from lightning_transfer.screening import Leaderboard, screen
    from lightning_transfer.selection import select, study

_HOMES = {
    "Backbone": "lightning_transfer.backbones",
    "Leaderboard": "lightning_transfer.screening",
    "TaskRelatedness": "lightning_transfer.metrics",
    "TaskRelatednessMonitor": "lightning_transfer.callbacks",
    "TransferabilityMonitor": "lightning_transfer.callbacks",
    "extract": "lightning_transfer.extraction",
    "load_backbone": "lightning_transfer.backbones",
    "screen": "lightning_transfer.screening",
    "select": "lightning_transfer.selection",
    "study": "lightning_transfer.selection",
}

__all__ = [
    "Backbone",
    "Leaderboard",
    "TaskRelatedness",
    "TaskRelatednessMonitor",
    "TransferabilityMonitor",
    "extract",
    "load_backbone",
    "screen",
    "select",
    "study",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that ``import lightning_transfer`` costs nothing."""
    if name == "__version__":
        from importlib.metadata import version

        return version("lightning-transfer")
    if name not in _HOMES:
        raise AttributeError(f"module `lightning_transfer` has no attribute `{name}`")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, those that have not been imported yet included."""
    return [*__all__, "__version__"]
