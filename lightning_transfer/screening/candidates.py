"""What users hand to a screen, made into what it works with: names are checked before anything heavy is built."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from lightning_transfer.data.loading import load_data
from lightning_transfer.inputs import keys_of
from lightning_transfer.relatedness.config import OF_ONE_BACKBONE
from lightning_transfer.utilities.checks import check_positive_int

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule

    from lightning_transfer.backbones import Backbone
    from lightning_transfer.metrics.registry import MetricSpec

JACKKNIFE_GROUPS = 16
BOUND = "task_relatedness"


def load_grouped(
    data: Any, keys: Mapping[str, Any], groups: Any, split: str
) -> tuple[LightningDataModule, str | int | None]:
    """Make a datamodule of a target whose samples belong together.

    Args:
        data: As for :func:`load_data`.
        keys: ``input_key`` and ``label_key`` for what holds data.
        groups: Ids of the samples of the split, or the key under which the data have them; None for neither.
        split: The split that is scored.

    Returns:
        The datamodule, and the key of groups in its batches where these are no batches of this package.

    Raises:
        ValueError: As there; or if ids are wrong, or given for data that are no samples in an order.
    """
    from lightning_transfer.data.base import TransferDataModule

    if groups is None:
        return load_data(data, "target", keys), None
    if not isinstance(groups, (str, int)):
        loaded = load_data(data, "target", keys)
        if not isinstance(loaded, TransferDataModule):
            raise ValueError(
                "Expected argument `groups` to be the key of the groups in batches of a loader or a datamodule of your "
                f"own, but got {type(groups).__name__}."
            )
        return loaded.with_groups(groups, split), None
    loaded = load_data(data, "target", {**keys, "group_key": groups})
    if not isinstance(loaded, TransferDataModule):
        if getattr(loaded, "names_batches", False):
            raise ValueError("Expected argument `groups` with data in memory or in batches, but got it with a stream.")
        return loaded, groups
    return loaded, None


def needed_of(data: Any, group_key: str | int | None = None) -> tuple[str, ...]:
    """What the bound needs of a side: its features and labels, and its groups where it has some.

    Args:
        data: The datamodule.
        group_key: Key of the groups in its batches, where it is given.
    """
    grouped = "group_key" in keys_of(data, group_key=group_key)
    return ("features", "labels", "groups") if grouped else ("features", "labels")


def name_candidates(backbones: Any) -> dict[str, Any]:
    """Give each backbone its name in the table, and refuse unknown names before anything is built."""
    from omegaconf import DictConfig, OmegaConf

    from lightning_transfer.backbones import expand_names

    if isinstance(backbones, DictConfig):
        backbones = OmegaConf.to_container(backbones, resolve=True)
    is_config = isinstance(backbones, Mapping) and "_target_" in backbones
    if is_config or isinstance(backbones, (str, Path, nn.Module, type)):
        backbones = [backbones]
    if not isinstance(backbones, Iterable):
        raise ValueError(
            f"Expected argument `backbones` to hold names, modules or configs, but got {backbones!r:.100}."
        )
    if not isinstance(backbones, Mapping):
        named: dict[str, Any] = {}
        for candidate in expand_names(backbones):
            first = name = _backbone_name(candidate)
            count = 1
            while name in named:
                count += 1
                name = f"{first}_{count}"
            named[name] = candidate
        backbones = named
    if not backbones:
        raise ValueError("Expected argument `backbones` to name at least one backbone, but got none.")
    for candidate in backbones.values():
        _check_candidate(candidate)
    return {str(name): candidate for name, candidate in backbones.items()}


def load_features(backbones: Any, target: Any) -> tuple[Any, Any]:
    """Take features that were computed elsewhere, ``{"a": features, "b": (features, source_probs)}``, for backbones.

    Args:
        backbones: As for a screen; where all are features, they become backbones that look them up. What
            ``extract`` kept, and the file that it was saved to, read by numpy, hold them by name.
        target: As for a screen; beside features the labels or targets of their samples.

    Raises:
        ValueError: If only some are features, features and labels differ in number, or there are labels alone.
    """
    from lightning_transfer.backbones import PrecomputedFeatures
    from lightning_transfer.data import Samples

    given = {name: _stored(value) for name, value in backbones.items()} if isinstance(backbones, Mapping) else {}
    if _are_arrays(backbones) or (isinstance(backbones, (list, tuple)) and any(map(_are_arrays, backbones))):
        raise ValueError(
            "Expected argument `backbones` to be a dict from names to features that were computed elsewhere, "
            f'{{"NAME": features}}, but got {type(backbones).__name__}.'
        )
    if not any(map(_are_arrays, given.values())):
        if isinstance(target, (Tensor, np.ndarray)):
            raise ValueError(
                "Expected argument `target` to hold inputs beside labels, (inputs, labels), but got one of shape "
                f'{tuple(target.shape)}; labels alone go with features: {{"NAME": features}} as `backbones`.'
            )
        return backbones, target
    if others := [name for name, value in given.items() if not _are_arrays(value)]:
        raise ValueError(
            "Expected argument `backbones` to be a dict from names to features that were computed elsewhere, all of "
            f"them tensors or arrays, but got {type(given[others[0]]).__name__} for {others[0]!r}."
        )
    built = {name: PrecomputedFeatures.of(value, str(name)) for name, value in given.items()}
    if not isinstance(target, (Tensor, np.ndarray, list, tuple)):
        raise ValueError(
            f"Expected argument `target` to be labels beside features, but got {type(target).__name__}: hand in a "
            "tensor, array or list with the label of each sample."
        )
    for name, backbone in built.items():
        if len(backbone) != len(target):
            raise ValueError(
                f"{name}: expected features of {len(target)} samples like the labels, but got {len(backbone)}."
            )
    return built, Samples((torch.arange(len(target)), target), name="labels")


def _stored(candidate: Any) -> Any:
    """What a dict or file of an extraction holds of a backbone; anything else as it is."""
    if not isinstance(candidate, Mapping) or "features" not in candidate:
        return candidate
    return tuple(candidate[name] for name in ("features", "source_probs") if name in candidate)


def _are_arrays(candidate: Any) -> bool:
    parts = candidate if isinstance(candidate, (tuple, list)) and candidate else [candidate]
    return all(isinstance(part, (Tensor, np.ndarray)) for part in parts)


def _backbone_name(candidate: Any) -> str:
    if isinstance(candidate, (str, Path)):
        return str(candidate)
    if isinstance(candidate, Mapping):
        return str(candidate.get("name") or str(candidate.get("_target_")).rpartition(".")[2])
    return str(getattr(candidate, "name", None) or type(candidate).__name__)


def _check_candidate(candidate: Any) -> None:
    from lightning_transfer.backbones import check_name
    from lightning_transfer.utilities.instantiate import check_target, find_targets

    if isinstance(candidate, (str, Path)):
        check_name(str(candidate))
    elif isinstance(candidate, Mapping):
        for target in find_targets(candidate):
            check_target(target)
    elif not isinstance(candidate, nn.Module):
        built = f"; a module is handed in built, {candidate.__name__}()" if isinstance(candidate, type) else ""
        raise ValueError(
            f"Expected argument `backbones` to hold names, modules or configs, but got {candidate!r:.100}{built}."
        )


def check_relatedness(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Check arguments of :func:`lightning_transfer.functional.task_relatedness` before anything runs.

    Raises:
        ValueError: If one is unknown or has an impossible value.
    """
    from lightning_transfer.functional.task_relatedness import check_given
    from lightning_transfer.relatedness.config import DATA, BoundConfig

    if not isinstance(options or {}, Mapping):
        raise ValueError(f"Expected argument `relatedness` to be a dict, but got {options!r}.")
    options = dict(options or {})
    if "max_samples" in options:
        raise ValueError(
            "Expected argument `relatedness` to hold options of the bound, but got 'max_samples': set `max_samples` "
            "beside it to look at fewer samples, or `block_size` in it for smaller transport problems."
        )
    config = BoundConfig.of(options.get("config"), {k: v for k, v in options.items() if k not in (*DATA, "config")})
    check_given(config, **{k: v for k, v in options.items() if k in DATA})
    return options


def refuse_for_several(options: Mapping[str, Any], several: str, own: Collection[str] = OF_ONE_BACKBONE) -> None:
    """Refuse arguments of the bound that belong to one backbone, or one pair of tasks.

    Args:
        options: Arguments of the bound.
        several: What there are several of; nothing where there is one.
        own: Which arguments those are.

    Raises:
        ValueError: If one of them is there, and there are several.
    """
    given = [name for name in sorted(own) if options.get(name) is not None]
    if several and given:
        raise ValueError(
            f"Expected options of the bound without {', '.join(map(repr, given))} for several {several}: that belongs "
            "to one alone; call `task_relatedness` for each."
        )


@dataclass(frozen=True)
class MetricFactory:
    """Makes the scores anew for each backbone."""

    names: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    objects: Mapping[str, Metric]
    task: Any
    groups: int

    @classmethod
    def of(cls, metrics: Any, task: str, error_bars: bool | int, reference: bool = False) -> MetricFactory:
        """Check what was asked for; see :func:`lightning_transfer.screen` for the arguments."""
        from lightning_transfer.metrics.registry import METRICS, read_metrics, resolve_metrics

        asked = read_metrics(metrics)
        objects = {name: value for name, value in asked.items() if isinstance(value, Metric)}
        options = {name: value for name, value in asked.items() if not isinstance(value, Metric)}
        names = tuple(resolve_metrics(options, cast(Any, task))) if options or not objects else ()
        if both := sorted(objects.keys() & names):
            raise ValueError(f"Expected argument `metrics` to hold one score of a name, but got {both} twice.")
        needy = [name for name in names if METRICS[name].metric_class.needs_reference]
        needy += [name for name, metric in objects.items() if getattr(metric, "needs_reference", False)]
        if needy and not reference:
            raise ValueError(f"Expected argument `reference` for the metrics {needy}, but got None.")
        if BOUND in objects or options.get(BOUND):
            raise ValueError(
                f"Expected argument `metrics` to leave `{BOUND}` to `reference`, which adds that column with the "
                f"options of `relatedness`, but got {objects.get(BOUND) or dict(options[BOUND])!r}: hand it in under "
                "another name."
            )
        names = tuple(name for name in names if name != BOUND)  # a reference adds its column
        if isinstance(error_bars, (bool, np.bool_)):
            error_bars = JACKKNIFE_GROUPS if error_bars else 0
        elif error_bars == 1 or isinstance(error_bars, str):
            raise ValueError(
                f"Expected argument `error_bars` to be true, false or at least 2 groups, but got {error_bars!r}."
            )
        return cls(names, options, objects, task, check_positive_int(error_bars, "error_bars", 0))

    def build(self, backbone: Backbone) -> MetricCollection:
        """Make the scores that a backbone gives the inputs for."""
        from lightning_transfer.metrics.base import collect
        from lightning_transfer.metrics.registry import build_metrics

        available = ["features"]
        if backbone.num_source_classes is not None:
            available += ["source_probs", "source_labels"]
            available += ["source_outputs"] if getattr(backbone, "gives_outputs", True) else []
        built: dict[str, Any] = {name: metric.clone() for name, metric in self.objects.items()}
        if self.names:
            collection = build_metrics(
                self.names, task=self.task, available=available, jackknife_groups=max(self.groups, 1),
                options=self.options,
            )  # fmt: skip
            built = {**dict(collection.items(keep_base=True)), **built}
        return collect(built)

    @property
    def combiners(self) -> dict[str, Any]:
        """By column, what makes scores that are relative to a zoo out of their parts."""
        return {name: metric.combine for name, metric in self.objects.items() if getattr(metric, "combine", None)}

    @property
    def lower_is_better(self) -> list[str]:
        """Names of the scores of which the smallest wins."""
        from lightning_transfer.metrics.registry import METRICS

        built = {name: self._build_one(METRICS[name]) for name in self.names}
        return [name for name, metric in {**built, **self.objects}.items() if metric.higher_is_better is False]

    def _build_one(self, spec: MetricSpec) -> Metric:
        options = self.options.get(spec.name, {})
        try:
            return spec.build(self.task, **options)
        except (TypeError, ValueError) as error:
            known = [option for option in signature(spec.metric_class).parameters if option != "kwargs"]
            if "Unexpected keyword" in str(error) and (strange := [name for name in options if name not in known]):
                raise ValueError(
                    f"metrics.{spec.name}: no option {strange[0]!r}; known are {', '.join(known)}."
                ) from error
            raise ValueError(f"metrics.{spec.name}: {error}") from error

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all scores, in the order asked for."""
        return (*self.names, *self.objects)
