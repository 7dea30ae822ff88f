"""When a monitor looks: the epochs that count, and the last validation of each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_transfer.utilities.checks import check_positive_int

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


class Schedule:
    """Every n-th epoch; where the training data do not say how long an epoch is, every n-th validation.

    Args:
        every_n_epochs: The n, from 1.
    """

    def __init__(self, every_n_epochs: int) -> None:
        self.every_n_epochs = check_positive_int(every_n_epochs, "every_n_epochs")
        self._validations, self._last = 0, -1

    def start(self, trainer: Trainer) -> None:
        """Begin at the epoch in which the training begins; a look before it counts for none."""
        self._validations, self._last = trainer.current_epoch, -1

    def note_look(self, trainer: Trainer) -> None:
        """Note that there are values of this epoch."""
        self._last = trainer.current_epoch

    def counts_validation(self, trainer: Trainer, hooked: bool) -> bool:
        """Whether to look in the validation that starts now.

        Args:
            trainer: A Trainer inside ``fit``.
            hooked: The features come from the validation itself; a pass over other data is made once an epoch.
        """
        if trainer.sanity_checking:
            return False
        self._validations += 1
        if math.isinf(trainer.num_training_batches):
            return self._validations % self.every_n_epochs == 0
        return self._is_due(trainer) and (hooked or trainer.is_last_batch)

    def counts_epoch(self, trainer: Trainer) -> bool:
        """Whether to look at the end of this epoch, since no validation of it was one to look in."""
        return self._is_due(trainer) and self._last != trainer.current_epoch

    def saw_nothing(self, trainer: Trainer) -> bool:
        """Whether a training without known epochs ended before anything was due."""
        return math.isinf(trainer.num_training_batches) and self._last < 0 < trainer.global_step

    def _is_due(self, trainer: Trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0
