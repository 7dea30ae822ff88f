"""What can be asked of the bound: one frozen set of options, checked before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal

import torch

from lightning_transfer.utilities.checks import check_in_interval, check_one_of, check_positive_int
from lightning_transfer.utilities.notice import warn_user

GroundCost = Literal["feature", "logit_range", "logit_margin", "loss"]
FeatureMapKind = Literal["identity", "orthogonal", "affine", "low_rank"]
GROUND_COSTS: tuple[GroundCost, ...] = ("feature", "logit_range", "logit_margin", "loss")
DATA = (
    "head", "label_map", "evaluation", "warm_start", "reference_class_names", "target_class_names", "reference_groups",
    "target_groups",
)  # fmt: skip
OF_ONE_BACKBONE = ("evaluation", "head", "warm_start")  # features, or what was learned on some
_TRANSFORMS = ("features", "labels", "prior")
_PRESETS = {"fixed_all": (), "learned_a": ("features",), "learned_all": _TRANSFORMS}
_LIMIT = torch.finfo(torch.float64).max


@dataclass(frozen=True)
class PublishedSchedule:
    """Step counts and rates of the released code; :meth:`small` and :meth:`large` are its two sets.

    Attributes:
        steps: Adam steps of the transforms.
        batch: Samples a side of one mini-batch transport problem.
        rate: Learning rate of feature map and label map.
        prior_rate: Learning rate of the class prior.
        label_cost: Weight of the label distance in the ground cost.
        distribution_weight: Penalty weight of the transport cost.
        prior_weight: Penalty weight of ``||P_T - B D||^2``.
        inverse_weight: Penalty weight of the distance of the two maps from being inverse to each other.
        head_steps: Steps of the head; None for ``head_epochs`` passes over the reference.
        head_epochs: Passes over the reference.
        head_batch: Batch size of the head.
        head_rate: Learning rate of the head.
        head_penalty: Weight of the gradient penalty.
        head_optimizer: ``"adam"`` (first moment 0.5) or ``"sgd"`` (momentum 0.9, weight decay 5e-4).
        joint_penalty: Penalise the gradient of the sum of both losses in one norm, as at small scale.
        tau: Lipschitz constant that the penalty aims at where the caller asks for ``"auto"``.
    """

    steps: int
    batch: int
    rate: float
    prior_rate: float
    label_cost: float
    head_steps: int | None
    head_epochs: int
    head_batch: int
    head_rate: float
    head_penalty: float
    head_optimizer: Literal["adam", "sgd"]
    joint_penalty: bool
    tau: float
    distribution_weight: float = 2.0
    prior_weight: float = 1.0
    inverse_weight: float = 1.0

    @staticmethod
    def small() -> PublishedSchedule:
        """Digits and garments with a small network."""
        return PublishedSchedule(
            steps=1001, batch=500, rate=1e-2, prior_rate=1e-4, label_cost=1e8, head_steps=None, head_epochs=501,
            head_batch=500, head_rate=1e-4, head_penalty=1e10, head_optimizer="adam", joint_penalty=True, tau=0.2,
        )  # fmt: skip

    @staticmethod
    def large() -> PublishedSchedule:
        """ImageNet as the reference of large backbones."""
        return PublishedSchedule(
            steps=2001, batch=2500, rate=1e-2, prior_rate=1e-3, label_cost=1e6, head_steps=2001, head_epochs=0,
            head_batch=1000, head_rate=1e-4, head_penalty=1e4, head_optimizer="sgd", joint_penalty=False, tau=0.02,
        )  # fmt: skip

    @staticmethod
    def of(schedule: str | PublishedSchedule) -> PublishedSchedule:
        """Look a schedule up by name.

        Raises:
            ValueError: If there is none of that name.
        """
        if isinstance(schedule, PublishedSchedule):
            return schedule
        if schedule not in ("small", "large"):
            raise ValueError(
                f"Expected argument `schedule` to be 'small', 'large' or a `PublishedSchedule`, but got {schedule!r}."
            )
        return PublishedSchedule.small() if schedule == "small" else PublishedSchedule.large()

    def num_head_steps(self, num_reference: int) -> int:
        """Steps that the head takes on a reference of a size."""
        if self.head_steps is not None:
            return self.head_steps
        return self.head_epochs * -(-num_reference // self.head_batch)


@dataclass(frozen=True)
class BoundConfig:
    """Options of :func:`lightning_transfer.functional.task_relatedness`; values are checked when it is made.

    Attributes:
        ground_cost: The cost that dominates the change of the loss: ``"feature"`` (tau times the distance, as
            published, but only in the directions in which the rows of the head differ: no other changes its loss),
            ``"logit_range"`` (never above it for the same transforms), ``"logit_margin"`` (never above that one: counts
            only what can raise the loss) or ``"loss"`` (never above that one: the rise of the loss itself, by default).
            The last is no distance: it looks at the very losses that the bound is about, and 0 does not mean alike.
        tau: Lipschitz constant of the loss of the head in the working space: a number to train the head under that
            constraint, or ``"auto"`` for the head with the smallest bound. Then, where prior and label map are learned,
            the answer on the data that it was fitted on is never above the entropy of the target prior, which guessing
            by that prior reaches. A head of the user's own keeps its constant under ``"auto"``; to meet a number it is
            scaled down.
        transforms: ``"fixed_all"``, ``"learned_a"`` (feature map), ``"learned_all"``, or a collection of ``"prior"``,
            ``"labels"`` and ``"features"``.
        method: ``"alternating"``, or ``"published"`` for the released algorithm.
        feature_map: ``"affine"``, ``"identity"``, ``"orthogonal"`` or ``"low_rank"``.
        rank: Rank of a low-rank map.
        ridge: Ridge of the feature map; None chooses it on a held-out quarter of the target.
        standardize: Standardise each task by its own statistics, as published.
        dimension: Width of the working space, by principal components of both tasks; ``"auto"`` reduces more than 512
            features to 256 (with fewer samples a side, to their number) unless a head is given, None never reduces.
        num_target_classes: Number of target classes. With labels, all of them must have samples; without, the number of
            clusters (by default that of the reference classes).
        pseudo_labels: Where labels come from if there are none: ``"classifier"`` (predictions of the transformed
            classifier, refreshed while solving) or ``"kmeans"``.
        rounds: Alternations between couplings and transforms.
        fit_samples: Reference samples of a class that the solver looks at; the certificate looks at all.
        fit_target_samples: Target samples of a class that the solver looks at; the certificate looks at all.
        block_size: Largest number of samples on a side of one transport problem. Larger classes are coupled in blocks:
            still every sample counts, and no matrix over all samples is ever formed.
        folds: 2 learns the transforms on one half of both sides and evaluates them on the other, both ways: every
            sample counts once, and none is looked at before. 1 learns and evaluates on the same samples.
        confidence: Give ``population_bound``, which bounds the expected loss on new samples with that probability; None
            for none. It needs evaluation data, or halves.
        baselines: Random copies of the reference to compare with under turning maps: ``result.baseline``, and beside it
            ``result.margin_mismatch``; 0 for none.
        baseline_map: ``"orthogonal"`` for these turning maps, or ``"identity"`` for none, which decides more where
            classes are few.
        num_resamples: Bootstrap resamples for a standard error and an interval of the bound, at least two; 0 for none.
        level: Nominal coverage of the interval.
        schedule: Schedule of the published method: ``"small"``, ``"large"`` or a :class:`PublishedSchedule`.
        seed: Seed of the order of the samples, which systematic subsamples follow, and of all that is random.

    Raises:
        ValueError: If a value is impossible.

    Example:
        >>> from lightning_transfer.relatedness import BoundConfig
        >>> BoundConfig(tau=0.5, transforms=["prior", "labels"]).transforms
        ('labels', 'prior')
        >>> BoundConfig.of(None, {"ground_cots": "feature"})
        Traceback (most recent call last):
            ...
        ValueError: Expected options of `task_relatedness`, but got 'ground_cots'; did you mean 'ground_cost'?
    """

    ground_cost: GroundCost = "loss"
    tau: float | Literal["auto"] = "auto"
    transforms: str | Collection[str] = "learned_all"
    method: Literal["alternating", "published"] = "alternating"
    # the maps, and the space in which they act
    feature_map: FeatureMapKind = "affine"
    rank: int = 16
    ridge: float | None = None
    standardize: bool = True
    dimension: int | Literal["auto"] | None = "auto"
    # target labels
    num_target_classes: int | None = None
    pseudo_labels: Literal["classifier", "kmeans"] = "classifier"
    # effort
    rounds: int = 3
    fit_samples: int = 400
    fit_target_samples: int = 1000
    block_size: int = 1000
    schedule: str | PublishedSchedule = "small"
    # what is evaluated, spread, chance
    folds: int = 2
    confidence: float | None = None
    baselines: int = 0
    baseline_map: Literal["orthogonal", "identity"] = "orthogonal"
    num_resamples: int = 0
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.transforms, str):
            check_one_of(self.transforms, tuple(_PRESETS), "transforms")
        else:
            names = self.transforms if isinstance(self.transforms, Collection) else [self.transforms]
            unknown = sorted({str(name) for name in names if name not in _TRANSFORMS})
            if unknown:
                raise ValueError(
                    f"Expected argument `transforms` to hold only 'prior', 'labels' and 'features', but got {unknown}."
                )
            object.__setattr__(self, "transforms", tuple(sorted(set(self.transforms))))
        check_one_of(self.ground_cost, GROUND_COSTS, "ground_cost")
        check_one_of(self.method, ("alternating", "published"), "method")
        check_one_of(self.feature_map, ("identity", "orthogonal", "affine", "low_rank"), "feature_map")
        check_one_of(self.baseline_map, ("orthogonal", "identity"), "baseline_map")
        check_one_of(self.pseudo_labels, ("classifier", "kmeans"), "pseudo_labels")
        for name in ("tau", "ridge"):
            value = getattr(self, name)
            if value is not None and (name, value) != ("tau", "auto"):
                object.__setattr__(self, name, check_in_interval(value, 0, _LIMIT, name))
        for name in ("level", "confidence"):
            value = getattr(self, name)
            if value is not None and not 0 < check_in_interval(value, 0, 1, name) < 1:
                raise ValueError(f"Expected argument `{name}` to be between 0 and 1, but got {value!r}.")
        if check_positive_int(self.folds, "folds") > 2:
            raise ValueError(f"Expected argument `folds` to be 1 or 2, but got {self.folds!r}.")
        if not isinstance(self.standardize, bool):
            raise ValueError(f"Expected argument `standardize` to be true or false, but got {self.standardize!r}.")
        if self.dimension is not None and self.dimension != "auto":
            check_positive_int(self.dimension, "dimension")
        if self.num_target_classes is not None:
            check_positive_int(self.num_target_classes, "num_target_classes")
        for name, least in (
            ("rank", 1), ("rounds", 1), ("fit_samples", 2), ("fit_target_samples", 2), ("block_size", 2),
            ("baselines", 0), ("num_resamples", 0), ("seed", 0),
        ):  # fmt: skip
            check_positive_int(getattr(self, name), name, least)
        if self.num_resamples == 1:  # which have no spread
            raise ValueError("Expected argument `num_resamples` to be 0 or at least 2, but got 1.")
        PublishedSchedule.of(self.schedule)

    @property
    def learn(self) -> frozenset[str]:
        """Which of ``"prior"``, ``"labels"`` and ``"features"`` are learned."""
        return frozenset(_PRESETS[self.transforms] if isinstance(self.transforms, str) else self.transforms)

    @property
    def learns_map(self) -> bool:
        """Whether there is a feature map to fit."""
        return "features" in self.learn and self.feature_map != "identity"

    @staticmethod
    def of(config: BoundConfig | None, options: Mapping[str, Any]) -> BoundConfig:
        """Put single options on top of a config.

        Args:
            config: Where to start; None for the defaults.
            options: Values by name.

        Returns:
            The config.

        Raises:
            ValueError: If a name is unknown (the message names the nearest known one), or a value is impossible.
        """
        if config is not None and not isinstance(config, BoundConfig):
            raise ValueError(f"Expected argument `config` to be a `BoundConfig`, but got {type(config).__name__}.")
        names = [part.name for part in fields(BoundConfig)]
        for name in options:
            if name not in (*names, "max_samples"):
                nearest = get_close_matches(str(name), [*names, *DATA], 1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {[*names, *DATA]}."
                raise ValueError(f"Expected options of `task_relatedness`, but got {name!r}; {hint}")
        options = dict(options)
        if "max_samples" in options:
            warn_user(
                "`max_samples` of `task_relatedness` is now `block_size` (and `fit_target_samples`).", FutureWarning
            )
            size = options.pop("max_samples")
            check_positive_int(size, "max_samples", 2)
            options = {"block_size": size, "fit_target_samples": size, **options}
        return replace(config or BoundConfig(), **options)
