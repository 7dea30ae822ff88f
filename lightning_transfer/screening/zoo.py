"""Scores that exist only relative to a zoo: their raw parts are scaled over the backbones of a leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lightning_transfer.screening.row import Row


def combine_zoo_scores(rows: Sequence[Row]) -> list[Row]:
    """Put the published, zoo-relative scores in place of the raw ones.

    Args:
        rows: Rows with the raw ``parts`` of such scores (ETran, NCTI).

    Returns:
        The rows; where two or more have the parts of a score, its column is the combined score, without standard error.
    """
    from lightning_transfer.functional.etran import combine_etran
    from lightning_transfer.functional.ncti import combine_ncti

    combiners: dict[str, Callable[[Any], Any]] = {"etran": combine_etran, "ncti": combine_ncti}
    combined = list(rows)
    for column, combine in combiners.items():
        members = [index for index, row in enumerate(rows) if column in row.parts]
        if len(members) < 2:
            continue
        scores = combine([rows[index].parts[column] for index in members])
        for index, score in zip(members, scores.tolist(), strict=True):
            row = combined[index]
            errors = {name: error for name, error in row.standard_errors.items() if name != column}
            combined[index] = replace(row, scores={**row.scores, column: score}, standard_errors=errors)
    return combined
