"""Every stage of a backbone scored in one pass: which depth transfers best."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers.abstract import WrapperMetric

from lightning_transfer.inputs import needs_of, task_of
from lightning_transfer.screening.candidates import MetricFactory, load_data
from lightning_transfer.screening.duplicates import watch_duplicates
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.row import Row
from lightning_transfer.screening.screen import add_scores, remarks_on_cache
from lightning_transfer.utilities.checks import check_one_of
from lightning_transfer.utilities.imports import require

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from matplotlib.figure import Figure

    from lightning_transfer.cache import FeatureCache


def screen_layers(
    backbone: Any,
    target: Any,
    metrics: str | Metric | Iterable[str | Metric] | Mapping[str, Any] = "default",
    *,
    layers: str | Sequence[str] = "all",
    split: str = "train",
    max_samples: int | None = None,
    trainer: Trainer | Mapping[str, Any] | None = None,
    error_bars: bool | int = False,
    seed: int = 0,
    progress: bool | None = None,
    cache: FeatureCache | bool | str | Path = True,
    cache_key: str | None = None,
) -> Leaderboard:
    """Score the layers of one backbone on a target, all from one forward pass over the data.

    Args:
        backbone: As for :func:`~lightning_transfer.screen`, one of them.
        target: As there.
        metrics: As there.
        layers: ``"all"`` for the stages of the network, or names of modules and patterns; see
            :class:`~lightning_transfer.backbones.LayeredBackbone`. The backbone's own features are the last row.
        split: As there.
        max_samples: As there.
        trainer: As there.
        error_bars: As there.
        seed: As there.
        progress: As there.
        cache: As there; features of all these layers, and the backbone's own.
        cache_key: As there.

    Returns:
        A row a layer, in the order of depth; ``backbone`` of a row is the layer's name.

    Raises:
        ValueError: If a name or argument is unknown or wrong.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> from lightning_transfer.screening import aggregate_layers, screen_layers
        >>> body = [nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU()]
        >>> net = nn.Sequential(*body, nn.Linear(8, 4))
        >>> board = screen_layers(ModuleBackbone(net, (1, 8, 8)), Digits(max_samples=100), "logme")
        >>> [row.backbone for row in board.rows]
        ['module.1', 'module.3', 'features']
        >>> aggregate_layers(board, "best")["logme"] == max(row.score("logme") for row in board.rows)
        True
    """
    from lightning_transfer.backbones import LayeredBackbone, load_backbone
    from lightning_transfer.cache import CachedPasses, FeatureCache

    extract = CachedPasses(FeatureCache.of(cache), cache_key, watch_duplicates)
    start = time.perf_counter()
    data = load_data(target, "target")
    data.prepare_data()
    data.setup("fit")
    factory = MetricFactory.of(metrics, task_of(data), error_bars)
    layered = LayeredBackbone(load_backbone(backbone), layers)
    scores = _LayerScores({name: factory.build(layered) for name in layered.slices}, layered.slices)
    extraction = extract(
        layered, data, scores, split=split, max_samples=max_samples, trainer=trainer, seed=seed, progress=progress
    )
    seconds = time.perf_counter() - start + extraction.saved
    rows = [
        add_scores(
            Row(
                name,
                feature_dim=part.stop - part.start,
                images_per_second=extraction.images_per_second,
                seconds=seconds,
                cached=extraction.cached,
                remarks=tuple(remarks_on_cache(extraction)),
            ),
            scores.of(name),
            factory.groups > 0,
        )
        for name, part in layered.slices.items()
    ]
    info = {"layers_of": layered.name, "split": split, "num_samples": extraction.num_samples}
    return Leaderboard(rows, lower_is_better=factory.lower_is_better, info=info)


def aggregate_layers(board: Leaderboard, how: str = "best") -> dict[str, float]:
    """One value a score from a value a layer.

    Args:
        board: What :func:`screen_layers` gave.
        how: ``"best"`` layer of each score, ``"mean"`` over the layers, or the ``"last"`` layer.

    Returns:
        The values by column; layers whose score could not be computed are left out.

    Raises:
        ValueError: If ``how`` is unknown.
    """
    check_one_of(how, ("best", "mean", "last"), "how")
    aggregated = {}
    for column in board.columns:
        values = [value for row in board.rows if not math.isnan(value := row.score(column))]
        if not values:
            aggregated[column] = math.nan
        elif how == "mean":
            aggregated[column] = sum(values) / len(values)
        elif how == "last":
            aggregated[column] = values[-1]
        else:
            aggregated[column] = min(values) if column in board.lower_is_better else max(values)
    return aggregated


def plot_layers(board: Leaderboard, column: str | None = None) -> Figure:
    """Draw a score by depth.

    Args:
        board: What :func:`screen_layers` gave.
        column: The score; by default the one that ranks.

    Returns:
        A matplotlib figure; it belongs to no window.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    column = column or board.rank_by
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    depths = range(len(board.rows))
    errors = [0.0 if math.isnan(error := row.standard_error(column)) else error for row in board.rows]
    axes.errorbar(depths, [row.score(column) for row in board.rows], yerr=errors, marker="o")
    axes.set_xticks(depths, [row.backbone.replace("$", r"\$") for row in board.rows], rotation=60, ha="right")
    axes.set_ylabel(column)
    return figure


class _LayerScores(WrapperMetric):
    """Feeds the scores of each layer with its columns of the features."""

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
