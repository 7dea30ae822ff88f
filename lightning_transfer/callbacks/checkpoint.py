"""Checkpoints that a resumed run goes on with."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from typing_extensions import override


class ContinuedCheckpoint(ModelCheckpoint):
    """A ``ModelCheckpoint`` that goes on where a resumed run stopped when it writes to another folder too."""

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})
