"""Scores that exist only relative to a zoo: their raw parts are scaled over the backbones of a leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_transfer.metrics.registry import METRICS
from lightning_transfer.screening.row import Row

Combiner = Callable[[Sequence[Mapping[str, Any]]], Any]


def combine_zoo_scores(rows: Sequence[Row], combiners: Mapping[str, Combiner] | None = None) -> list[Row]:
    """Put the published, zoo-relative scores in place of the raw ones.

    Args:
        rows: Rows with the raw ``parts`` of such scores (ETran, NCTI).
        combiners: By column, what makes the scores of all models out of the parts of each, for columns that are not
            called like a score of the package.

    Returns:
        The rows; where two or more have the parts of a score, its column is the combined score, without standard error.
    """
    columns = dict.fromkeys(column for row in rows for column in row.parts)
    registered = {column: METRICS[column].metric_class.combine for column in columns if column in METRICS}
    combined = list(rows)
    for column, combine in {**registered, **(combiners or {})}.items():
        members = [index for index, row in enumerate(rows) if column in row.parts]
        if len(members) < 2 or combine is None:
            continue
        scores = combine([rows[index].parts[column] for index in members])
        for index, score in zip(members, scores.tolist(), strict=True):
            row = combined[index]
            errors = {name: error for name, error in row.standard_errors.items() if name != column}
            combined[index] = replace(row, scores={**row.scores, column: score}, standard_errors=errors)
    return combined
