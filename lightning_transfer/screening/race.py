"""A race: backbones see the target in growing portions, and those that fall behind are dropped."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field

from lightning_transfer.screening.standings import Standings
from lightning_transfer.utilities.checks import check_in_interval

_GROWTH = 2.0  # of the portions
_FIRST = 4.0  # the first portion is this part of the share
_FEWEST = 2  # backbones that stay while forward passes are left
LEVEL = 0.95


@dataclass(frozen=True)
class Dropped:
    """A backbone that was dropped.

    Attributes:
        backbone: Its name.
        samples: How many samples it had seen.
        ruled_out: Whether its score was behind the best one with 95 % certainty, which holds for all of its round
            together; otherwise it was among the last where forward passes did not suffice for all.
        score: Its score then.
        best: The best score then.
    """

    backbone: str
    samples: int
    ruled_out: bool
    score: float
    best: float


@dataclass
class Race:
    """Who sees how many samples.

    The portions are nested and double from round to round, up to all samples. After each round go those whose score is
    behind the best one with 95 % certainty for all of them together, and of the others the last ones, as many as the
    forward passes at hand leave no room for: the shares that stay fall geometrically, so that the last round sees all
    samples.

    Args:
        count: Number of backbones.
        num_samples: Samples of the target.
        share: Forward passes that may be spent, as a share of those of a full screen.
        smallest: The first portion holds at least so many samples.
        ends: The only sizes that portions may have, rising, the last one that of all samples: where groups of samples
            end. None for any.

    Example:
        >>> from lightning_transfer.screening.race import Race
        >>> race = Race(count=40, num_samples=800, share=0.5)
        >>> race.portions, race.places
        ([100, 200, 400, 800], [40, 28, 19, 13])
        >>> race.next_portion(alive=40)
        100
    """

    count: int
    num_samples: int
    share: float
    smallest: int = 1
    ends: list[int] | None = None
    dropped: list[Dropped] = field(default_factory=list)
    spent: int = 0
    seen: int = 0
    round: int = 0

    def __post_init__(self) -> None:
        check_in_interval(self.share, 0.0, 1.0, "race")
        if self.share == 0:
            raise ValueError(f"Expected argument `race` to be above 0, but got {self.share}.")
        self.budget = math.floor(self.share * self.count * self.num_samples + 1e-9)
        first = self._whole(max(self.smallest, math.ceil(self.share * self.num_samples / _FIRST)))
        if first * self.count > self.budget:
            raise ValueError(
                f"Expected argument `race` to leave {first} samples for each of {self.count} backbones, but "
                f"{self.share:g} of {self.num_samples} are fewer."
            )
        self.portions = [first]
        while self.portions[-1] < self.num_samples:
            self.portions.append(self._whole(min(self.num_samples, math.ceil(_GROWTH * self.portions[-1]))))
        self.places = self._places()

    def _whole(self, size: int, affordable: int | None = None) -> int:
        """The smallest portion of at least that size which divides no group, or the largest that can be paid."""
        if self.ends is None:
            return size
        place = bisect_left(self.ends, size)
        if affordable is None or self.ends[place] <= affordable:
            return self.ends[place]
        return self.ends[place - 1] if place else 0

    def _places(self) -> list[int]:
        steps = [end - start for start, end in zip([0, *self.portions], self.portions, strict=False)]

        def shares(ratio: float) -> list[int]:
            return [max(1, math.floor(ratio**number * self.count)) for number in range(len(steps))]

        def cost(ratio: float) -> int:
            return sum(alive * step for alive, step in zip(shares(ratio), steps, strict=True))

        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if cost(middle) <= self.budget else (low, middle)
        return shares(high if cost(high) <= self.budget else low)

    def next_portion(self, alive: int) -> int:
        """The samples that each backbone has seen after the next round; 0 when the race is over.

        Args:
            alive: Backbones in the race; the portion is as large as the forward passes at hand allow.
        """
        if alive < 1 or self.seen >= self.num_samples or (alive == 1 and self.round > 0):
            return 0
        affordable = self.seen + (self.budget - self.spent) // alive
        portion = min(self.portions[self.round] if self.round < len(self.portions) else self.num_samples, affordable)
        portion = self._whole(portion, affordable)
        return portion if portion > self.seen else 0

    def account(self, alive: int, portion: int) -> None:
        """Note that a round was run."""
        self.spent += alive * (portion - self.seen)
        self.seen = portion
        self.round += 1

    def drop(self, board: Standings) -> list[Dropped]:
        """Decide who goes after a round.

        Args:
            board: The scores of those in the race, on the same samples.

        Returns:
            Those who go, the best first.
        """
        if self.seen >= self.num_samples or self.spent >= self.budget:
            return []
        rows = [row for row in board.ranked() if math.isfinite(row.score(board.rank_by))]
        level = 1 - (1 - LEVEL) / max(1, len(rows) - 1)  # for all together: the best of many is so by chance, too
        places = max(_FEWEST, self.places[min(self.round, len(self.places) - 1)])
        gone = []
        for place, row in enumerate(rows):
            behind = place > 0 and board.prob_better(rows[0].backbone, row.backbone) >= level
            if behind or place >= places:
                best = rows[0].score(board.rank_by)
                gone.append(Dropped(row.backbone, self.seen, behind, row.score(board.rank_by), best))
        self.dropped += gone
        return gone

    def summary(self) -> dict[str, object]:
        """What happened, as plain JSON values."""
        return {
            "share": self.share,
            "forward_passes": self.spent,
            "of": self.count * self.num_samples,
            "portions": self.portions[: self.round],
            "samples": self.seen,
            "dropped": [vars(one).copy() for one in self.dropped],
        }

    def sentence(self) -> str:
        """What the table says of the race."""
        saved = 1 - self.spent / (self.count * self.num_samples)
        ruled_out = sum(one.ruled_out for one in self.dropped)
        return (
            f"Race: {len(self.dropped)} of {self.count} backbones were dropped before they had seen all "
            f"{self.num_samples} samples, {ruled_out} of them ruled out (95 %); {saved:.0%} of the forward passes of a "
            f"full screen were saved; the scores are those of {self.seen} samples."
        )


def say_dropped(one: Dropped, title: str) -> str:
    """Why a backbone has no score in the table."""
    why = "ruled out (95 %)" if one.ruled_out else "among the last, not ruled out"
    return f"dropped after {one.samples} samples, {why}: {title} {one.score:.3g}, the best {one.best:.3g}"
