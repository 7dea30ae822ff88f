"""What each job of the command line is called, takes and shows. Nothing heavy is imported: ``--help`` reads this."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        name: What follows ``lightning-transfer``; ``conf/<name>.yaml`` is its config.
        summary: One line of ``--help``.
        groups: Config groups that its help lists.
        examples: Overrides, and what they are good for.
        run: Where the function is that takes the config and returns the objective of a sweep: ``"module:function"``.
        plain: Takes the words behind its name instead of a config, and returns nothing.
        merges: What jobs of a sweep write into one folder comes together there; others are given a folder each.
    """

    name: str
    summary: str
    groups: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    run: str
    plain: bool = False
    merges: bool = False

    def load(self) -> Callable[[Any], Any]:
        """Import the function."""
        module, _, function = self.run.partition(":")
        return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


_ALL = (
    Job(
        name="screen",
        summary="rank backbones by how well they will transfer to a target",
        groups=("backbone", "zoo", "target", "reference", "metrics", "trainer", "logger", "experiment"),
        examples=(
            ("", "six backbones on photo patches: table, CSV, JSON, HTML and figure"),
            ("zoo=[timm/resnet18.a1_in1k,hf/facebook/dinov2-small]", "backbones by name; list finds names"),
            ("target=digits metrics=all", "every score on another target"),
            ("backbone=efficientnet_lite0 metrics=[logme,h_score]", "one backbone, two scores"),
            ("target=digits reference=photo_patches error_bars=true", "standard errors and the relatedness bound too"),
            ("-m backbone=efficientnet_lite0,efficientnet_lite1 target=digits", "a sweep, one job for each backbone"),
        ),
        run="lightning_transfer.jobs.screen:run",
        merges=True,
    ),
    Job(
        name="relate",
        summary="bound the loss on a target by what a reference task tells about it",
        groups=("backbone", "reference", "target", "trainer", "experiment"),
        examples=(
            ("reference=photo_patches target=digits", "the bound of one pair of tasks"),
            ("-m reference=photo_patches,digits target=digits", "which reference is nearest"),
        ),
        run="lightning_transfer.jobs.relate:run",
    ),
    Job(
        name="finetune",
        summary="fine-tune a backbone on a target, with transferability scores along the way",
        groups=("backbone", "target", "reference", "callbacks", "optimizer", "trainer", "logger", "experiment"),
        examples=(
            ("backbone=efficientnet_lite0 target=digits", "one run"),
            ("-m backbone=efficientnet_lite0,efficientnet_lite1", "a sweep, one job for each backbone"),
        ),
        run="lightning_transfer.jobs.finetune:run",
    ),
    Job(
        name="cache",
        summary="show or clear the cache of features",
        groups=(),
        examples=(
            ("", "what lies there"),
            ("clear", "delete it"),
            ("folder=features", "another folder than the default"),
        ),
        run="lightning_transfer.jobs.cache:run",
        plain=True,
    ),
    Job(
        name="select",
        summary="screen, fine-tune the few that promise most, and end with a fine-tuned backbone, under a budget",
        groups=("zoo", "target", "metrics", "trainer", "experiment"),
        examples=(
            ("target=digits", "at a tenth of the cost of fine-tuning all of the zoo"),
            ("target=digits 'budget=10 min' epochs=12", "in ten minutes"),
            (
                "zoo=[timm/resnet18.a1_in1k,timm/resnet34.a1_in1k] 'budget=20 epochs'",
                "yours, 20 epochs in all",
            ),
        ),
        run="lightning_transfer.jobs.select:run",
    ),
    Job(
        name="study",
        summary="fine-tune a zoo on several targets and see which scores foretold it",
        groups=("zoo", "metrics", "trainer", "preset", "experiment"),
        examples=(
            ("preset=small", "six networks, three targets, two seeds: a few minutes"),
            ("zoo=[timm/resnet10t.c3_in1k,timm/resnet14t.c3_in1k] targets=[emoji]", "networks and targets of your own"),
            ("study.part=1/4 hydra.run.dir=mine", "a quarter of it; other parts write into the same folder"),
        ),
        run="lightning_transfer.jobs.study:run",
        merges=True,
    ),
    Job(
        name="list",
        summary="list backbones: names, parameters, input sizes",
        groups=(),
        examples=(
            ("timm/vit_*_in1k", "what timm has weights for"),
            ("torchvision/* max_parameters=1e7", "small networks only"),
        ),
        run="lightning_transfer.jobs.list:run",
        plain=True,
    ),
    Job(
        name="report",
        summary="write what a folder holds as one HTML file to sort, filter and share",
        groups=(),
        examples=(
            ("outputs/screen", "report.html in the folder of the newest screen"),
            ("multirun/relate/2026-01-31/12-00-00 output=~/bounds.html", "of this sweep, somewhere else"),
        ),
        run="lightning_transfer.jobs.report:run",
        plain=True,
    ),
)

#: Every job by its name, in the order of ``--help``.
JOBS = {job.name: job for job in _ALL}
