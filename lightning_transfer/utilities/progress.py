"""A progress bar that leaves standard output to the results."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar

from lightning_transfer.utilities.text import plain


class ScoringBar(TQDMProgressBar):
    """A bar on standard error with the backbone's name, gone when the pass is over.

    Args:
        title: What stands in front of the bar.
    """

    def __init__(self, title: str) -> None:
        super().__init__(leave=False)
        self.title = plain(title)

    def init_predict_tqdm(self) -> Any:
        """Make the bar."""
        from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

        return Tqdm(desc=self.title, leave=False, dynamic_ncols=True, file=sys.stderr, unit="batch")

    @property
    def predict_description(self) -> str:
        """What stands in front of the bar."""
        return self.title
