"""What one look of a monitor has seen so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lightning_transfer.passes import Places


@dataclass
class Look:
    """State of one look, from its first batch to its values.

    Attributes:
        active: Batches of the validation belong to it.
        sound: Nothing has failed that its values depend on.
        gathered: The passes of the monitor's own have been made.
        num_loaders: Loaders that its samples come from.
        samples: Samples taken on this process, by loader.
        places: Numbers the samples of each loader of the validation.
        batch: What the last batch held, in words.
        targets: The last batch called what it is scored against targets.
    """

    active: bool = False
    sound: bool = True
    gathered: bool = False
    num_loaders: int = 0
    samples: Counter[int] = field(default_factory=Counter)
    places: dict[int, Places] = field(default_factory=dict)
    batch: str = "nothing"
    targets: bool = False
