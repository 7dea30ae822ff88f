"""Which tasks are alike for one backbone: the bound of every task from every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.data.loading import load_data
from lightning_transfer.relatedness.config import DATA
from lightning_transfer.screening.candidates import check_relatedness, needed_of, refuse_for_several
from lightning_transfer.screening.duplicates import NOTES, watch_duplicates
from lightning_transfer.utilities.text import plain

if TYPE_CHECKING:
    import pandas as pd
    from lightning.pytorch import Trainer

    from lightning_transfer.cache import FeatureCache


@dataclass(frozen=True)
class AlikeTasks:
    """Bounds between tasks, in nats; lower is better.

    Attributes:
        tasks: Their names.
        bounds: Bound of the loss on the second task of a pair from the first as the reference.
        guessing: Loss of guessing by the class shares, by task: a bound above it says nothing of its own.
    """

    tasks: tuple[str, ...]
    bounds: Mapping[tuple[str, str], float]
    guessing: Mapping[str, float]

    def nearest(self, target: str) -> str:
        """The other task with the smallest bound on a target; an easy one has that, related or not.

        Which one is related :func:`~lightning_transfer.screening.rank_references` tells.

        Raises:
            ValueError: If there is no such task.
        """
        if target not in self.tasks:
            raise ValueError(f"Expected argument `target` to be one of {self.tasks}, but got {target!r}.")
        return min((name for name in self.tasks if name != target), key=lambda name: self.bounds[name, target])

    def to_pandas(self) -> pd.DataFrame:
        """References as rows, targets as columns."""
        import pandas as pd

        return pd.DataFrame(
            [[self.bounds.get((one, other), float("nan")) for other in self.tasks] for one in self.tasks],
            index=list(self.tasks),
            columns=list(self.tasks),
        )

    def __str__(self) -> str:
        corner = "from \\ to"
        names = [plain(name) for name in self.tasks]
        wide = max(map(len, (*names, corner, "guessing")))
        widths = [max(len(name), 7) for name in names]
        lines = [
            "  ".join([corner.ljust(wide), *(name.rjust(width) for name, width in zip(names, widths, strict=True))])
        ]
        rows = [
            (name, [self.bounds.get((one, other)) for other in self.tasks])
            for name, one in zip(names, self.tasks, strict=True)
        ]
        rows.append(("guessing", [self.guessing[task] for task in self.tasks]))
        for name, values in rows:
            cells = ("-" if value is None else f"{value:.3f}" for value in values)
            lines.append("  ".join([name.ljust(wide), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))]))
        return "\n".join([*lines, "Bounds of the loss on the column's task in nats, lower is better."])


def alike_tasks(
    backbone: Any,
    tasks: Mapping[str, Any] | Sequence[Any],
    *,
    split: str = "train",
    max_samples: int | None = 1000,
    trainer: Trainer | Mapping[str, Any] | None = None,
    progress: bool | None = None,
    cache: FeatureCache | bool | str | Path = True,
    **options: Any,
) -> AlikeTasks:
    """Bound each task by each other one under one backbone; features are extracted once a task.

    Args:
        backbone: A name, config, module or backbone.
        tasks: Datamodules, configs or names; a dict names them.
        split: The split of each that is looked at.
        max_samples: At most so many samples of a task.
        trainer: A Trainer, or arguments of one, for Lightning's predict loop.
        progress: Whether to show bars; by default on a terminal.
        cache: Where features lie for the next time, see :func:`lightning_transfer.screen`.
        **options: Arguments of :func:`lightning_transfer.functional.task_relatedness`, but for those of one pair alone.

    Raises:
        ValueError: If there are fewer than two tasks, names repeat, or one has no class labels.

    Example:
        >>> from torch import nn
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.screening import alike_tasks
        >>> pixels = ModuleBackbone(nn.Flatten(), input_shape=(1, 8, 8), head=None)
        >>> alike = alike_tasks(pixels, ["digits_0_4", "digits_5_9"], max_samples=100)
        >>> alike.nearest("digits_0_4")
        'digits_5_9'
    """
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.cache import CachedPasses, FeatureCache
    from lightning_transfer.functional.task_relatedness import task_relatedness
    from lightning_transfer.passes import read_input_shape

    extract = CachedPasses(FeatureCache.of(cache), None, watch_duplicates, NOTES)
    arguments = check_relatedness(options)
    refuse_for_several(arguments, "pairs of tasks", set(DATA) - {"label_map"})
    if not isinstance(tasks, (Mapping, list, tuple)):
        raise ValueError(
            f"Expected argument `tasks` to be a list of tasks, or a dict that names them, but got {tasks!r:.100}."
        )
    given = tasks.items() if isinstance(tasks, Mapping) else ((None, task) for task in tasks)
    loaded = [(name, load_data(task, "target")) for name, task in given]
    named = {str(name or getattr(data, "name", type(data).__name__)): data for name, data in loaded}
    if len(named) < max(2, len(loaded)):
        raise ValueError(
            f"Expected argument `tasks` to hold two tasks or more of different names, but got {list(named)}."
        )
    if numbers := [name for name, data in named.items() if getattr(data, "task", "classification") != "classification"]:
        raise ValueError(f"Expected argument `tasks` to hold tasks with class labels, but {numbers[0]!r} has none.")
    built = load_backbone(backbone, shape=lambda: read_input_shape(next(iter(named.values())), split))
    kept = {
        name: extract(
            built, data, keep=needed_of(data), split=split, max_samples=max_samples, trainer=trainer,
            progress=progress,
        ).kept
        for name, data in named.items()
    }  # fmt: skip
    results = {
        (one, other): task_relatedness(
            kept[one]["features"],
            kept[one]["labels"],
            kept[other]["features"],
            kept[other]["labels"],
            reference_groups=kept[one].get("groups"),
            target_groups=kept[other].get("groups"),
            **arguments,
        )
        for one in named
        for other in named
        if one != other
    }
    return AlikeTasks(
        tuple(named),
        {pair: result.bound for pair, result in results.items()},
        {other: result.certificate.guessing for (_, other), result in results.items()},
    )
