"""Scores of every layer of a backbone, from the batches of one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.wrappers.abstract import WrapperMetric

from lightning_transfer.inputs import needs_of
from lightning_transfer.screening.row import Row
from lightning_transfer.utilities.checks import check_one_of

AGGREGATIONS = ("best", "mean", "last")


class LayerScores(WrapperMetric):
    """Feeds the scores of each layer with its columns of the features.

    Args:
        collections: The scores of each layer.
        slices: The columns of each layer.
    """

    def __init__(self, collections: Mapping[str, MetricCollection], slices: Mapping[str, slice]) -> None:
        super().__init__()
        self._names = list(collections)
        for place, collection in enumerate(collections.values()):
            self.add_module(f"layer_{place}", collection)
        self._slices = [slices[name] for name in self._names]
        members = (metric for collection in collections.values() for _, metric in collection.items(keep_base=True))
        self.requires = tuple(sorted({need for metric in members for need in needs_of(metric)}))

    def of(self, name: str) -> MetricCollection:
        """The scores of a layer."""
        collection: MetricCollection = self.get_submodule(f"layer_{self._names.index(name)}")  # type: ignore[assignment]
        return collection

    def update(self, features: Tensor, **values: Tensor) -> None:
        """Update the scores of every layer."""
        for name, columns in zip(self._names, self._slices, strict=True):
            self.of(name).update(features=features[:, columns], **values)

    def compute(self) -> dict[str, dict[str, Any]]:
        """The scores by layer."""
        return {name: self.of(name).compute() for name in self._names}

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        for name in self._names:
            self.of(name).reset()


def choose_layers(
    rows: Sequence[Row], columns: Iterable[str], lower_is_better: Iterable[str], how: str
) -> dict[str, tuple[float, str]]:
    """One value a score from the layers of one backbone.

    Args:
        rows: A row a layer, in the order of depth.
        columns: The scores.
        lower_is_better: Those of which the smallest wins.
        how: ``"best"`` layer of each score, ``"mean"`` over the layers, or the ``"last"`` layer.

    Returns:
        By column the value, and the layer that it is of (for a mean: none). Layers whose score could not be computed
        are left out.

    Raises:
        ValueError: If ``how`` is unknown.
    """
    check_one_of(how, AGGREGATIONS, "how")
    chosen = {}
    for column in columns:
        known = [row for row in rows if not math.isnan(row.score(column))]
        if not known:
            chosen[column] = (math.nan, "")
        elif how == "mean":
            chosen[column] = (sum(row.score(column) for row in known) / len(known), "")
        else:
            sign = -1 if column in lower_is_better else 1
            row = known[-1] if how == "last" else max(known, key=lambda row: sign * row.score(column))
            chosen[column] = (row.score(column), row.layer)
    return chosen
