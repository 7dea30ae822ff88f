"""Backbones and a target in, a ranked leaderboard out."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers.abstract import WrapperMetric

from lightning_transfer.data.base import TransferDataModule
from lightning_transfer.data.loading import load_data
from lightning_transfer.data.sampling import grouped_order, stratified_order
from lightning_transfer.inputs import Key, keys_of, needs_of, task_of
from lightning_transfer.relatedness.config import OF_ONE_BACKBONE
from lightning_transfer.report.text import title
from lightning_transfer.screening.candidates import (
    BOUND,
    MetricFactory,
    check_relatedness,
    load_features,
    load_grouped,
    name_candidates,
    needed_of,
    refuse_for_several,
)
from lightning_transfer.screening.duplicates import NOTES, remark_on_duplicates, watch_duplicates
from lightning_transfer.screening.layer_scores import AGGREGATIONS, LayerScores, choose_layers
from lightning_transfer.screening.leaderboard import Leaderboard
from lightning_transfer.screening.merging import add_to_folder
from lightning_transfer.screening.race import Race, say_dropped
from lightning_transfer.screening.resume import as_settings, load_earlier
from lightning_transfer.screening.row import BOUND_NUMBERS, Row
from lightning_transfer.screening.zoo import combine_zoo_scores
from lightning_transfer.utilities.checks import check_one_of, check_path, check_positive_int, check_seed
from lightning_transfer.utilities.errors import Failure
from lightning_transfer.utilities.files import try_to_write
from lightning_transfer.utilities.interrupts import interruptible
from lightning_transfer.utilities.optimization import check_optimizations
from lightning_transfer.utilities.versions import versions
from lightning_transfer.workers import PICTURE_MEMORY, SharedReading

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, Trainer

    from lightning_transfer.cache import CachedPasses, FeatureCache
    from lightning_transfer.cache.passes import CachedExtraction
    from lightning_transfer.relatedness.result import TaskRelatednessResult

    Kept = Mapping[str, Tensor]

_SMALL = 50  # rows up to which a leaderboard is written after each backbone
_BETWEEN_WRITINGS = 19  # times the seconds that the last writing took, with more rows
_LARGEST_MAP = 10_000  # cells of a label map that a row keeps


def screen(
    backbones: Any,
    target: Any,
    metrics: str | Metric | Iterable[str | Metric] | Mapping[str, Any] = "default",
    *,
    reference: Any = None,
    rank_by: str | None = None,
    split: str = "train",
    max_samples: int | None = None,
    trainer: Trainer | Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    error_bars: bool | int = False,
    relatedness: Mapping[str, Any] | None = None,
    resume: Leaderboard | str | Path | None = None,
    layers: str | Sequence[str] | None = None,
    aggregate: str | None = None,
    seed: int = 0,
    progress: bool | None = None,
    input_key: Key | None = None,
    label_key: Key | None = None,
    groups: Any = None,
    picture_memory: int = PICTURE_MEMORY,
    optimize: Collection[str] = (),
    cache: FeatureCache | bool | str | Path = True,
    cache_key: str | None = None,
    info: Mapping[str, Any] | None = None,
    race: float | None = None,
) -> Leaderboard:
    """Score backbones on a target and rank them.

    Backbones are built one after the other, and each goes over the data once: another screen of the same samples, with
    other scores or other labels, finds its features in the cache. One that fails becomes a row with its reason; the
    others still finish.

    Args:
        backbones: A name, :class:`~lightning_transfer.backbones.Backbone`, module or config; a list of these; or a dict
            from the name in the table to one of these. A module that does not say what it takes gets the shape of the
            target's inputs. Or features that were computed elsewhere, as in
            ``{"a": features, "b": (features, source_probs), "c": np.load("features.npz")}``.
        target: A datamodule, a config of one, a name such as ``"photo_patches"``, or anything that
            :func:`~lightning_transfer.data.as_datamodule` takes: a loader, a data set, a pair ``(inputs, labels)``, a
            path. Beside features their labels or targets.
        metrics: ``"default"``, ``"all"``, a name, a Metric, several of these, or a dict from names to options of the
            score or to Metrics. Metrics keep their own names as columns.
        reference: Like ``target``. With it the task-relatedness bound becomes the column ``task_relatedness``.
        rank_by: The column that ranks. ``None``: ``"leep"`` where every backbone has a source head and no layers
            are compared, else ``"logme"`` where it is computed, else the first score.
        split: The split that scores are computed on, of target and reference.
        max_samples: At most so many samples of a split (seeded).
        trainer: A Trainer, or arguments of one, for Lightning's predict loop.
        output_dir: Where the leaderboard is written, anew after each backbone; beyond 50 of them only so often that it
            takes no more than a twentieth of the time.
        error_bars: Standard errors beside the scores: jackknife from so many groups (``True`` for 16), bootstrap for
            scores that are no sums.
        relatedness: Arguments of :func:`lightning_transfer.functional.task_relatedness`; of a single backbone also its
            ``head``, and its features as ``evaluation``. What ``confidence`` adds to a row holds with that probability
            for all backbones together, so for the one chosen too; layers have no such statement.
        resume: A leaderboard of the same screen, or where it was saved: backbones that it has and that have not changed
            (weights, structure, preprocessing) keep their rows; those that failed or are new are screened.
        layers: Score layers of every backbone beside its own features, from the same pass: ``"all"`` for the stages of
            the network, or names of modules and patterns; see :class:`~lightning_transfer.backbones.LayeredBackbone`.
            A row is then a layer: ``row.backbone`` is ``"name:layer"``.
        aggregate: Of the layers one row a backbone instead: the ``"best"`` layer of each score (the row says which),
            the ``"mean"`` over the layers, or the ``"last"`` layer with that score.
        seed: Seed of the subsample that ``max_samples`` draws.
        progress: Whether to show a bar for each backbone; by default on a terminal.
        input_key: Key of the inputs in a batch, or their position in a tuple, where the usual names do not do (see
            :func:`~lightning_transfer.inputs.split_batch`); a datamodule may have an attribute ``input_key`` instead,
            which for the reference comes first.
        label_key: The same for the labels or targets.
        groups: What says which samples of the target belong together (a patient, a document, copies of a picture): one
            id for each sample of ``split``, whole numbers or text; or the key, column or position under which the data
            have it. Scores that leave a sample out leave out its group, standard errors are those of groups drawn at
            random, races divide none, and the bound learns and evaluates on different ones. Without it samples are
            taken as independent.
        picture_memory: MiB of decoded pictures that are kept from one backbone to the next, at 4 bytes a pixel, so that
            each file is decoded once. What does not fit is decoded for each backbone; 0 keeps none. The loader's
            workers live as long as the screen.
        optimize: ``"channels_last"``, ``"compile"`` or both, see :func:`~lightning_transfer.extraction.extract`.
        cache: Where features lie for the next screen: ``True`` for the user's cache folder
            (``$LIGHTNING_TRANSFER_CACHE``, which may be ``off``), ``False`` for nowhere, a folder, or a
            :class:`~lightning_transfer.cache.FeatureCache`.
        cache_key: Name of the data where they do not say what they hold (a stream, a data set of your own); give
            another one when they change. Without it features of such data are not cached.
        info: Plain JSON values to keep in ``board.info`` beside what is found there.
        race: Spend at most this share of the forward passes: backbones see the target in nested, stratified portions
            that double, and those that fall behind are dropped. Rows of dropped ones say when and why; the scores of
            the others are those of equally many samples, ``board.info["race"]`` has the account. Standard errors are
            computed. Without ``reference`` and ``resume``, on datamodules of this package and what becomes one.

    Returns:
        The leaderboard. After an interrupt (Ctrl-C) it holds what was done, and ``info["interrupted"]`` is true.

    Raises:
        ValueError: If a name or argument is unknown or wrong, or ``resume`` is of another screen, before any backbone
            is built.
        ModuleNotFoundError: If a library that the target needs is not installed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from lightning_transfer.screening.screen import screen  # or: from lightning_transfer import screen
        >>> from lightning_transfer.backbones import ModuleBackbone
        >>> from lightning_transfer.data import Digits
        >>> pixels = ModuleBackbone(nn.Flatten(), input_shape=(1, 8, 8), head=None)
        >>> board = screen({"pixels": pixels}, Digits(max_samples=200), metrics=["h_score", "logme"])
        >>> board.rank_by, board.columns, board["pixels"].feature_dim
        ('logme', ('h_score', 'logme'), 64)
    """
    from lightning_transfer.cache import CachedPasses, FeatureCache
    from lightning_transfer.passes import ScoringPass, is_read_once, read_input_shape

    if aggregate is not None and layers is None:
        raise ValueError(f"Expected argument `layers` beside `aggregate`, but got None beside {aggregate!r}.")
    check_one_of(aggregate, (None, *AGGREGATIONS), "aggregate")
    if layers is not None and not (isinstance(layers, (str, list, tuple)) and all(isinstance(e, str) for e in layers)):
        raise ValueError(f"Expected argument `layers` to be 'all' or names of layers, but got {layers!r}.")
    optimize = check_optimizations(optimize)
    seed = check_seed(seed)
    max_samples = None if max_samples is None else check_positive_int(max_samples, "max_samples")
    check_positive_int(picture_memory, "picture_memory", minimum=0)
    extract = CachedPasses(FeatureCache.of(cache), cache_key, _Watch(), NOTES)
    backbones, target = load_features(backbones, target)
    candidates = name_candidates(backbones)
    if race is not None and not (reference is None and resume is None):
        raise ValueError("Expected argument `race` without `reference` and `resume`.")
    error_bars = error_bars if race is None else error_bars or True
    keys = {"input_key": input_key, "label_key": label_key}
    data, group_key = load_grouped(target, keys, groups, split)
    source = None if reference is None else load_data(reference, "reference", keys)
    for side, what in ((data, "target"), (source, "reference")):
        if len(candidates) > 1 and is_read_once(getattr(side, "loader", None)):
            raise ValueError(
                f"Expected argument `{what}` to be data that each of {len(candidates)} backbones can read, but got "
                "batches that come once only: hand in a list of them, or a DataLoader."
            )
    for side in (data, source):
        if side is not None:
            side.prepare_data()
            side.setup("fit")
    plan = _Plan(
        target=data,
        reference=source,
        metrics=MetricFactory.of(metrics, task_of(data), error_bars, source is not None),
        passes={
            "split": split, "max_samples": max_samples, "trainer": trainer, "seed": seed, "progress": progress,
            "optimize": optimize,
        },
        keys=keys,
        group_key=group_key,
        relatedness=check_relatedness(relatedness),
        count=len(candidates),
        extract=extract,
        shape=lru_cache(partial(read_input_shape, data, split, keys_of(data, input_key, label_key, group_key))),
        layers=layers,
        aggregate=aggregate,
    )  # fmt: skip
    several = "layers" if layers is not None else "backbones" if len(candidates) > 1 else ""
    asked = _for_all(plan.relatedness, 1)  # of a BoundConfig too
    for options in (asked, *(getattr(metric, "data", {}) for metric in plan.metrics.objects.values())):
        refuse_for_several(options, several, (*OF_ONE_BACKBONE, *(["confidence"] if layers is not None else [])))
    ScoringPass(data, split=split, max_samples=max_samples, seed=seed)  # refuses a wrong split or number now
    precision = extract.numerics(trainer)["precision"]
    kept = picture_memory * (len(candidates) > 1)
    board = _Board(rank_by, plan, output_dir, precision, info or {})
    if race is not None:
        board.settings["race"] = race
        _run_race(candidates, plan, board, race)
        return board.leaderboard(figure=True)
    earlier = load_earlier(resume, board.settings)
    board.resumed = resume is not None
    board.waiting = {row.backbone: row for row in earlier.rows if not row.failed and row.network in candidates}
    board.info |= {
        name: earlier.info[name]
        for name in ("num_samples", "near_duplicates", "grouped", "notes")
        if name in earlier.info
    }
    try:
        with closing(SharedReading(kept, sides=1 if source is None else 2)) as reading:
            for number, (name, candidate) in enumerate(candidates.items(), start=1):
                with interruptible():
                    bar = f"{number} of {len(candidates)}: {name}"
                    finished = [row for row in board.waiting.values() if row.network == name]
                    board.add(*_screen_one(name, candidate, plan, finished, reading, bar))
    except KeyboardInterrupt:
        board.interrupt(list(candidates))
    return board.leaderboard(figure=True)


@dataclass(frozen=True)
class _Plan:
    """What is the same for every backbone of a screen."""

    target: LightningDataModule
    reference: LightningDataModule | None
    metrics: MetricFactory
    passes: Mapping[str, Any]
    keys: Mapping[str, Any]
    relatedness: Mapping[str, Any]
    extract: CachedPasses
    shape: Callable[[], Sequence[int]]
    group_key: Key | None = None
    layers: str | Sequence[str] | None = None
    aggregate: str | None = None
    count: int = 1  # of backbones


class _Board:
    """The rows so far, on disk as soon as they are known."""

    def __init__(
        self, rank_by: str | None, plan: _Plan, output_dir: str | Path | None, precision: str, info: Mapping[str, Any]
    ) -> None:
        columns = (*plan.metrics.columns, *([BOUND] if plan.reference is not None else []))
        if rank_by is not None and rank_by not in columns:
            raise ValueError(f"Expected argument `rank_by` to be one of {columns}, but got {rank_by!r}.")
        self.rank_by = rank_by
        self.columns = columns
        self.output_dir = None if output_dir is None else check_path(output_dir, "output_dir")
        self._unwritten: set[str] = set()
        self._next_writing = 0.0  # a large leaderboard is not written after each backbone
        self.rows: list[Row] = []
        self.resumed = False
        self.waiting: dict[str, Row] = {}  # of an earlier leaderboard, until their turn comes
        self.lower_is_better = plan.metrics.lower_is_better
        self.combiners = plan.metrics.combiners
        self.info: dict[str, Any] = {"versions": versions(), **_info_of(plan.target, plan.passes["split"])}
        if plan.reference is not None:
            self.info["reference"] = _name_of(plan.reference)
        self.info |= info
        self.settings = _settings_of(plan, precision)

    def add(self, rows: Sequence[Row], info: Mapping[str, Any]) -> None:
        networks = {row.network for row in rows}
        self.waiting = {name: row for name, row in self.waiting.items() if row.network not in networks}
        self.rows += rows
        self.info |= info
        start = time.monotonic()
        if len(self._all_rows()) <= _SMALL or start >= self._next_writing:
            self.leaderboard(figure=False)
            end = time.monotonic()
            self._next_writing = end + _BETWEEN_WRITINGS * (end - start)

    def interrupt(self, names: list[str]) -> None:
        missing = [name for name in names if name not in {row.network for row in self._all_rows()}]
        self.rows += [Row(name, status="interrupted") for name in missing]
        self.info["interrupted"] = True

    def leaderboard(self, *, figure: bool) -> Leaderboard:
        columns = [column for column in self.columns if any(column in row.scores for row in self._all_rows())]
        rows = [
            replace(row, scores={column: row.score(column) for column in columns}) if row.scores else row
            for row in combine_zoo_scores(self._all_rows(), self.combiners)
        ]
        board = Leaderboard(rows, lower_is_better=self.lower_is_better, info=self.info, settings=self.settings)
        if self.rank_by is not None and self.rank_by in board.columns:
            board.rank_by = self.rank_by
        if self.output_dir is not None:
            save = partial(
                add_to_folder,
                board,
                self.output_dir,
                replace_changed=self.resumed,
                combiners=self.combiners,
            )
            for what, figure_too in (("The leaderboard", False), ("The figure of the leaderboard", True))[: 1 + figure]:
                with warnings.catch_warnings():
                    if what in self._unwritten:  # that has been said
                        warnings.simplefilter("ignore")
                    if not try_to_write(what, self.output_dir, partial(save, figure=figure_too)):
                        self._unwritten.add(what)
                        break
        return board

    def _all_rows(self) -> list[Row]:
        return [*self.rows, *self.waiting.values()]


def _screen_one(
    name: str, candidate: Any, plan: _Plan, finished: Sequence[Row], reading: SharedReading, bar: str
) -> tuple[Sequence[Row], dict[str, Any]]:
    """Screen a backbone, or take its finished rows over; with what it tells about the data."""
    from lightning_transfer.backbones import LayeredBackbone, load_backbone

    start = time.perf_counter()
    row, info = Row(name), dict[str, Any]()
    try:
        backbone = load_backbone(candidate, shape=plan.shape)
        control = any(called.endswith("_random") for called in (name, backbone.name))
        row = replace(
            row, feature_dim=backbone.feature_dim, fingerprint=backbone.fingerprint(), control=control
        )  # fmt: skip
        if finished and all(before.fingerprint == row.fingerprint for before in finished):
            return finished, info
        row = replace(row, parameters=_size(backbone))
        scored = backbone if plan.layers is None else LayeredBackbone(backbone, plan.layers)
        rows, info, saved = _score(row, scored, plan, {**plan.passes, "reading": reading, "title": bar})
        start -= saved
    except Exception as error:  # any failure of one backbone is its row; the others go on
        failure = Failure.of(error)
        rows = [replace(row, failure=failure, status=str(failure))]
    seconds = time.perf_counter() - start
    return [replace(row, seconds=seconds) for row in rows], info


def _score(row: Row, backbone: Any, plan: _Plan, passes: Mapping[str, Any]) -> tuple[list[Row], dict[str, Any], float]:
    """Send the data through a backbone.

    Returns:
        Its row, or one for each of its layers; what the data told; and the seconds that the cache saved.
    """
    slices: dict[str, slice] = {"": slice(None)} if plan.layers is None else backbone.slices
    scores = LayerScores({name: plan.metrics.build(backbone) for name in slices}, slices)
    try:
        return _fill(scores, slices, row, backbone, plan, passes)
    finally:
        scores.reset()  # a metric refers to itself: its states would stay until Python looks for such cycles


def _fill(
    scores: LayerScores,
    slices: Mapping[str, slice],
    row: Row,
    backbone: Any,
    plan: _Plan,
    passes: Mapping[str, Any],
) -> tuple[list[Row], dict[str, Any], float]:
    """What :func:`_score` gives, by the scores of each layer."""
    same = {"fingerprint": row.fingerprint, **passes}
    fed = scores.of("") if plan.layers is None else scores
    kept = needed_of(plan.target, plan.group_key) if plan.reference is not None else ()
    extraction = plan.extract(
        backbone, plan.target, fed, keep=kept, group_key=plan.group_key, **same, **plan.keys
    )  # fmt: skip
    saved, reference = extraction.saved, None
    if plan.reference is not None:
        keys = keys_of(plan.reference, **plan.keys, own_first=True)
        kept = needed_of(plan.reference)
        other = plan.extract(backbone, plan.reference, role="reference", keep=kept, **same, **keys)
        saved += other.saved
        reference = other.kept
    info: dict[str, Any] = {"num_samples": extraction.num_samples}
    notes = extraction.notes()
    some = scores.of(next(iter(slices)))
    judged = [cast(Any, metric).title for metric in some.values(copy_state=False) if _leaves_one_out(metric)]
    grouped = keys_of(plan.target, group_key=plan.group_key).get("group_key") is not None
    share = notes.get("near_duplicates", 0.0)
    if not isinstance(share, float) or not 0.0 <= share <= 1.0:
        share = 0.0
    if share:
        info["near_duplicates"] = share
    if grouped:
        info["grouped"] = True
    elif remark := remark_on_duplicates(share, judged):
        info["notes"] = [remark]
    remarks = (*_remarks_on_data(plan), *remarks_on_cache(extraction))
    flops = notes.get("flops")
    known = row.parameters is not None and type(flops) is int and 0 <= flops < 2**63
    row = replace(
        row, flops=flops if known else _flops_of(backbone), cached=extraction.cached, remarks=remarks,
        images_per_second=extraction.images_per_second,
    )  # fmt: skip
    rows = []
    for layer, columns in slices.items():
        sides = [None if kept is None else _columns(kept, columns) for kept in (reference, extraction.kept)]
        named = replace(row, backbone=f"{row.backbone}:{layer}", layer=layer) if layer else row
        width = len(range(*columns.indices(backbone.feature_dim)))
        rows.append(_add_all(replace(named, feature_dim=width), scores.of(layer), plan, *sides))
    return rows if plan.aggregate is None else [_aggregate(row, rows, plan)], info, saved


class _Watch:
    """What is kept beside features, so that a screen over them needs no pass of any kind.

    Samples that repeat each other are looked for with the first backbone that sees them, and told to the others.
    """

    def __init__(self) -> None:
        self.duplicates: dict[int, dict[str, float]] = {}  # by the number of data, which live as long as the screen

    @contextmanager
    def __call__(self, module: nn.Module, data: Any) -> Iterator[Callable[[], dict[str, Any]]]:
        """Look at what a module is given of some data."""
        known = self.duplicates.get(id(data))
        with nullcontext(lambda: known or {}) if known else watch_duplicates(module) as duplicates:

            def notes() -> dict[str, Any]:
                if found := duplicates():
                    self.duplicates[id(data)] = found
                return {**found, "flops": _flops_of(module)}

            yield notes


def _flops_of(backbone: Any) -> int | None:
    from lightning_transfer.backbones import LayeredBackbone, PrecomputedFeatures

    network = backbone.backbone if isinstance(backbone, LayeredBackbone) else backbone
    if isinstance(network, PrecomputedFeatures):
        return None
    flops: int = network.cost(measure=False).flops
    return flops


def _columns(kept: Kept, columns: slice) -> Kept:
    return {**kept, "features": kept["features"][:, columns]} if "features" in kept else kept


def _add_all(row: Row, metrics: MetricCollection, plan: _Plan, reference: Kept | None, target: Kept | None) -> Row:
    for metric in metrics.values(copy_state=False):
        if reference is not None and getattr(metric, "needs_reference", False):
            set_reference = cast(Any, metric).set_reference
            takes = "groups" in reference and "groups" in signature(set_reference).parameters
            groups = {"groups": reference["groups"]} if takes else {}
            set_reference(reference["features"], reference["labels"], **groups)
    row = add_scores(row, metrics, plan.metrics.groups > 0)
    return row if reference is None or target is None else _add_bound(row, reference, target, plan)


def _aggregate(row: Row, rows: Sequence[Row], plan: _Plan) -> Row:
    """One row of the layers' rows."""
    how = str(plan.aggregate)
    columns = [column for column in (*plan.metrics.columns, BOUND) if any(column in one.scores for one in rows)]
    chosen = choose_layers(rows, columns, [*plan.metrics.lower_is_better, BOUND], how)
    by_layer = {one.layer: one for one in rows}
    errors = {
        column: by_layer[layer].standard_errors[column]
        for column, (_, layer) in chosen.items()
        if layer and column in by_layer[layer].standard_errors
    }
    layers: dict[str, list[str]] = {}
    for column, (_, layer) in chosen.items():
        layers.setdefault(layer or f"mean of {len(rows)} layers", []).append(title(column))
    said = "; ".join(f"{layer} ({', '.join(names)})" for layer, names in layers.items())
    common = [remark for remark in rows[0].remarks if all(remark in one.remarks for one in rows)]
    failures = [one.status for one in rows if one.failed]
    return replace(
        row,
        scores={column: value for column, (value, _) in chosen.items()},
        standard_errors=errors,
        parts=_aggregate_parts(rows, chosen),
        bound=by_layer[chosen[BOUND][1]].bound if BOUND in chosen and chosen[BOUND][1] else {},
        remarks=(f"{how} layers: {said}" if how != "mean" else f"scores: {said}", *common),
        status="; ".join(dict.fromkeys(failures)) or row.status,
    )


def _aggregate_parts(rows: Sequence[Row], chosen: Mapping[str, tuple[float, str]]) -> dict[str, Mapping[str, float]]:
    """Parts of scores that are relative to a zoo: of the chosen layer, or their mean."""
    parts: dict[str, Mapping[str, float]] = {}
    for column, (_, layer) in chosen.items():
        given = [row.parts[column] for row in rows if column in row.parts and layer in ("", row.layer)]
        if given:
            parts[column] = {name: sum(part[name] for part in given) / len(given) for name in given[0]}
    return parts


class _Kept(WrapperMetric):
    """Scores that go on from one pass to the next one: the reset at the beginning of a pass changes nothing."""

    def __init__(self, collection: MetricCollection) -> None:
        super().__init__()
        self.collection = collection
        members = collection.items(keep_base=True, copy_state=False)
        self.requires = tuple(sorted({need for _, metric in members for need in needs_of(metric)}))

    def update(self, **values: Tensor) -> None:
        """Update the scores."""
        self.collection.update(**values)

    def compute(self) -> dict[str, Any]:
        """The scores."""
        return self.collection.compute()

    def reset(self) -> None:
        """Keep what was seen."""


def _run_race(candidates: Mapping[str, Any], plan: _Plan, board: _Board, share: float) -> None:
    """Screen in growing portions and drop who falls behind; every backbone becomes a row."""
    data, passes = plan.target, {**plan.passes, "max_samples": None}
    if not isinstance(data, TransferDataModule):
        raise ValueError(f"Expected argument `target` to hold samples that `race` can divide, but got {data!r:.80}.")
    dataset = data.split_dataset(passes["split"])
    truth, most = dataset.truth, plan.passes["max_samples"]
    ends: list[int] | None = None
    smallest = max(2 * plan.metrics.groups, 2 * len(truth.unique()) if data.task == "classification" else 0)
    if dataset.groups is None:
        order = stratified_order(truth, passes["seed"], every_class_first=True)[:most]
    else:
        order, all_ends = grouped_order(truth, dataset.groups, passes["seed"], every_class_first=True)
        ends = [int(end) for end in all_ends if end <= (most or len(order))]
        if len(ends) < 2:
            raise ValueError(f"Expected argument `max_samples` to leave whole groups for `race`, but got {most}.")
        order, smallest = order[: ends[-1]], max(smallest, ends[1])  # no score of one group
    race = Race(len(candidates), len(order), share, min(smallest, len(order)), ends)
    rows, kept = {name: Row(name) for name in candidates}, dict[str, _Kept]()
    alive = list(candidates)
    try:
        while portion := race.next_portion(len(alive)):
            part = data.portion(passes["split"], order[race.seen : portion])
            for number, name in enumerate(alive, start=1):
                with interruptible():
                    bar = f"{number} of {len(alive)}, {portion} samples: {name}"
                    rows[name] = _run_on(rows[name], candidates[name], plan, part, kept, {**passes, "title": bar})
            race.account(len(alive), portion)
            alive = [name for name in alive if not rows[name].failed]
            here = combine_zoo_scores([rows[name] for name in alive], board.combiners)
            standing = Leaderboard(here, lower_is_better=board.lower_is_better)
            if standing.columns:  # those that are left are no longer told apart by another column
                board.rank_by = board.rank_by or standing.rank_by
            if board.rank_by is not None and board.rank_by in standing.columns:
                standing.rank_by = board.rank_by
            for one in race.drop(standing):
                alive.remove(one.backbone)
                status = say_dropped(one, title(standing.rank_by))
                rows[one.backbone] = replace(rows[one.backbone], scores={}, standard_errors={}, parts={}, status=status)
            _forget(kept, alive)
    except KeyboardInterrupt:
        board.rows = [row for name, row in rows.items() if name not in alive]
        board.interrupt(list(candidates))
        return
    finally:
        _forget(kept)
    board.rows = list(rows.values())
    notes = [*board.info.get("notes", ()), race.sentence()]
    grouped = {} if ends is None else {"grouped": True}
    board.info |= {"num_samples": race.seen, "race": race.summary(), "notes": notes, **grouped}


def _forget(kept: dict[str, _Kept], alive: Sequence[str] = ()) -> None:
    """Drop the states of all but those that go on, which would stay until Python looks for cycles."""
    for name in set(kept).difference(alive):
        kept.pop(name).collection.reset()


def _run_on(
    row: Row, candidate: Any, plan: _Plan, part: TransferDataModule, kept: dict[str, _Kept], passes: Mapping[str, Any]
) -> Row:
    """Send a further portion through a backbone of a race, and compute its scores anew."""
    from lightning_transfer.backbones import load_backbone
    from lightning_transfer.extraction import extract

    start = time.perf_counter()
    try:
        backbone = load_backbone(candidate, shape=plan.shape)
        if row.backbone not in kept:
            kept[row.backbone] = _Kept(plan.metrics.build(backbone))
            control = any(called.endswith("_random") for called in (row.backbone, backbone.name))
            row = replace(
                row, feature_dim=backbone.feature_dim, fingerprint=backbone.fingerprint(), control=control,
                parameters=_size(backbone), flops=_flops_of(backbone),
            )  # fmt: skip
        extraction = extract(backbone, part, kept[row.backbone], group_key=plan.group_key, **passes, **plan.keys)
        row = replace(row, images_per_second=extraction.images_per_second)
        row = add_scores(row, kept[row.backbone].collection, plan.metrics.groups > 0)
    except Exception as error:  # any failure of one backbone is its row; the others go on
        failure = Failure.of(error)
        row = replace(row, scores={}, standard_errors={}, parts={}, failure=failure, status=str(failure))
    return replace(row, seconds=(row.seconds or 0.0) + time.perf_counter() - start)


def _size(backbone: nn.Module) -> int | None:
    """Number of parameters; nobody knows it of stored features."""
    from lightning_transfer.backbones import PrecomputedFeatures

    if isinstance(backbone, PrecomputedFeatures):
        return None
    return sum(parameter.numel() for parameter in backbone.parameters())


def _leaves_one_out(metric: Metric) -> bool:
    return getattr(metric, "leave_one_out", False) is True


def add_scores(row: Row, metrics: MetricCollection, error_bars: bool) -> Row:
    """Compute the scores of a pass and put them into a row.

    Args:
        row: What is known of the backbone.
        metrics: Fed with all samples.
        error_bars: Whether standard errors are computed too.
    """
    from lightning_transfer.metrics.moments import leave_out_together

    members: list[tuple[str, Any]] = list(metrics.items(keep_base=True, copy_state=False))
    if error_bars:
        leave_out_together(metric for _, metric in members)
    scores = {name: _compute(metric, error_bars) for name, metric in members}
    failures = [f"{name}: {score.failure}" for name, score in scores.items() if score.failure is not None]
    return replace(
        row,
        scores={name: score.value for name, score in scores.items()},
        standard_errors={name: score.error for name, score in scores.items() if not math.isnan(score.error)},
        remarks=(*row.remarks, *_name_remarks(scores)),
        parts={name: score.parts for name, score in scores.items() if score.parts},
        status="; ".join(failures) or row.status,
    )


def _name_remarks(scores: Mapping[str, _Score]) -> tuple[str, ...]:
    """What the health records say, each remark once with the scores that it is about (unless it is about all)."""
    about: dict[str, list[str]] = {}
    for name, score in scores.items():
        for remark in score.remarks:
            about.setdefault(remark, []).append(title(name))
    return tuple(
        remark if len(names) == len(scores) else f"{remark} ({', '.join(names)})" for remark, names in about.items()
    )


def remarks_on_cache(extraction: CachedExtraction) -> list[str]:
    """What a reader of scores from cached features has to know."""
    if not extraction.error:
        return []
    return [f"features are rounded to float16 in the cache (relative error {extraction.error:.1g})"]


def _remarks_on_data(plan: _Plan) -> list[str]:
    return [
        f"{side}: {remark}"
        for side, data in (("target", plan.target), ("reference", plan.reference))
        if isinstance(data, TransferDataModule)
        for remark in data.remarks
    ]


@dataclass
class _Score:
    """What came of computing one score."""

    value: float = math.nan
    error: float = math.nan
    remarks: tuple[str, ...] = ()
    parts: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None


def _compute(metric: Any, error_bars: bool) -> _Score:
    score = _Score()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what they say is in the health record
            if error_bars and hasattr(metric, "compute_with_interval"):  # gives the score too
                try:
                    interval = metric.compute_with_interval()
                    score.value, score.error = interval.value, float(interval.standard_error)
                except (ValueError, RuntimeError) as error:
                    score.failure = Failure.of(error)
            if math.isnan(score.value):
                score.value = float(metric.compute())
            if hasattr(metric, "parts"):
                score.parts = {name: float(part) for name, part in metric.parts().items()}
            if hasattr(metric, "health"):
                with metric.sync_context():  # of the data of all ranks
                    score.remarks = metric.health().messages
    except (ValueError, RuntimeError) as error:
        score.failure = Failure.of(error)
    return score


def _add_bound(row: Row, reference: Kept, target: Kept, plan: _Plan) -> Row:
    from lightning_transfer.functional.task_relatedness import task_relatedness
    from lightning_transfer.relatedness.certificate import VACUOUS

    names = {
        f"{side}_class_names": getattr(data, "class_names", None) or None
        for side, data in (("reference", plan.reference), ("target", plan.target))
    }

    groups = {f"{side}_groups": kept.get("groups") for side, kept in (("reference", reference), ("target", target))}
    result = task_relatedness(
        reference["features"], reference["labels"], target["features"], target["labels"],
        **{**names, **groups, **_for_all(plan.relatedness, plan.count)}
    )  # fmt: skip
    errors = dict(row.standard_errors)
    if result.standard_error is not None:
        errors[BOUND] = result.standard_error
    if result.certificate.vacuous:
        row = replace(row, remarks=(*row.remarks, f"{VACUOUS} (Task relatedness)"))
    return replace(
        row, scores={**row.scores, BOUND: result.bound}, standard_errors=errors, bound=_parts_of_bound(result)
    )


def _for_all(options: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """Let statements about new samples hold for all backbones together."""
    confidence = options.get("confidence", getattr(options.get("config"), "confidence", None))
    return options if confidence is None else {**options, "confidence": 1 - (1 - confidence) / count}


def _parts_of_bound(result: TaskRelatednessResult) -> dict[str, Any]:
    numbers = {name: float(getattr(result.certificate, name)) for name in BOUND_NUMBERS}
    if not all(map(math.isfinite, numbers.values())):
        return {}
    matrix = [[round(share, 4) for share in row] for row in result.label_map.tolist()]
    reference, target = result.class_names()
    names = {"reference_class_names": reference, "target_class_names": target}
    parts = {**numbers, **names, "label_map": matrix if len(matrix) * len(matrix[0]) <= _LARGEST_MAP else []}
    if result.population_bound is not None:
        parts |= {"population_bound": result.population_bound, "confidence": result.config.confidence}
    if result.baseline is not None:
        parts["baseline"] = {**asdict(result.baseline), "copies": list(result.baseline.copies)}
    return parts


def _settings_of(plan: _Plan, precision: str) -> dict[str, Any]:
    """What the rows depend on beside the backbones, as plain JSON values."""
    split = plan.passes["split"]
    return as_settings(
        target=_data_settings(plan.target, split),
        reference=None if plan.reference is None else _data_settings(plan.reference, split),
        metrics={name: plan.metrics.options.get(name, {}) for name in plan.metrics.names} | dict(plan.metrics.objects),
        jackknife_groups=plan.metrics.groups,
        relatedness=plan.relatedness,
        split=split,
        max_samples=plan.passes["max_samples"],
        seed=plan.passes["seed"],
        precision=precision,
        **({"optimize": plan.passes["optimize"]} if plan.passes["optimize"] else {}),
        **({} if plan.layers is None else {"layers": plan.layers, "aggregate": plan.aggregate}),
        **({} if plan.reference is None else {"bound": _bound_settings(plan.relatedness)}),
        **{name: key for name, key in {**plan.keys, "group_key": plan.group_key}.items() if key is not None},
    )


def _bound_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the bound, defaults included: bounds under other defaults do not belong in one column."""
    from lightning_transfer.relatedness.config import DATA, BoundConfig

    given = {name: value for name, value in options.items() if name not in (*DATA, "config")}
    settings = asdict(BoundConfig.of(options.get("config"), given))
    return {name: value for name, value in settings.items() if name != "baseline_map"}  # which moves no bound


def _data_settings(data: LightningDataModule, split: str) -> dict[str, str]:
    settings = {"name": _name_of(data)}
    if isinstance(data, TransferDataModule) and data.named_after_path:  # which may be moved
        settings = {"name": data.default_name}  # as in leaderboards of before such names
    return settings | {"fingerprint": data.fingerprint(split)} if isinstance(data, TransferDataModule) else settings


def _info_of(data: LightningDataModule, split: str) -> dict[str, Any]:
    info: dict[str, Any] = {"target": _name_of(data), "split": split, "task": task_of(data)}
    if isinstance(classes := getattr(data, "num_classes", None), int):
        info["num_classes"] = classes
    return info


def _name_of(data: LightningDataModule) -> str:
    return str(getattr(data, "name", None) or type(data).__name__)
