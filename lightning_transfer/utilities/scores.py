"""What counts as the same score."""

from __future__ import annotations

import math


def equal_scores(first: float, second: float) -> bool:
    """Whether two scores differ by no more than rounding, so that they share a rank and a look.

    Example:
        >>> from lightning_transfer.utilities.scores import equal_scores
        >>> equal_scores(19.0, 19.000000000000004), equal_scores(0.71, 0.72)
        (True, False)
    """
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
