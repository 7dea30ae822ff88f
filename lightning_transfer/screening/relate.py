"""A backbone, a reference and a target in, the task-relatedness bound out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.data.loading import load_data
from lightning_transfer.inputs import Key, keys_of
from lightning_transfer.report.html import bound_section, page
from lightning_transfer.screening.bound_ranking import NUM_BASELINES
from lightning_transfer.screening.candidates import check_relatedness, needed_of
from lightning_transfer.screening.duplicates import NOTES, watch_duplicates
from lightning_transfer.screening.screen import remarks_on_cache
from lightning_transfer.utilities.checks import check_path
from lightning_transfer.utilities.figures import png_bytes
from lightning_transfer.utilities.files import try_to_write, write_atomically
from lightning_transfer.utilities.notice import warn_user

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_transfer.cache import FeatureCache
    from lightning_transfer.relatedness.result import TaskRelatednessResult

FORMAT = 2  # of relatedness.json; files of version 1 carry no number


def relate(
    backbone: Any,
    reference: Any,
    target: Any,
    *,
    split: str = "train",
    evaluation_split: str | None = None,
    max_samples: int | None = None,
    trainer: Trainer | Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    progress: bool | None = None,
    input_key: Key | None = None,
    label_key: Key | None = None,
    cache: FeatureCache | bool | str | Path = True,
    cache_key: str | None = None,
    info: Mapping[str, Any] | None = None,
    **options: Any,
) -> TaskRelatednessResult:
    """Extract the features of both sides and bound the loss on the target.

    Args:
        backbone: A name, config, module or backbone.
        reference: A datamodule, a config of one, or a name.
        target: Likewise.
        split: The split of both sides that transforms are learned on.
        evaluation_split: The split of both sides that the bound is evaluated on; ``None``: halves of ``split``, each
            with transforms learned on the other.
        max_samples: At most so many samples a side (seeded by the option ``seed``).
        trainer: A Trainer, or arguments of one, for Lightning's predict loop.
        output_dir: Where ``relatedness.json``, ``.html`` and ``.png`` are written.
        progress: Whether to show bars; by default on a terminal.
        input_key: Key of the inputs in a batch, see :func:`lightning_transfer.screen`.
        label_key: The same for the labels.
        cache: Where features lie for the next time, see :func:`lightning_transfer.screen`.
        cache_key: Name of data that do not say what they hold, see there.
        info: Plain JSON values to write into ``relatedness.json`` too.
        **options: Arguments of :func:`lightning_transfer.functional.task_relatedness`; ``baselines`` is 5 here
            where no ``config`` says otherwise. Groups come from the data where they are not given.

    Returns:
        The bound, its terms and how it was certified; lower is better.

    Raises:
        ValueError: If a name or argument is wrong, or a side has no class labels.
    """
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.cache import CachedPasses, FeatureCache
    from lightning_transfer.extraction import check_trainer
    from lightning_transfer.functional.task_relatedness import task_relatedness
    from lightning_transfer.passes import read_input_shape

    extract = CachedPasses(FeatureCache.of(cache), cache_key, watch_duplicates, NOTES)
    arguments: dict[str, Any] = {} if options.get("config") else {"baselines": NUM_BASELINES}
    arguments |= check_relatedness(options)
    if evaluation_split is not None and arguments.get("evaluation") is not None:
        raise ValueError("Expected argument `evaluation_split` or `evaluation`, but got both.")
    seed = arguments.get("seed", getattr(arguments.get("config"), "seed", 0))
    check_trainer(trainer)
    keys = {"input_key": input_key, "label_key": label_key}
    sides = {"reference": load_data(reference, "reference", keys), "target": load_data(target, "target", keys)}
    built = load_backbone(
        backbone, shape=lambda: read_input_shape(sides["target"], split, keys_of(sides["target"], input_key, label_key))
    )
    fingerprint = built.fingerprint()

    def features_of(side: str, of_split: str) -> tuple[Any, Any, Any]:
        extraction = extract(
            built, sides[side], keep=needed_of(sides[side]), split=of_split, max_samples=max_samples, trainer=trainer,
            seed=seed, progress=progress, fingerprint=fingerprint, role=side,
            **keys_of(sides[side], input_key, label_key, own_first=side == "reference"),
        )  # fmt: skip
        for remark in remarks_on_cache(extraction):
            warn_user(f"{side}: {remark}")
        return extraction.kept["features"], extraction.kept["labels"], extraction.kept.get("groups")

    if evaluation_split is not None:
        held_out = [features_of(side, evaluation_split) for side in ("reference", "target")]
        arguments["evaluation"] = tuple(side[i] for pair in ((0, 1), (2,)) for side in held_out for i in pair)
    for side, data in sides.items():
        arguments.setdefault(f"{side}_class_names", getattr(data, "class_names", None) or None)
    learned = {side: features_of(side, split) for side in ("reference", "target")}
    arguments = {f"{side}_groups": groups for side, (_, _, groups) in learned.items()} | arguments
    result = task_relatedness(*learned["reference"][:2], *learned["target"][:2], **arguments)
    if output_dir is not None:
        names = {"backbone": built.name, **{side: getattr(data, "name", side) for side, data in sides.items()}}
        content = json.dumps({"format": FORMAT, **names, **(info or {}), **result.to_dict()}, indent=2).encode()
        folder = check_path(output_dir, "output_dir")
        try_to_write("The bound", folder, lambda: write_atomically(folder / "relatedness.json", content))
        pair = f"{names['reference']} to {names['target']}"
        report = page(f"From {pair}", [bound_section([(names["backbone"], json.loads(content))])])
        try_to_write("The report", folder, lambda: write_atomically(folder / "relatedness.html", report))
        figure = folder / "relatedness.png"
        try_to_write("The figure of the bound", folder, lambda: write_atomically(figure, png_bytes(result.plot())))
    return result
