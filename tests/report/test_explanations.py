"""What columns say."""

from __future__ import annotations

import pytest

from lightning_transfer.metrics.registry import METRICS
from lightning_transfer.report.explanations import explain_column
from lightning_transfer.screening.row import COSTS


@pytest.mark.parametrize("column", [*METRICS, *COSTS, "rank", "backbone"])
def test_every_column_is_explained(column):
    assert len(explain_column(column)) > 20


def test_unknown_columns_are_not():
    assert explain_column("my_own_score") == ""
